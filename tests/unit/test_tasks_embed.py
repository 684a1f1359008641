"""Sentence embeddings: every layout of rows, wrong rows, learning, answering."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import BertsmithError, DataError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.embed_tables import read_embed_rows
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.extract import extract_features
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tasks.rows import EmbedRow
from finetune_case import CPU, GOOD, partner_rows, quiet, recipe, write_tiny_model

PAIRS = [(row["text"], row["pair"]) for row in partner_rows(64, seed=1)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def learned(folder: Path, base: Path, train: object, validation: object = None, **settings: Any) -> Any:
    config = recipe(task="embed", **settings)
    return finetune(config, folder, model=base, train=train, validation=validation, console=quiet(), runtime=CPU)


def test_pairs_triples_numbers_and_plain_sentences(tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    row = {"text": "a", "pair": "b", "other": "c", "label": 4, "number": 5}
    table.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_embed_rows(table) == [EmbedRow("a", 1, label=4.0)]
    assert read_embed_rows(table, pair_column="pair") == [EmbedRow("a", 1, "b", label=4.0)]
    assert read_embed_rows(table, pair_column="pair", negative_column="other", label_column="number") == [
        EmbedRow("a", 1, "b", "c", 5.0)
    ]
    plain = tmp_path / "plain.txt"
    plain.write_text("one\n\ntwo, three\n", encoding="utf-8")
    assert read_embed_rows(plain, pair_column="pair") == [EmbedRow("one", 1), EmbedRow("two, three", 3)]
    assert read_embed_rows(["one", "two"]) == [EmbedRow("one", 1), EmbedRow("two", 2)]
    assert read_embed_rows([("a", "b")], pair_column="pair") == [EmbedRow("a", 1, "b")]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "b", 1), ("c", "d", "much")], {}, r"row 2: label 'much' is no number"),
        ([("a", "b", 1), ("c", "d")], {}, r"row 2: no number, where other rows have one"),
        ([("a", "b", float("nan")), ("c", "d", 1.0)], {}, r"row 1: no number"),
        ([("a", " ")], {}, r"row 1: the text in column 'pair' is empty"),
        ([("a",)], {}, r"row 1: no field 'pair'"),
        ([{"text": "a", "pair": "b"}], {"label_column": "score"}, r"row 1: no field 'score'"),
    ],
)
def test_wrong_rows_are_named(rows: object, columns: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_embed_rows(rows, pair_column="pair", **columns)


@pytest.mark.parametrize(
    ("settings", "train", "validation", "message"),
    [
        ({"loss": "cosine"}, PAIRS, None, r"loss = 'cosine' needs of each row a number \(label_column\)"),
        ({"loss": "margin"}, PAIRS, None, r"needs of each row a text that does not belong with it"),
        ({"loss": "cosine"}, [("a", "b", 1), ("c", "d", 5)], None, r"numbers from 1 to 5; set score_range"),
        ({}, ["one", "two", "three"], None, r"a text without a partner cannot be scored"),
        ({}, PAIRS, ["one", "two"], r"a text without a partner cannot be scored"),
        ({}, [("a", "b")] * 3, None, r"3 rows that say the same"),
        ({"metric": "spearman"}, PAIRS, None, r"task 'embed' here has: recall@1, recall@10, mrr"),
        ({"slice_columns": [0]}, PAIRS, None, r"slice_columns: scores of task 'embed' without numbers are of all rows"),
        ({"metric": "accuracy"}, PAIRS, None, r"finetune.metric = 'accuracy'"),
        ({"labels": ["a", "b"]}, PAIRS, None, r"labels is for classes"),
        ({"class_weights": "balanced"}, PAIRS, None, r"takes no class_weights"),
        ({"r_drop": 1.0}, PAIRS, None, r"takes no r_drop"),
        ({"compile": "on"}, PAIRS, None, r"compile = 'on' is not for loss = 'in-batch'"),
        ({"loss": "cosine", "score_range": [5, 1]}, PAIRS, None, r"the first is to be less"),
    ],
)
def test_what_cannot_be_learned_is_said(base, tmp_path, settings, train, validation, message) -> None:
    with pytest.raises(BertsmithError, match=message):
        learned(tmp_path / "run", base, train, validation, pair_column="pair", **settings)
    assert not (tmp_path / "run").exists()


def test_in_batch_learns_which_texts_belong_together(base: Path, tmp_path: Path) -> None:
    """From texts of two moods: those of one mood come nearer than those of the other."""
    result = learned(tmp_path / "run", base, PAIRS, pair_column="pair", epochs=8, temperature=0.2)
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    lovely, kind, awful = (answer.vector for answer in predictor.predict(["the lovely day", "kind it is", "awful so"]))
    assert lovely @ kind / np.linalg.norm(kind) > lovely @ awful / np.linalg.norm(awful)
    assert set(result.scores["validation"]) == {"recall@1", "recall@10", "mrr"}
    assert result.table[0].metric == "recall@1"


@pytest.mark.parametrize("loss", ["cosine", "margin", "in-batch"])
def test_every_loss_is_scored_by_numbers_where_there_are_some(base: Path, tmp_path: Path, loss: str) -> None:
    columns = {"pair_column": "pair", "negative_column": "other", "label_column": "number"}
    rows = partner_rows(48, seed=2)
    of_numbers = {"score_range": (0, 10)} if loss == "cosine" else {}
    result = learned(tmp_path / "run", base, rows, loss=loss, baselines=["overlap"], **of_numbers, **columns)
    assert set(result.scores["validation"]) == {"spearman", "pearson"}
    assert {row.name for row in result.score_table} == {str(base), "overlap"}
    evaluated = evaluate(tmp_path / "run", rows, runtime=CPU)
    assert evaluated.metric in evaluated.scores
    assert evaluated.records[0].keys() == {"row", "line", "text", "pair", "label", "prediction"}


def test_plain_sentences_are_their_own_partners(base: Path, tmp_path: Path) -> None:
    """SimCSE; the loss falls below that of a guess because dropout alone sets the two apart."""
    texts = sorted({row["text"] for row in partner_rows(64, seed=5)})
    scored = [(row["text"], row["pair"], row["number"]) for row in partner_rows(24, seed=6)]
    result = learned(tmp_path / "run", base, texts, scored, pair_column="pair", dropout=0.1, learning_rate=1e-4)
    assert set(result.scores["validation"]) == {"spearman", "pearson"}


def test_margin_is_measured_against_the_next_row_where_rows_have_no_stranger() -> None:
    rows = [EmbedRow("a", 1, "b", label=1.0), EmbedRow("c", 2, "d", label=2.0), EmbedRow("e", 3, "f", "g", 1.0)]
    assert list(Embed("margin")._learned(rows)) == [("a", "b", "d"), ("c", "d", "f"), ("e", "f", "g")]


def test_answers_of_a_text_and_of_a_pair(base: Path, tmp_path: Path) -> None:
    learned(tmp_path / "run", base, PAIRS, pair_column="pair", pooling="cls", epochs=1)
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    (vector,) = predictor.predict([GOOD[0]])
    (pair,) = predictor.predict([(GOOD[0], GOOD[0])])
    assert vector.similarity is None
    assert pair.similarity == pytest.approx(1.0)
    np.testing.assert_allclose(pair.vector, vector.vector, rtol=1e-5, atol=1e-6)
    (record,) = predict(predictor, [GOOD[0]])
    assert record["vector"] == pytest.approx(vector.vector.tolist(), abs=1e-6)
    (extracted,) = extract_features(tmp_path / "run", [GOOD[0]], pooling="cls", runtime=CPU)
    np.testing.assert_allclose(extracted.vectors, vector.vector, rtol=1e-5, atol=1e-6)


def test_two_texts_at_the_terminal(base: Path, tmp_path: Path) -> None:
    learned(tmp_path / "run", base, PAIRS, pair_column="pair", epochs=1)
    command = ["predict", str(tmp_path / "run"), GOOD[0], "--pair", GOOD[1]]
    found = CliRunner().invoke(app, [*command, "--json"])
    assert found.exit_code == 0, found.output
    (pair,) = Predictor.load(tmp_path / "run", runtime=CPU).predict([(GOOD[0], GOOD[1])])
    assert json.loads(found.stdout)["prediction"] == pytest.approx(pair.similarity, abs=1e-2)  # rounded where it runs
    assert f"{GOOD[0]} | {GOOD[1]}" in CliRunner().invoke(app, command).stdout


def test_predictions_can_be_read_back_and_scored_alike(base: Path, tmp_path: Path) -> None:
    rows = [(row["text"], row["pair"], row["number"]) for row in partner_rows(24, seed=6)]
    result = evaluate(Predictor.load(base, task="embed", runtime=CPU), rows, columns=Columns(pair="pair"), runtime=CPU)
    task = Embed()
    read = [task.of_record(record) for record in result.records]
    scores = task.score([row for row, _ in read], [answer for _, answer in read], ())
    assert scores["pearson"] == pytest.approx(result.scores["pearson"], abs=1e-5)
    assert task.scores_parts([row for row, _ in read])
    assert not task.scores_parts([EmbedRow("a", 1, "b")])


def test_any_bert_can_be_asked(base: Path) -> None:
    """Without fine-tuning: the mean of the last layer."""
    result = evaluate(Predictor.load(base, task="embed", runtime=CPU), PAIRS, columns=Columns(pair="pair"), runtime=CPU)
    assert set(result.scores) == {"recall@1", "recall@10", "mrr"}


def test_a_model_keeps_how_it_was_trained(base: Path, tmp_path: Path) -> None:
    learned(tmp_path / "run", base, PAIRS, pair_column="pair", pooling="max", temperature=0.1, epochs=1)
    task = Predictor.load(tmp_path / "run", runtime=CPU).task
    assert task.options | {"pooling": "max", "temperature": 0.1} == task.options
