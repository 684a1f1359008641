"""Promise 5 for wall-clock budgets: what a clock decides, again and again, is read back; all ranks go by one clock."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bertsmith.runtime import Runtime
from bertsmith.training import loop
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Due
from bertsmith.training.saving import Saving
from ranks_case import on_ranks
from training_case import PLAN, TinyModel, events, make_batch, run

BUDGET = replace(PLAN, total_steps=None, budget_seconds=64.0, evaluate_every=50)
FASTER_FROM = 32
"""The step of a count, so that the mean of the steps between two counts is the same whichever of them are measured."""


STEPS = 223


class MadeUpClock:
    """Half a second a step at first, a quarter later: sums of them have no rounding."""

    def __init__(self, factor: float = 1.0):
        self.now, self.factor = 0.0, factor

    def monotonic(self) -> float:
        return self.now

    def next_batches(self, due: Due) -> list[Any]:
        self.now += self.factor * (0.5 if due.step < FASTER_FROM else 0.25)
        return make_batch(due.step, 8).split([4, 4])


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _run(directory: Path, monkeypatch: pytest.MonkeyPatch, model: nn.Module | None = None) -> tuple[Any, Any]:
    clock = MadeUpClock()
    saves = model is None  # while the two counts in the middle are near
    monkeypatch.setattr(Saving, "is_due", property(lambda _: saves and 15.0 <= clock.now <= 24.5))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock.monotonic))
    result, model, _ = run(directory, plan=BUDGET, next_batches=clock.next_batches, model=model, keep=1000)
    return result, model


def _told(directory: Path) -> tuple[Any, ...]:
    """Decisions and learning rates, without when; a process does not measure its first steps, so reasons may differ."""
    decided = [(e["step"], e["name"], e["value"]) for e in events(directory, "decision")]
    return decided, [(e["step"], e["learning_rate"], e["loss"]) for e in events(directory, "step")]


def test_resumed_before_at_and_after_each_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first, before which a process must have measured enough steps itself."""
    straight = tmp_path / "straight"
    result, model = _run(straight, monkeypatch)
    counted = [e for e in events(straight, "decision") if e["name"] == "total_steps"]
    assert counted[0]["value"] == 127
    assert counted[-1]["value"] == result.steps == STEPS, "twice as fast from a quarter of the time on"
    assert result.elapsed_seconds == 63.75, "the last checkpoint takes time too"
    assert [e["step"] for e in counted[:2]] == [26, FASTER_FROM]
    for step in sorted({e["step"] + near for e in counted[1:3] for near in (-1, 0, 1)}):
        directory = tmp_path / f"from-{step}"
        checkpoint = f"checkpoints/step-{step:08d}"
        shutil.copytree(straight / checkpoint, directory / checkpoint)
        shutil.copy(straight / "metrics.jsonl", directory)
        torch.manual_seed(999)
        resumed, found = _run(directory, monkeypatch, TinyModel())
        assert (resumed.resumed_from, resumed.steps) == (step, result.steps)
        assert _told(directory) == _told(straight)
        assert _bits(found) == _bits(model), f"resumed from step {step}"
        shutil.rmtree(directory)


def counted(ranks: Ranks, _runtime: Runtime, directory: Path) -> int:
    """The second rank's clock runs twice as fast."""
    clock = MadeUpClock(factor=1.0 + ranks.rank)
    loop.time = SimpleNamespace(monotonic=clock.monotonic)  # type: ignore[assignment]
    plan = replace(BUDGET, evaluate_every=None)

    def next_batches(due: Due) -> list[Any]:
        return [clock.next_batches(due)[ranks.rank]]

    result, _, _ = run(directory, plan=plan, next_batches=next_batches, evaluates=False, ranks=ranks)
    return result.steps


def test_all_ranks_count_by_the_clock_of_the_first(tmp_path: Path) -> None:
    assert on_ranks(2, counted, tmp_path) == [STEPS, STEPS]
