"""Examples that spoil training are found, named and left out; the run goes back, ends well, and resumes exactly."""

import math
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertsmith.errors import BertsmithError, Stopped
from bertsmith.training.plan import Due
from bertsmith.training.track import read_metrics
from training_case import PLAN, TinyBatch, TinyModel, events, make_batch, run, with_every_checkpoint

_CLOCK = ("elapsed_seconds", "seconds", "time", "tokens_per_second", "loader_wait_seconds", "memory_bytes")
ROWS = 16
"""Of the data set: two batches an epoch."""


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _log(directory: Path, *left_out: str) -> list[dict[str, Any]]:
    kept = [e for e in read_metrics(directory / "metrics.jsonl") if e["event"] not in ("start", *left_out)]
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


def _batches(due: Due) -> list[TinyBatch]:
    """Sixteen rows over and over, two batches of eight an epoch."""
    return make_batch(0, ROWS).take(range(8 * due.step % ROWS, 8 * due.step % ROWS + 8)).split([4, 4])


def _poisoned(ids: Sequence[int], how: float, *, what: str = "loss") -> Callable[[Any], Any]:
    """Whatever holds one of these examples has a loss, or a gradient, times `how`."""

    def wrap(function: Callable[[Any], Mapping[str, Tensor]]) -> Callable[[Any], Mapping[str, Tensor]]:
        def loss_sums(batch: TinyBatch) -> Mapping[str, Tensor]:
            sums = dict(function(batch))
            if set(ids) & set(batch.example_ids):
                if what == "loss":
                    sums["mlm"] = sums["mlm"] * how
                else:
                    sums["mlm"].register_hook(lambda gradient: gradient * how)
            return sums

        return loss_sums

    return wrap


def _without(ids: Sequence[int], *, first_step: int) -> Callable[[Due], list[TinyBatch]]:
    """The same batches, without these examples from a step on."""

    def next_batches(due: Due) -> list[TinyBatch]:
        batches = _batches(due)
        if due.step < first_step:
            return batches
        rows = [[row for row, i in enumerate(batch.example_ids) if i not in ids] for batch in batches]
        return [batch.take(kept) for batch, kept in zip(batches, rows, strict=True) if kept]

    return next_batches


PLAN_20 = replace(PLAN, total_steps=20, num_examples=ROWS, log_every=3, rollback_after=2)
TWO_BATCHES = (3, 9)
"""One row of each batch, so that each update is spoiled."""


@pytest.mark.parametrize(("how", "what"), [(math.nan, "loss"), (math.inf, "loss"), (math.nan, "gradient")])
def test_examples_that_spoil_updates_are_found_named_and_left_out(tmp_path: Path, how: float, what: str) -> None:
    """They come in from step 7 on; the run is that of a data set from which they were taken at that step."""
    later = lambda due: (_batches if due.step >= 7 else _without(TWO_BATCHES, first_step=0))(due)  # noqa: E731
    result, model, printed = run(
        tmp_path / "a", plan=PLAN_20, next_batches=later, wrap=_poisoned(TWO_BATCHES, how, what=what)
    )
    assert result.steps == 20
    assert result.skipped_updates == 0, "those updates were done again"
    (rollback,) = events(tmp_path / "a", "rollback")
    assert rollback["examples"] == ["example 3", "example 9"]
    assert (rollback["step"], rollback["from_step"], rollback["to_step"]) == (7, 7, 8)
    assert "step 8: not finite (" in printed
    assert "back to step 7, and from step 8 on without example 3, example 9" in printed
    _, clean, _ = run(tmp_path / "b", plan=PLAN_20, next_batches=_without(TWO_BATCHES, first_step=0))
    assert _bits(model) == _bits(clean)
    assert _log(tmp_path / "a", "rollback") == _log(tmp_path / "b")


@pytest.mark.parametrize("keep", [1, 100])
@pytest.mark.parametrize("every", [1e-9, 1e9])
def test_it_comes_to_the_same_whatever_checkpoint_it_goes_back_to(tmp_path: Path, every: float, keep: int) -> None:
    plan = replace(PLAN_20, checkpoint_every_seconds=every)
    _, model, _ = run(tmp_path / "a", plan=plan, next_batches=_batches, wrap=_late(7), keep=keep)
    _, other, _ = run(tmp_path / "b", plan=PLAN_20, next_batches=_batches, wrap=_late(7))
    assert _bits(model) == _bits(other)
    assert _log(tmp_path / "a", "checkpoint") == _log(tmp_path / "b", "checkpoint")
    assert len(events(tmp_path / "a", "rollback")) == 1


def _late(first_step: int) -> Callable[[Any], Any]:
    """Two rows, one in each batch, spoil all updates from a step on."""

    def wrap(function: Callable[[Any], Mapping[str, Tensor]]) -> Callable[[Any], Mapping[str, Tensor]]:
        spoiled = _poisoned(TWO_BATCHES, math.nan)(function)
        return lambda batch: (spoiled if _current_step[0] >= first_step else function)(batch)

    return wrap


