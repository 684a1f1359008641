"""The second training, on validation rows too: as long as the first one's best, on the same path of learning rates."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.config import recipe_toml
from bertsmith.model.weights import read_card
from bertsmith.tasks import finetune as room
from bertsmith.tasks.finetune import FinetuneResult, finetune
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.refit import Refit
from bertsmith.training.schedule import make_schedule
from finetune_case import (
    CPU,
    partner_rows,
    question_rows,
    quiet,
    recipe,
    spoken,
    text_rows,
    write_tiny_model,
    write_tsv,
)
from training_case import events

TRAIN, VALIDATION, TEST = (text_rows(count, seed=seed) for seed, count in enumerate((60, 24, 30), start=1))
SETTINGS: dict[str, Any] = {"epochs": 4, "refit": True, "log_every_steps": 1}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's speed is not measured."""
    monkeypatch.setattr(room, "matmul_peak", lambda runtime: 1e9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def run(base: Path, folder: Path, console: Any = None, test: Any = None, **changes: Any) -> FinetuneResult:
    return finetune(
        recipe(**SETTINGS | changes),
        folder,
        model=base,
        train=TRAIN,
        validation=VALIDATION,
        test={"new": TEST} if test is None else test,
        console=console or quiet(),
        runtime=CPU,
    )


def test_it_trains_on_all_rows_as_long_as_the_best_and_its_scores_are_those_of_test_rows(
    base: Path, tmp_path: Path
) -> None:
    console = quiet()
    result = run(base, tmp_path, console)
    best = next(row for row in reversed(result.table) if row.best)
    assert result.refit == Refit(84, best.epoch, 4)
    steps = events(tmp_path / "refit", "step")
    (start,) = events(tmp_path / "refit", "start")
    assert start["data"]["train_rows"] == 84
    assert len(steps) == round(best.epoch * 11), "84 rows in batches of 8"
    assert not events(tmp_path / "refit", "evaluation")
    planned = make_schedule(recipe().finetune)  # type: ignore[arg-type]
    rates = [0.01 * planned((step + 0.5) / 44) for step in range(len(steps))]
    assert [step["learning_rate"] for step in steps] == pytest.approx(rates)
    card = read_card(tmp_path / "model")
    assert card["scores"].keys() == {"new"}
    assert card["refit"]["rows"] == 84
    assert "no validation score" in spoken(console)
    assert {row.note for row in result.score_table} == {result.refit.note}
    assert set(result.scores) == {"new"}


def test_the_result_is_the_second_model(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    chosen, refit = (load_file(tmp_path / name / "model.safetensors") for name in ("last", "model"))
    assert not torch.equal(chosen["classifier.weight"], refit["classifier.weight"])
    lines = [json.loads(line) for line in (tmp_path / "predictions-new.jsonl").read_text().splitlines()]
    answers = Predictor.load(tmp_path, runtime=CPU).predict([text for text, _ in TEST])
    assert [line["prediction"] for line in lines] == [answer.label for answer in answers]


@pytest.mark.parametrize("stop", [1, 2])
def test_stopped_in_either_training_it_ends_as_if_never_stopped(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    straight = run(base, tmp_path / "straight")
    calls: list[int] = []
    real = room.train_loop

    def stopping(**given: Any) -> Any:
        calls.append(1)
        if len(calls) == stop:
            plan = given["plan"]
            half = {**given, "loss_sums": _until(given["loss_sums"], plan.total_steps // 2)}
            return real(**half)
        return real(**given)

    monkeypatch.setattr(room, "train_loop", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "stopped", checkpoint_every_seconds=1e-6)
    monkeypatch.setattr(room, "train_loop", real)
    again = run(base, tmp_path / "stopped", checkpoint_every_seconds=1e-6)
    assert again.scores == straight.scores
    assert again.refit == straight.refit
    first, second = (tmp_path / name / "model" / "model.safetensors" for name in ("straight", "stopped"))
    assert first.read_bytes() == second.read_bytes()


def _until(loss_sums: Any, calls: int) -> Any:
    left = [calls]

    def stopping(batch: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return loss_sums(batch)

    return stopping


def test_without_test_rows_it_has_no_score_and_says_so(base: Path, tmp_path: Path) -> None:
    console = quiet()
    result = run(base, tmp_path, console, test={})
    assert result.scores == {}
    assert result.score_table == ()
    assert "no test rows: nothing says how good this model is" in spoken(console)
    assert run(base, tmp_path, test={}).refit == result.refit, "read back from a finished run"


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (partner_rows, {"task": "embed", "pair_column": "pair"}),
        (question_rows, {"task": "answer", "stride": 4, "max_length": 20}),
    ],
)
def test_tasks_whose_metrics_or_examples_hang_on_the_rows(
    base: Path, tmp_path: Path, rows: Any, settings: dict[str, Any]
) -> None:
    """Vectors are scored by what validation rows have; a question may be several windows."""
    result = finetune(
        recipe(**SETTINGS | {"epochs": 1} | settings),
        tmp_path,
        model=base,
        train=rows(20, seed=1),
        validation=rows(8, seed=2),
        test={"new": rows(8, seed=3)},
        console=quiet(),
        runtime=CPU,
    )
    assert result.refit == Refit(28, 1.0, 1)
    (start,) = events(tmp_path / "refit", "start")
    assert start["plan"]["examples"] >= 28
    assert len(events(tmp_path / "refit", "step")) == -(-start["plan"]["examples"] // 8)
    assert result.scores["new"]


def test_the_flag_is_the_key(base: Path, tmp_path: Path) -> None:
    files = {name: write_tsv(tmp_path / f"{name}.tsv", rows) for name, rows in (("train", TRAIN), ("test", TEST))}
    given = recipe(epochs=1, model=str(base), train=str(files["train"]), test={"new": str(files["test"])})
    (tmp_path / "tiny.toml").write_text(recipe_toml(given))
    command = ["finetune", str(tmp_path / "tiny.toml"), "--refit", "--runs", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "refit on training and validation rows (60; 1.00 epochs)" in done.output
    assert read_card(tmp_path / "runs" / "tiny" / "finetune" / "model")["refit"]["rows"] == 60
