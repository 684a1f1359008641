"""Numbers for texts and pairs: read, learned, scored, answered."""

from pathlib import Path

import pytest

from bertsmith.errors import DataError, UsageError
from bertsmith.model.weights import read_config
from bertsmith.tasks.base import Columns
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.regress import Regress
from bertsmith.tasks.tables import read_rated_rows
from finetune_case import CPU, quiet, recipe, split_rows, text_rows, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def rated(count: int, *, seed: int = 0) -> list[tuple[str, float]]:
    """A lovely day is a 5, an awful one a 1."""
    return [(text, 5.0 if label == "good" else 1.0) for text, label in text_rows(count, seed=seed)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_of_any_spelling(tmp_path: Path) -> None:
    file = write(tmp_path / "rated.csv", "text,label\na,3\nb,-4.5\nc,1e-1\n")
    assert [row.label for row in read_rated_rows(file)] == [3.0, -4.5, 0.1]
    assert [row.label for row in read_rated_rows([("a", 3), ("b", 2.5)])] == [3.0, 2.5]
    assert [row.label for row in read_rated_rows([{"text": "a"}], require_labels=False)] == [None]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("good", r"rated.csv:3: label 'good' is no number"),
        ("nan", r"rated.csv:3: label nan is not finite"),
        ("inf", r"rated.csv:3: label inf is not finite"),
        (" ", r"rated.csv:3: the number is missing"),
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, value: str, message: str) -> None:
    file = write(tmp_path / "rated.csv", f"text,label\na,3\nb,{value}\n")
    with pytest.raises(DataError, match=message):
        read_rated_rows(file)


def test_one_number_alone_teaches_nothing() -> None:
    rows = read_rated_rows([("a", 3.0), ("b", 3.0)])
    with pytest.raises(DataError, match="2 rows with only the number 3; nothing can be learned"):
        Regress().labels_in(rows, where=None, declared=())
    with pytest.raises(UsageError, match="labels is for classes"):
        Regress().labels_in(rows, where=None, declared=("a", "b"))


def test_a_split_has_small_and_large_numbers() -> None:
    rows = read_rated_rows([(f"text {number}", number - 50.0) for number in range(100)])
    train, held_out = split_rows(rows, 0.1, seed=1)
    assert len(train) == 90
    tenths = sorted((row.label or 0.0) + 50 for row in held_out)
    assert [int(value // 10) for value in tenths] == list(range(10))


def test_learned_scored_and_answered(base: Path, tmp_path: Path) -> None:
    settings = recipe(task="regress", epochs=8, learning_rate=0.02, baselines=["mean", "linear"], metric="rmse")
    rows = rated(120, seed=1)
    result = finetune(settings, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    scores = {row.name: row.score for row in result.score_table if row.metric == "rmse"}
    assert scores[str(base)] < scores["mean"]
    errors = [row.score for row in result.table]
    assert result.table[[row.step for row in result.table].index(result.best_step)].score == min(errors)
    config = read_config(tmp_path / "run" / "model")
    assert (config.num_labels, config.problem_type) == (1, "regression")
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    lovely, awful = predictor.predict(["the lovely day", "the awful day"])
    assert lovely.value > awful.value
    found = evaluate(predictor, rows)
    assert set(found.scores) == {"spearman", "pearson", "rmse"}
    for row in found.table:
        assert row.low <= row.score <= row.high
    assert isinstance(found.records[0]["prediction"], float)


def test_pairs_are_rated_too(base: Path, tmp_path: Path) -> None:
    rows = [(text, "so it is", value) for text, value in rated(30)]
    settings = recipe(task="regress", pair_column="pair", max_length=32, epochs=1)
    finetune(settings, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    assert evaluate(predictor, rows, columns=Columns(pair="pair")).records[0]["pair"] == "so it is"


def test_a_plain_directory_says_by_its_config_that_it_rates(base: Path, tmp_path: Path) -> None:
    settings = recipe(task="regress", epochs=1)
    finetune(settings, tmp_path / "run", model=base, train=rated(20), console=quiet(), runtime=CPU)
    (tmp_path / "run" / "model" / "bertsmith.json").unlink()
    assert Predictor.load(tmp_path / "run" / "model", runtime=CPU).task.name == "regress"
