"""Multiple choice: every layout, unequal numbers of choices, wrong rows, learning, answering."""

import json
from pathlib import Path

import pytest

from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.choice_tables import read_choice_rows
from bertsmith.tasks.choose import Choose
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor
from finetune_case import CPU, choice_rows, quiet, recipe, split_rows, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_lists_columns_letters_and_texts(tmp_path: Path) -> None:
    lists = write(
        tmp_path / "a.jsonl",
        "\n".join(
            json.dumps({"text": "t", "question": "q", "choices": ["one", "two"], "label": label})
            for label in (1, "1", "two", "B", "b")
        ),
    )
    assert [row.label for row in read_choice_rows(lists)] == [1] * 5
    columns = write(tmp_path / "b.csv", "text,first,second,label\nt,one,two,0\n")
    (row,) = read_choice_rows(columns, choice_columns=("first", "second"))
    assert (row.question, row.choices, row.label) == (None, ("one", "two"), 0)


def test_the_layout_of_dream(tmp_path: Path) -> None:
    entry = [
        ["M: Hello.", "W: Hi."],
        [{"question": "Who?", "choice": ["He", "She", "All"], "answer": "She"}] * 2,
        "7-1",
    ]
    rows = read_choice_rows(write(tmp_path / "dream.json", json.dumps([entry, entry])))
    assert [(row.text, row.label, row.line) for row in rows][:2] == [
        ("M: Hello.\nW: Hi.", 1, 1),
        ("M: Hello.\nW: Hi.", 1, 2),
    ]
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("choices", "label", "message"),
    [
        (["one"], 0, r"rows.jsonl:1: 1 choices, or an empty one; expected at least two"),
        (["one", " "], 0, r"rows.jsonl:1: 2 choices, or an empty one"),
        ("one two", 0, r"rows.jsonl:1: the choices are str; expected a list"),
        (["one", "two"], 2, r"rows.jsonl:1: '2' is none of the 2 choices"),
        (["one", "two"], "three", r"rows.jsonl:1: 'three' is none of the 2 choices"),
        (["one", "two"], None, r"rows.jsonl:1: the right choice is missing"),
        (["one", "one"], "one", r"rows.jsonl:1: choice 'one', the right one, is there 2 times"),
    ],
)
def test_wrong_choices_are_named(tmp_path: Path, choices: object, label: object, message: str) -> None:
    row = {"text": "t", "choices": choices, "label": label}
    with pytest.raises(DataError, match=message):
        read_choice_rows(write(tmp_path / "rows.jsonl", json.dumps(row)))


@pytest.mark.parametrize("text", ["{}", "[[1]]", '[[["a"], [{}], "1"]]', "[", "[]"])
def test_json_that_is_not_dream(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"rows.json: .*(expected \[\[|not valid JSON)"):
        read_choice_rows(write(tmp_path / "rows.json", text))


def test_questions_on_one_text_stay_together() -> None:
    rows = read_choice_rows([(f"text {number // 3}", "q", ["a", "b"], number % 2) for number in range(60)])
    train, held_out = split_rows(rows, 0.2, seed=1)
    assert not {row.text for row in train} & {row.text for row in held_out}
    assert len({row.text for row in held_out}) == 4


def test_one_number_alone_teaches_nothing() -> None:
    rows = read_choice_rows([("t", "q", ["a", "b"], 1)] * 3)
    with pytest.raises(DataError, match="always number 1; shuffle the choices"):
        Choose().labels_in(rows, where=None, declared=())
    with pytest.raises(UsageError, match="choices are the rows' own"):
        Choose().labels_in(rows, where=None, declared=("a",))


def test_learned_scored_and_answered(base: Path, tmp_path: Path) -> None:
    settings = recipe(task="choose", max_length=32, epochs=15, baselines=["majority", "overlap"])
    rows = choice_rows(300, seed=1)
    result = finetune(settings, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    scores = {row.name: row.score for row in result.score_table}
    assert scores[str(base)] > scores["majority"]
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    answers = predictor.predict(
        [("lovely day", "is it so", ["awful", "kind day", "mean"]), ("gloomy", "is it so", ["mean", "kind"])]
    )
    assert [answer.number for answer in answers] == [1, 0]
    assert [len(answer.probabilities) for answer in answers] == [3, 2]
    assert sum(answers[0].probabilities) == pytest.approx(1, abs=1e-5)
    found = evaluate(predictor, rows)
    (row,) = found.table
    assert row.low <= row.score <= row.high
    assert found.records[0]["choices"] == tuple(rows[0][2])
    with pytest.raises(UsageError, match=r"text 1 is 'alone'; expected \(text, question, choices\)"):
        predictor.predict(["alone"])
