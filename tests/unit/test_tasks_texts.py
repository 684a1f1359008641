"""Texts and pairs of texts: read from tables, cut, put into batches, answered."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import assemble
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.tables import read_text_rows
from bertsmith.tasks.texts import encode_texts, row_text
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, pair_rows, quiet, recipe, tagged_rows, text_rows, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.load(base)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.tsv", "a\tb\tlabel\nthe day\tit was\tyes\ntom\tparis\tno\n"),
        ("pairs.csv", 'a,b,label\nthe day,"it was",yes\ntom,paris,no\n'),
        ("pairs.jsonl", '{"a": "the day", "b": "it was", "label": "yes"}\n{"b": "paris", "a": "tom", "label": "no"}\n'),
    ],
)
def test_tables_of_pairs(tmp_path: Path, name: str, text: str) -> None:
    rows = read_text_rows(write(tmp_path / name, text), text_column="a", pair_column="b")
    assert [(row.text, row.pair, row.label) for row in rows] == [("the day", "it was", "yes"), ("tom", "paris", "no")]
    assert row_text(rows[0]) == "the day | it was"


def test_pairs_in_memory_and_without_a_header(tmp_path: Path) -> None:
    rows = read_text_rows([("the day", "it was", "yes")], pair_column="pair")
    assert (rows[0].text, rows[0].pair, rows[0].label) == ("the day", "it was", "yes")
    file = write(tmp_path / "pairs.tsv", "yes\tthe day\tit was\n")
    (row,) = read_text_rows(file, text_column=1, pair_column=2, label_column=0, header=False)
    assert (row.text, row.pair, row.label) == ("the day", "it was", "yes")


def test_a_second_text_that_is_missing_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.tsv", "a\tb\tlabel\nthe day\tit was\tyes\ntom\t \tno\n")
    with pytest.raises(DataError, match=r"pairs.tsv:3: the text in column 'b' is empty"):
        read_text_rows(file, text_column="a", pair_column="b")
    with pytest.raises(DataError, match=r"no column 'c'"):
        read_text_rows(file, text_column="a", pair_column="c")


def test_both_texts_and_which_is_which(tokenizer: Tokenizer) -> None:
    rows = [TextRow("the day was", None, 1, "so it is"), TextRow("tom", None, 2, "and very and very")]
    rows.append(TextRow("the day", None, 3))
    features = encode_texts(rows, tokenizer, max_length=32)
    batch = assemble(features, np.arange(3), objective="x", pad_id=tokenizer.pad_id)
    assert batch.token_type_ids is not None
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    first, second = tokenizer.encode_ids(["the day was", "so it is"])
    assert batch.input_ids[0, :9].tolist() == [cls, *first, sep, *second, sep]
    assert batch.token_type_ids.tolist() == [[0] * 5 + [1] * 4, [0] * 3 + [1] * 5 + [0], [0] * 9]
    assert batch.take([1]).token_type_ids is not None
    assert torch.equal(batch.take([1]).token_type_ids, batch.token_type_ids[1:2])  # type: ignore[arg-type]


def test_single_texts_have_no_types(tokenizer: Tokenizer) -> None:
    features = encode_texts([TextRow("the day", None, 1)], tokenizer, max_length=32)
    assert features.second_starts is None
    assert assemble(features, np.arange(1), objective="x", pad_id=0).token_type_ids is None


def test_the_longer_text_is_cut_and_counted(tokenizer: Tokenizer) -> None:
    features = encode_texts([TextRow("the " * 10, None, 1, "was " * 4)], tokenizer, max_length=12)
    ids = features.tokens.values.tolist()
    the, was = (tokenizer.encode_ids([word])[0][0] for word in ("the", "was"))
    assert len(ids) == 12
    assert (ids.count(the), ids.count(was)) == (5, 4)
    assert features.cut_tokens.tolist() == [5]


def test_learned_scored_and_answered(base: Path, tmp_path: Path) -> None:
    """From a table of pairs to answers, from the command's side and from Python's."""
    rows = pair_rows(60, seed=1)
    settings = recipe(pair_column="pair", max_length=32, epochs=1, baselines=["majority", "linear"])
    result = finetune(settings, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    assert {row.name for row in result.score_table} == {str(base), "majority", "linear"}
    predictor = Predictor.load(tmp_path / "run" / "model", runtime=CPU)
    scored = evaluate(predictor, rows, columns=Columns(pair="pair"))
    assert scored.records[0]["pair"] == rows[0][1]
    answers = predictor.predict([(a, b) for a, b, _ in rows[:5]])
    assert [answer.label for answer in answers] == [record["prediction"] for record in scored.records[:5]]
    swapped = predictor.predict([(b, a) for a, b, _ in rows[:5]])
    assert [a.probabilities for a in answers] != [a.probabilities for a in swapped]
    file = write(tmp_path / "new.tsv", "text\tpair\n" + "".join(f"{a}\t{b}\n" for a, b, _ in rows[:5]))
    records = list(predict(predictor, file, columns=Columns(pair="pair")))
    assert [record["prediction"] for record in records] == [answer.label for answer in answers]


def test_what_is_neither_text_nor_pair(base: Path, tmp_path: Path) -> None:
    settings = recipe(pair_column="pair", max_length=32, epochs=1)
    finetune(settings, tmp_path / "run", model=base, train=pair_rows(20), console=quiet(), runtime=CPU)
    predictor = Predictor.load(tmp_path / "run" / "model", runtime=CPU)
    with pytest.raises(UsageError, match=r"text 1 is tuple; expected a string, or \(text, second text\)"):
        predictor.predict([("a", "b", "c")])
    with pytest.raises(UsageError, match="was fine-tuned on pairs of texts"):
        predictor.predict(["a"])
    with pytest.raises(UsageError, match="was fine-tuned on pairs of texts"):
        evaluate(predictor, [("the day", "same"), ("tom", "other")], columns=Columns())
    finetune(recipe(epochs=1), tmp_path / "one", model=base, train=text_rows(20), console=quiet(), runtime=CPU)
    with pytest.raises(UsageError, match="was fine-tuned on single texts"):
        Predictor.load(tmp_path / "one" / "model", runtime=CPU).predict([("a", "b")])


def test_a_tagger_takes_no_pairs(base: Path, tmp_path: Path) -> None:
    """Two texts must not be taken for two words."""
    with pytest.raises(UsageError, match="pair_column is for texts that get one label together"):
        finetune(
            recipe(task="tag", pair_column="pair"),
            tmp_path / "refused",
            model=base,
            train=tagged_rows(20),
            console=quiet(),
            runtime=CPU,
        )
    assert not (tmp_path / "refused").exists()
    settings = recipe(task="tag", epochs=1)
    finetune(settings, tmp_path / "run", model=base, train=tagged_rows(20), console=quiet(), runtime=CPU)
    found = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), "the day", "--pair", "it was"])
    assert isinstance(found.exception, UsageError)
    assert "leave --pair out" in str(found.exception)


def test_a_pair_at_the_terminal(base: Path, tmp_path: Path) -> None:
    settings = recipe(pair_column="pair", max_length=32, epochs=1)
    finetune(settings, tmp_path / "run", model=base, train=pair_rows(20), console=quiet(), runtime=CPU)
    run = CliRunner()
    found = run.invoke(app, ["predict", str(tmp_path / "run"), "the day", "--pair", "it was", "--json"])
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert (record["text"], record["pair"]) == ("the day", "it was")
    wrong = run.invoke(app, ["predict", str(tmp_path / "run"), "the day", "tom", "--pair", "it was"])
    assert isinstance(wrong.exception, UsageError)
    assert "second text to one TEXT" in str(wrong.exception)
