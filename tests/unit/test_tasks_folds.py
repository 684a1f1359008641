"""Cross-validation: every row answered once, by a model that did not see it; pooled scores; going on after a stop."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import DataError, UsageError
from bertsmith.tasks import folds as room
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.folds import CrossValidation, cross_validate
from bertsmith.tasks.predict import Predictor
from finetune_case import CPU, pair_rows, question_rows, quiet, recipe, spoken, text_rows, write_tiny_model, write_tsv


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def run(base: Path, folder: Path, *, folds: int = 3, **finetune: Any) -> CrossValidation:
    train = text_rows(60, seed=1)
    return cross_validate(
        recipe(**finetune), folder, folds=folds, model=base, train=train, console=quiet(), runtime=CPU
    )


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_every_row_is_answered_by_a_model_that_has_not_seen_it(base: Path, tmp_path: Path) -> None:
    found = run(base, tmp_path)
    given, answered = text_rows(60, seed=1), predictions(tmp_path)
    assert [(row["text"], row["label"]) for row in answered] == given
    assert [row["row"] for row in answered] == list(range(60))
    assert sorted(fold.rows for fold in found.folds) == [20, 20, 20]
    for fold in found.folds:
        start = json.loads((tmp_path / f"fold-{fold.number}/metrics.jsonl").read_text().splitlines()[0])
        assert start["data"]["train_rows"] + start["data"]["validation_rows"] == 40
        own = [row for row in answered if row["fold"] == fold.number]
        again = Predictor.load(tmp_path / f"fold-{fold.number}", runtime=CPU).predict([row["text"] for row in own])
        assert [row["prediction"] for row in own] == [answer.label for answer in again]
        assert fold.scores["accuracy"] == statistics.fmean(row["label"] == row["prediction"] for row in own)
    accuracy = next(score for score in found.scores if score.metric == "accuracy")
    assert accuracy.pooled == statistics.fmean(row["label"] == row["prediction"] for row in answered)
    each = [fold.scores["accuracy"] for fold in found.folds]
    assert accuracy.mean == pytest.approx(statistics.fmean(each))
    assert accuracy.deviation == pytest.approx(statistics.stdev(each))
    assert accuracy.low <= accuracy.pooled <= accuracy.high
    written = json.loads((tmp_path / "folds.json").read_text())
    assert written["scores"][0]["pooled"] == found.scores[0].pooled


def test_it_goes_on_after_a_stop_and_comes_to_the_same(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(base, tmp_path / "straight", epochs=1)
    done: list[Path] = []
    real = room.finetune

    def stopping(*given: Any, **more: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[1])
        return real(*given, **more)

    monkeypatch.setattr(room, "finetune", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "stopped", epochs=1)
    monkeypatch.setattr(room, "finetune", real)
    console = quiet()
    resumed = cross_validate(
        recipe(epochs=1),
        tmp_path / "stopped",
        folds=3,
        model=base,
        train=text_rows(60, seed=1),
        console=console,
        runtime=CPU,
    )
    assert (resumed.folds, resumed.scores) == (straight.folds, straight.scores)
    assert predictions(tmp_path / "stopped") == predictions(tmp_path / "straight")
    assert spoken(console).count("done before") == 2


def test_questions_of_an_article_stay_together(base: Path, tmp_path: Path) -> None:
    """As recipes/xquad.toml has them: four folds over articles."""
    articles = [
        {
            "title": f"article {number}",
            "paragraphs": [_paragraph(row, f"{number}-{place}") for place, row in enumerate(rows)],
        }
        for number, rows in enumerate(question_rows(3, seed=number) for number in range(9))
    ]
    path = tmp_path / "asked.json"
    path.write_text(json.dumps({"data": articles}))
    settings = {
        "task": "answer",
        "train": str(path),
        "validation_share": 0.3,
        "max_length": 24,
        "stride": 4,
        "epochs": 1,
    }
    found = cross_validate(recipe(**settings), tmp_path / "run", folds=4, model=base, console=quiet(), runtime=CPU)
    assert {score.metric for score in found.scores} == {"f1", "exact_match"}
    answered = predictions(tmp_path / "run")
    assert len(answered) == 27
    folds = {(row["id"].split("-")[0], row["fold"]) for row in answered}
    assert len(folds) == 9
    assert {fold for _, fold in folds} == {1, 2, 3, 4}


def _paragraph(row: dict[str, Any], key: str) -> dict[str, Any]:
    answers = [
        {"text": text, "answer_start": start}
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
    ]
    return {"context": row["context"], "qas": [{"id": key, "question": row["question"], "answers": answers}]}


def test_what_cannot_be_is_said_before_anything_runs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="61 folds of 60 rows; give from 2 to 60"):
        run(base, tmp_path, folds=61)
    config = recipe().finetune
    assert config is not None
    without = recipe().model_copy(update={"finetune": config.model_copy(update={"model": None})})
    with pytest.raises(UsageError, match="no model to fine-tune"):
        cross_validate(without, tmp_path, folds=2)
    with pytest.raises(DataError, match="does not exist"):
        cross_validate(recipe(train="absent.tsv"), tmp_path, folds=2, model=base, console=quiet(), runtime=CPU)
    assert not list(tmp_path.iterdir())


def test_at_the_terminal(base: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "train.tsv", text_rows(40))
    text = f'name = "moods"\n[finetune]\nmodel = "{base}"\ntrain = "{train}"\nmax_length = 16\nepochs = 1\n'
    (tmp_path / "moods.toml").write_text(text)
    ran = CliRunner().invoke(
        app, ["finetune", str(tmp_path / "moods.toml"), "--folds", "2", "--runs", str(tmp_path / "runs"), "--json"]
    )
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert [fold["rows"] for fold in found["folds"]] == [20, 20]
    assert (tmp_path / "runs/moods-folds/predictions.jsonl").is_file()


def test_pairs_without_numbers_are_scored_by_what_they_have(base: Path, tmp_path: Path) -> None:
    rows = [{"text": a, "second": b} for a, b, _ in pair_rows(24)]
    settings = recipe(task="embed", pair_column="second", epochs=1)
    found = cross_validate(settings, tmp_path, folds=2, model=base, train=rows, console=quiet(), runtime=CPU)
    assert found.metric in {score.metric for score in found.scores}
    assert all(found.metric in fold.scores for fold in found.folds)
    assert all((score.pooled, score.low, score.high) == (None, None, None) for score in found.scores), (
        "vectors of several models, which cannot be ranked together"
    )


def test_hidden_words_are_told_by_the_rows_own_and_not_by_masks_that_no_row_has(base: Path, tmp_path: Path) -> None:
    rows = [text for text, _ in text_rows(30)]
    settings = recipe(task="masked-word", epochs=1)
    found = cross_validate(settings, tmp_path, folds=2, model=base, train=rows, console=quiet(), runtime=CPU)
    assert found.metric == "loss"
    for fold in found.folds:
        own = [row["text"] for row in predictions(tmp_path) if row["fold"] == fold.number]
        again = evaluate(tmp_path / f"fold-{fold.number}", own, runtime=CPU)
        assert fold.scores == pytest.approx(again.scores, rel=1e-5)
        assert fold.scores["loss"] > 0
    assert all(row["blanks"] for row in predictions(tmp_path))


def test_columns_to_slice_by_are_left_alone(base: Path, tmp_path: Path) -> None:
    """Those of the test tables, which are left alone too."""
    run(base, tmp_path, folds=2, epochs=1, slice_columns=["topic"])
    slices = json.loads((tmp_path / "fold-1/scores.json").read_text())["slices"]
    assert {line["slice"] for line in slices} == {"tokens", "label"}
