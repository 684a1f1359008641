"""Several labels a text: read in every layout, learned, scored, answered."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import DataError
from bertsmith.model.weights import read_config
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.metrics import multilabel_interval, score_multilabel
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.tables import read_multilabel_rows
from finetune_case import CPU, multilabel_rows, quiet, recipe, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_as_lists_as_text_and_as_columns(tmp_path: Path) -> None:
    expected = [("x",), (), ("x", "y")]
    lists = write(
        tmp_path / "a.jsonl",
        '{"text": "a", "label": ["x"]}\n{"text": "b", "label": []}\n{"text": "c", "label": ["x", "y"]}\n',
    )
    assert [row.label for row in read_multilabel_rows(lists)] == expected
    text = write(tmp_path / "b.csv", 'text,label\na,x\nb,\nc,"x, y"\n')
    assert [row.label for row in read_multilabel_rows(text)] == expected
    bars = write(tmp_path / "c.tsv", "text\tlabel\na\tx\nb\t\nc\tx|y\n")
    assert [row.label for row in read_multilabel_rows(bars, label_separator="|")] == expected
    columns = write(tmp_path / "d.csv", "text,x,y\na,1,0\nb,0,0\nc,true,1.0\n")
    assert [row.label for row in read_multilabel_rows(columns, label_columns=("x", "y"))] == expected
    assert [row.label for row in read_multilabel_rows([{"text": "a"}], require_labels=False)] == [None]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("text,x\na,1\nb,2\n", ("x",), r"rows.csv:3: column 'x' is str '2'; expected 0 or 1"),
        ("text,x\na,1\nb,\n", ("x",), r"rows.csv:3: column 'x' is str ''; expected 0 or 1"),
        ('text,label\na,"x,x"\n', (), r"rows.csv:2: label 'x' is there twice"),
    ],
)
def test_what_is_no_label_is_named(tmp_path: Path, text: str, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_multilabel_rows(write(tmp_path / "rows.csv", text), label_columns=columns)


def test_learned_scored_and_answered(base: Path, tmp_path: Path) -> None:
    settings = recipe(task="multilabel", epochs=6, baselines=["majority", "linear"])
    rows = multilabel_rows(300, seed=1)
    result = finetune(settings, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    scores = {row.name: row.score for row in result.score_table if row.metric == "micro_f1"}
    assert scores[str(base)] > scores["majority"]
    assert scores["linear"] > scores["majority"]
    config = read_config(tmp_path / "run" / "model")
    assert (config.labels, config.problem_type) == (("bad", "good"), "multi_label_classification")
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    both, neither = predictor.predict(["the lovely awful day", "the day was so"])
    assert both.labels == ("bad", "good")
    assert neither.labels == ()
    assert set(neither.probabilities) == {"bad", "good"}
    found = evaluate(predictor, rows)
    assert set(found.scores) == {"micro_f1", "macro_f1", "subset_accuracy"}
    for row in found.table:
        assert row.low <= row.score <= row.high
    printed = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), "the lovely awful day", "the day was so"])
    first, second = printed.stdout.splitlines()
    assert first.startswith("bad ")
    assert ", good " in first
    assert second == "none  the day was so"


def test_intervals_hold_most_of_the_scores_of_drawn_rows() -> None:
    draw = np.random.default_rng(1)
    truth = draw.random((400, 3)) < 0.4
    guess = np.where(draw.random((400, 3)) < 0.2, ~truth, truth)
    low, high = multilabel_interval(truth, guess, "micro_f1", seed=1)
    assert low < score_multilabel(truth, guess)["micro_f1"] < high
    assert 0.02 < high - low < 0.12