_current_step = [0]


@pytest.fixture(autouse=True)
def _steps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`_batches` notes the step for which it is asked, which is that of the losses that follow."""
    original = _batches

    def noting(due: Due) -> list[TinyBatch]:
        _current_step[0] = due.step
        return original(due)

    monkeypatch.setitem(globals(), "_batches", noting)


def test_a_run_with_a_rollback_resumes_exactly_from_every_checkpoint(tmp_path: Path) -> None:
    plan = with_every_checkpoint(PLAN_20)
    _, straight, _ = run(tmp_path / "straight", plan=plan, next_batches=_batches, wrap=_late(7))
    assert len(events(tmp_path / "straight", "rollback")) == 1
    for step in range(1, 20):
        directory = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", directory)
        for later in range(step + 1, 21):
            shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
        torch.manual_seed(77)
        result, model, _ = run(directory, plan=plan, model=TinyModel(), next_batches=_batches, wrap=_late(7))
        assert result.resumed_from == step
        assert _bits(model) == _bits(straight), f"resumed from step {step}"
        assert _log(directory) == _log(tmp_path / "straight"), f"resumed from step {step}"


@pytest.mark.parametrize("stop_at", [7, 8, 9, 12])
def test_a_run_stopped_amid_its_trouble_resumes_exactly(tmp_path: Path, stop_at: int) -> None:
    """At step 8 one update could not be applied, and one more would be needed to go back."""
    asked = 0

    def stopping(due: Due) -> list[TinyBatch]:
        nonlocal asked
        asked += 1
        if asked == stop_at + 1:
            signal.raise_signal(signal.SIGTERM)
        return _batches(due)

    plan = replace(PLAN_20, rollback_after=3)
    _, straight, _ = run(tmp_path / "straight", plan=plan, next_batches=_batches, wrap=_late(7))
    with pytest.raises(Stopped):
        run(tmp_path / "a", plan=plan, next_batches=stopping, wrap=_late(7))
    torch.manual_seed(77)
    result, model, _ = run(tmp_path / "a", plan=plan, model=TinyModel(), next_batches=_batches, wrap=_late(7))
    assert result.resumed_from == 7
    assert _bits(model) == _bits(straight)
    assert _log(tmp_path / "a", "checkpoint") == _log(tmp_path / "straight", "checkpoint")


def test_it_stops_with_a_report_when_leaving_out_does_not_help(tmp_path: Path) -> None:
    """All rows are bad from step 7 on: each time other ones are left out, until none are left to blame."""
    plan = replace(PLAN_20, max_rollbacks=1, num_examples=80)
    many = lambda due: make_batch(due.step, 8).split([4, 4])  # noqa: E731

    def next_batches(due: Due) -> list[TinyBatch]:
        _current_step[0] = due.step
        return many(due)

    def all_bad(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda batch: {
            name: value * (math.nan if _current_step[0] >= 7 else 1.0) for name, value in function(batch).items()
        }

    with pytest.raises(BertsmithError) as caught:
        run(tmp_path, plan=plan, next_batches=next_batches, wrap=all_bad)
    message = str(caught.value)
    assert "not finite in 2 updates in a row" in message
    assert "although the run went back once and left out example 56, example 57" in message
    assert "and 8 more; that speaks against the weights rather than the examples; lower the learning rate" in message
    assert events(tmp_path, "stop")[-1]["message"] == message


def test_a_loss_that_leaps_is_not_applied_where_asked(tmp_path: Path) -> None:
    plan = replace(PLAN_20, total_steps=80, spike_factor=3.0)
    leaping = _poisoned((3, 9), 50.0)
    calm = lambda due: _without((3, 9), first_step=0 if due.step < 60 else 999)(due)  # noqa: E731
    _, model, printed = run(tmp_path / "a", plan=plan, next_batches=calm, wrap=leaping)
    (rollback,) = events(tmp_path / "a", "rollback")
    assert rollback["examples"] == ["example 3", "example 9"]
    assert rollback["from_step"] == 60
    assert "the limit by spike_factor; update skipped" in printed
    _, clean, _ = run(tmp_path / "b", plan=plan, next_batches=_without((3, 9), first_step=0))
    assert _bits(model) == _bits(clean)
    _, other, _ = run(tmp_path / "c", plan=replace(plan, spike_factor=None), next_batches=calm, wrap=leaping)
    assert events(tmp_path / "c", "rollback") == []
    assert _bits(other) != _bits(model), "without the key the leap is learned from"


def test_single_bad_updates_are_skipped_without_going_back(tmp_path: Path) -> None:
    result, _, _ = run(tmp_path, plan=PLAN_20, next_batches=_batches, wrap=_poisoned((3,), math.nan), evaluates=False)
    assert result.skipped_updates == 10, "every second update holds the example"
    assert events(tmp_path, "rollback") == []
