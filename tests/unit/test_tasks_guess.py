"""Tables nobody has described: the task and columns, what stands in them, and a recipe that works."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.config import load_recipe
from bertsmith.errors import BertsmithError, DataError, UsageError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.expect import expectation
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.guess import guess
from bertsmith.tasks.lengths import Lengths
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.survey import survey
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import (
    CPU,
    choice_rows,
    multilabel_rows,
    quiet,
    tagged_rows,
    text_rows,
    write_conll,
    write_tiny_model,
)

TEXTS = text_rows(60)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, [json.dumps(row) for row in rows])


def described(path: Path) -> tuple[str, dict[str, Any]]:
    found = guess(path)
    usual = vars(type(found.columns)())
    assert found.reasons
    return found.task, {name: value for name, value in vars(found.columns).items() if value != usual[name]}


def test_classes_with_and_without_a_header(tmp_path: Path) -> None:
    named = write(tmp_path / "a.csv", ["body,kind", *(f"{text},{label}" for text, label in TEXTS)])
    assert described(named) == ("classify", {"text": "body", "label": "kind"})
    bare = write(tmp_path / "b.tsv", [f"{label}\t{text}\t7" for text, label in TEXTS])
    assert described(bare) == ("classify", {"text": 1, "label": 0, "header": False})


def test_pairs_measures_marks_and_lists(tmp_path: Path) -> None:
    twos = [(text, f"and so {text} again") for text, _ in TEXTS]
    rated = write(tmp_path / "a.tsv", ["one\ttwo\tscore", *(f"{a}\t{b}\t{n / 7:.3f}" for n, (a, b) in enumerate(twos))])
    assert described(rated) == ("regress", {"text": "two", "pair": "one", "label": "score"})
    marks = write(tmp_path / "b.csv", ["text,x,y", *(f"{t},{n % 2},{n % 3 // 2}" for n, (t, _) in enumerate(TEXTS))])
    assert described(marks) == ("multilabel", {"labels": ("x", "y")})
    listed = jsonl(tmp_path / "c.jsonl", [{"text": t, "topics": found} for t, found in multilabel_rows(30)])
    assert described(listed) == ("multilabel", {"label": "topics"})
    joined = write(
        tmp_path / "d.tsv", ["text\ttopics", *(f"{t}\t{'|'.join(x)}" for t, x in multilabel_rows(90, seed=2))]
    )
    assert described(joined) == ("multilabel", {"label": "topics", "label_separator": "|"})


def test_choices_words_and_questions(tmp_path: Path) -> None:
    rows = [{"text": t, "question": q, "choices": c, "label": n} for t, q, c, n in choice_rows(30)]
    assert described(jsonl(tmp_path / "a.jsonl", rows)) == ("choose", {})
    words = [{"tokens": w, "tags": t} for w, t in tagged_rows(30)]
    assert described(jsonl(tmp_path / "b.jsonl", words)) == ("tag", {"text": "tokens", "label": "tags"})
    assert described(write_conll(tmp_path / "c.conll", tagged_rows(9))) == ("tag", {})
    asked = {"question": "so", "context": "the day", "answers": {"text": ["day"], "answer_start": [4]}}
    assert described(jsonl(tmp_path / "d.jsonl", [asked])) == ("answer", {})
    assert described(write(tmp_path / "e.json", ['{"data": []}'])) == ("answer", {})
    assert described(write(tmp_path / "f.json", ["[]"])) == ("choose", {})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["text,id", *(f"text {n},x{n}" for n in range(30))], "no column beside 'text' looks like a label"),
        (["a,b", "1,2", "3,4"], "no column holds text"),
    ],
)
def test_where_nothing_can_be_told(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        guess(write(tmp_path / "a.csv", lines))


def test_a_survey_counts_what_is_there(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_tiny_model(tmp_path / "model"))
    rows = TASKS["classify"].read(
        [("the day", "a"), ("the day", "b"), ("so", "a"), *[("tomorrow " * 20, "a")] * 2],
        Columns(),
        require_labels=True,
    )
    looked = survey(TASKS["classify"], rows, tokenizer=tokenizer)
    assert (looked.rows, looked.repeated, looked.contradicting) == (5, 2, 1)
    assert [(label.name, label.count, label.share) for label in looked.labels] == [("a", 4, 0.8), ("b", 1, 0.2)]
    assert looked.lengths == Lengths({"50 %": 4, "90 %": 42, "95 %": 42, "99 %": 42, "longest": 42}, 48, 0.0)
    assert looked.are_counted
    assert len(looked.samples) == 5
    assert not looked.is_lopsided
    assert not survey(TASKS["classify"], rows).are_counted


def test_init_writes_a_recipe_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_tiny_model(tmp_path / "model")
    write(tmp_path / "tickets.csv", ["body,kind", *(f"{text},{label}" for text, label in text_rows(80))])
    shown = CliRunner().invoke(app, ["data", "show", "tickets.csv", "--model", str(model)])
    assert "looks like task = 'classify'" in shown.stdout
    assert "(counted)" in shown.stdout
    made = CliRunner().invoke(app, ["init", "tickets.csv", "--model", str(model)])
    assert made.stdout.startswith("wrote tickets.toml: task = 'classify'")
    recipe = load_recipe(tmp_path / "tickets.toml", ["finetune.epochs=1", "finetune.max_length=32"])
    result = finetune(recipe, tmp_path / "run", console=quiet(), runtime=CPU)
    assert {row.name for row in result.score_table} == {str(model), "majority", "linear"}
    again = CliRunner().invoke(app, ["init", "tickets.csv"])
    assert isinstance(again.exception, UsageError)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "task", "columns"),
    [
        ("cola/in_domain_train.tsv", "classify", {"text": 3, "label": 1, "header": False}),
        ("thucnews/dev.txt", "classify", {"text": 0, "label": 1, "header": False}),
        (
            "sick2014/train.tsv",
            "classify",
            {"text": "sentence_A", "pair": "sentence_B", "label": "entailment_judgment"},
        ),
        ("wnut17/train.conll", "tag", {}),
        ("dream/dev.json", "choose", {}),
        ("xquad/xquad.en.json", "answer", {}),
    ],
)
def test_real_tables(shared_data: Path, name: str, task: str, columns: dict[str, Any]) -> None:
    assert described(shared_data / name) == (task, columns)


def test_expectations() -> None:
    expectation("f1>=0.4", ("f1",)).check({"f1": 0.4})
    expectation(" rmse <= 1e-1 ", ("rmse",)).check({"rmse": 0.1})
    with pytest.raises(BertsmithError, match=r"f1 is 0.3900; expected >= 0.4"):
        expectation("f1>=0.4", ("f1",)).check({"f1": 0.39})
    for wrong, message in (("f1", "write METRIC>=SCORE"), ("f2>=1", "is scored by f1"), ("f1>=1.1.1", "is no number")):
        with pytest.raises(UsageError, match=message):
            expectation(wrong, ("f1",))
