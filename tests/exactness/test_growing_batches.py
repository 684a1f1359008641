"""Promises 3 and 5 while batches change: resumed across a growth, cut otherwise, out of memory, it is the same run."""

import itertools
import json
import math
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bertsmith.errors import BertsmithError, Stopped
from bertsmith.runtime import Runtime
from bertsmith.training import budget as budgets
from bertsmith.training.batch_size import Growth, RampUp
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Due, LossSums, Plan
from bertsmith.training.track import read_metrics
from ranks_case import ONE_THREAD, on_ranks
from training_case import PLAN, TinyBatch, TinyModel, events, make_batch, run, with_every_checkpoint

POOL = make_batch(0, 512)
RAMP = replace(PLAN, batch_size=12, total_steps=52, ramp_up=RampUp(4, 12, 0.6), evaluate_every=20)
BOTH = replace(
    PLAN,
    batch_size=8,
    micro_batch_size=2,
    total_steps=70,
    ramp_up=RampUp(4, 8, 0.1),
    growth=Growth(16),
    evaluate_every=30,
)
PLANS = {"ramp-up": RAMP, "ramp-up, then noise": BOTH}
_CLOCK = ("elapsed_seconds", "seconds", "time", "tokens_per_second", "loader_wait_seconds", "memory_bytes")


def _rows(first: int, count: int) -> TinyBatch:
    """The examples at these positions."""
    return POOL.take([position % len(POOL.input_ids) for position in range(first, first + count)])


def _batches(due: Due) -> list[TinyBatch]:
    first = due.first_position + due.number * due.batch_size
    whole, micro = due.batch_size, due.micro_batch_size
    return _rows(first, whole).split([min(micro, whole - start) for start in range(0, whole, micro)])


def _run(directory: Path, plan: Plan, **more: Any) -> tuple[Any, nn.Module]:
    result, model, _ = run(directory, plan=plan, next_batches=more.pop("next_batches", _batches), **more)
    return result, model


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _log(directory: Path) -> list[dict[str, Any]]:
    left_out = {"start", "checkpoint"}  # resumed runs save less often
    kept = [event for event in read_metrics(directory / "metrics.jsonl") if event["event"] not in left_out]
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


def _another_model() -> nn.Module:
    torch.manual_seed(999)
    return TinyModel()


def _sizes(directory: Path) -> list[tuple[int, int]]:
    found = [event for event in events(directory, "decision") if event["name"] == "batch_size"]
    return [(event["step"], event["value"]) for event in found]


@pytest.fixture(scope="module", params=PLANS)
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, Any]:
    directory, plan = tmp_path_factory.mktemp("straight"), with_every_checkpoint(PLANS[request.param])
    _, model = _run(directory, plan, keep=1000)
    return directory, plan, _bits(model)


def test_these_runs_grow(straight: tuple[Path, Plan, Any]) -> None:
    directory, plan, _ = straight
    sizes = _sizes(directory)
    assert sizes == {RAMP.total_steps: [(16, 8), (32, 12)], BOTH.total_steps: [(16, 8), (64, 16)]}[plan.total_steps]
    examples = {event["step"]: event["examples"] for event in events(directory, "step")}
    begun = [(0, plan.first_batch_size), *sizes, (plan.total_steps or 0, 0)]
    assert examples[plan.total_steps] == sum(
        size * (end - begin) for (begin, size), (end, _) in itertools.pairwise(begun)
    )


def test_a_run_resumed_before_at_and_after_a_growth_is_the_same(
    straight: tuple[Path, Plan, Any], tmp_path: Path
) -> None:
    directory, plan, expected = straight
    grown = {step for step, _ in _sizes(directory)}
    for step in sorted({step + offset for step in grown for offset in (-1, 0, 1)}):
        again = tmp_path / f"from-{step}"
        shutil.copytree(directory, again)
        _forget_after(step, again)
        result, model = _run(again, replace(plan, checkpoint_every_seconds=1e9), model=_another_model())
        assert result.resumed_from == step
        assert _bits(model) == expected, f"weights differ after resuming from step {step}"
        assert _log(again) == _log(directory), f"logs differ after resuming from step {step}"


def _forget_after(step: int, directory: Path) -> None:
    for path in (directory / "checkpoints").iterdir():
        if json.loads((path / "manifest.json").read_text())["step"] > step:
            shutil.rmtree(path)


@pytest.mark.parametrize("every", [1e-9, 1e9])
def test_a_signal_in_the_step_that_grows_does_not_grow_it_twice(
    straight: tuple[Path, Plan, Any], tmp_path: Path, every: float
) -> None:
    directory, plan, expected = straight
    plan = replace(plan, checkpoint_every_seconds=every)
    step, _ = _sizes(directory)[0]

    def next_batches(due: Due) -> Sequence[TinyBatch]:
        if due.step == step:
            signal.raise_signal(signal.SIGINT)
        return _batches(due)

    with pytest.raises(Stopped):
        _run(tmp_path, plan, next_batches=next_batches)
    result, model = _run(tmp_path, plan, model=_another_model())
    assert result.resumed_from == step
    assert _bits(model) == expected
    assert _sizes(tmp_path) == _sizes(directory)


@pytest.mark.parametrize("keep", [1, 100])
@pytest.mark.parametrize("bad", [15, 16])
def test_going_back_over_a_growth_grows_again_and_tells_it_once(tmp_path: Path, bad: int, keep: int) -> None:
    """The updates before and at the growth are spoiled by one example of each; they are done again without it."""
    plan = replace(RAMP, rollback_after=2, checkpoint_every_seconds=1e-9, evaluate_every=50)
    first = {15: (60, 64), 16: (64, 72)}[bad]  # the first example of each of two updates
    spoiled = {POOL.example_ids[position] for position in first}

    def wrap(function: LossSums) -> LossSums:
        def loss_sums(batch: TinyBatch) -> Mapping[str, Tensor]:
            factor = math.nan if spoiled & set(batch.example_ids) else 1.0
            return {name: value * factor for name, value in function(batch).items()}

        return loss_sums

    _, model = _run(tmp_path / "back", plan, wrap=wrap, keep=keep)
    (rollback,) = events(tmp_path / "back", "rollback")
    assert (rollback["from_step"], rollback["to_step"]) == (bad, bad + 1)
    assert rollback["examples"] == [f"example {number}" for number in sorted(spoiled)]
    assert _sizes(tmp_path / "back") == [(16, 8), (32, 12)]

    def without(due: Due) -> list[TinyBatch]:
        parts = [(part, [row for row, i in enumerate(part.example_ids) if i not in spoiled]) for part in _batches(due)]
        return [part.take(rows) for part, rows in parts if rows]

    _, clean = _run(tmp_path / "clean", plan, next_batches=without)
    assert _bits(model) == _bits(clean)


def test_a_budget_s_growth_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are counted once here, since two runs have two clocks; counted again: `test_resume_budgets`."""
    monkeypatch.setattr(budgets, "MARKS", ())
    budget = replace(RAMP, total_steps=None, budget_seconds=3.0, evaluate_every=10_000, checkpoint_every_seconds=0.1)
    result, model = _run(tmp_path / "straight", budget, keep=10_000)
    decided = events(tmp_path / "straight", "decision")
    total = next(event for event in decided if event["name"] == "total_steps")
    sizes = _sizes(tmp_path / "straight")
    assert sizes[-1][1] == 12
    assert result.steps < total["value"], "fewer steps, since they have become larger"
    saved = [event["step"] for event in events(tmp_path / "straight", "checkpoint")]
    after_growth = next(step for step in saved if step > sizes[-1][0])
    for step in (total["step"], after_growth):
        again = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", again)
        _forget_after(step, again)
        resumed, other = _run(again, budget, model=_another_model())
        assert (resumed.resumed_from, resumed.steps) == (step, result.steps)
        assert _bits(other) == _bits(model)


@pytest.mark.parametrize("plan", [RAMP, BOTH], ids=["ramp-up", "both"])
def test_a_cut_changes_nothing_while_batches_grow(tmp_path: Path, plan: Plan) -> None:
    """Growth by noise is measured between the parts of a batch, so it is cut alike; the ramp alone is not."""
    plan = replace(plan, growth=None)

    def whole(due: Due) -> list[TinyBatch]:
        return _batches(replace(due, micro_batch_size=due.batch_size))

    models = []
    for name, batches in (("parts", _batches), ("whole", whole)):
        torch.manual_seed(3)
        model = TinyModel(dropout=0.0).double()
        _run(tmp_path / name, plan, model=model, next_batches=batches, evaluates=False)
        models.append(model)
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=name)


def _out_of_memory(above: int, from_call: int) -> Callable[[LossSums], LossSums]:
    """A GPU on which a micro-batch of more than `above` does not fit from some call on."""

    def wrap(function: LossSums) -> LossSums:
        calls = 0

        def loss_sums(batch: Any) -> Mapping[str, Tensor]:
            nonlocal calls
            calls += 1
            if calls > from_call and len(batch.input_ids) > above:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return function(batch)

        return loss_sums

    return wrap


def test_out_of_memory_in_a_step_halves_the_micro_batch_and_changes_nothing_else(tmp_path: Path) -> None:
    plan = replace(PLAN, batch_size=16, micro_batch_size=8)
    models = []
    for name, wrap in (("enough", lambda function: function), ("short", _out_of_memory(3, from_call=11))):
        torch.manual_seed(3)
        model = TinyModel(dropout=0.0).double()
        _run(tmp_path / name, plan, model=model, wrap=wrap)
        models.append(model)
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=name)
    told = [(event["step"], event["name"], event["value"]) for event in events(tmp_path / "short", "decision")]
    assert told == [(5, "micro_batch_size", 4), (5, "micro_batch_size", 2)], "the second part of the sixth update"
    first = events(tmp_path / "short", "decision")[0]["because"]
    assert first == "out of memory in step 6 with 8; that step is computed again"
    losses = [[event["losses"] for event in events(tmp_path / name, "step")] for name in ("enough", "short")]
    assert losses[0] == [pytest.approx(each, rel=1e-9) for each in losses[1]]
    assert events(tmp_path / "short", "checkpoint")[0]["step"] == 6, "saved at once"


def test_what_was_halved_is_read_back(tmp_path: Path) -> None:
    plan = with_every_checkpoint(replace(PLAN, batch_size=16, micro_batch_size=8))
    _, model = _run(tmp_path / "straight", plan, wrap=_out_of_memory(3, from_call=11))
    for step in (6, 9):
        again = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", again)
        _forget_after(step, again)
        seen: list[int] = []

        def next_batches(due: Due, seen: list[int] = seen) -> list[TinyBatch]:
            seen.append(due.micro_batch_size)
            return _batches(due)

        _, other = _run(again, plan, model=_another_model(), next_batches=next_batches)
        assert set(seen) == {2}
        assert _bits(other) == _bits(model)


def test_a_single_example_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(BertsmithError, match="step 1 does not fit into the GPU's memory with a single example"):
        _run(tmp_path, PLAN, wrap=_out_of_memory(0, from_call=0))


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    def wrap(function: LossSums) -> LossSums:
        def loss_sums(batch: Any) -> Mapping[str, Tensor]:
            raise RuntimeError("a bug")

        return loss_sums

    with pytest.raises(RuntimeError, match="a bug"):
        _run(tmp_path, PLAN, wrap=wrap)
    assert events(tmp_path, "decision") == []


def test_the_fitted_micro_batch_is_asked_for_once(tmp_path: Path) -> None:
    """What a meter found when the run began holds after a resume, whatever it would find then."""
    plan = with_every_checkpoint(replace(PLAN, batch_size=16, micro_batch_size=16))
    asked: list[int] = []

    def fit(most: int) -> tuple[int, str]:
        asked.append(most)
        return (4, "little is left") if len(asked) == 1 else (16, "all is free")

    _, model = _run(tmp_path / "straight", plan, fit_micro_batch=fit)
    assert asked == [16]
    told = events(tmp_path / "straight", "decision")
    assert [(event["step"], event["name"], event["value"]) for event in told] == [(0, "micro_batch_size", 4)]
    assert events(tmp_path / "straight", "start")[0]["plan"]["accumulation"] == 4
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    _forget_after(5, tmp_path / "again")
    _, other = _run(tmp_path / "again", plan, model=_another_model(), fit_micro_batch=fit)
    assert asked == [16]
    assert _bits(other) == _bits(model)


def _grown(ranks: Ranks, runtime: Runtime, directory: Path) -> dict[str, Any]:
    """Weights at the end of a run that ramps up and then grows by its noise, in float64; dropout is 0."""
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0).double()

    def next_batches(due: Due) -> list[TinyBatch]:
        whole = _rows(due.first_position + due.number * due.batch_size, due.batch_size)
        mine = whole.split([due.batch_size // ranks.size] * ranks.size)[ranks.rank]
        length = len(mine.input_ids)
        cut = range(0, length, due.micro_batch_size)
        return mine.split([min(due.micro_batch_size, length - start) for start in cut])

    _run(directory, BOTH, model=model, next_batches=next_batches, runtime=runtime, ranks=ranks, evaluates=False)
    return {name: tensor.detach().numpy() for name, tensor in model.named_parameters()}


def test_two_ranks_grow_alike_and_as_one_process(tmp_path: Path) -> None:
    """Noise is measured on the first rank, and all ranks go by what it says."""
    one = _grown(Ranks(0, 1), ONE_THREAD, tmp_path / "one")
    for found in on_ranks(2, _grown, tmp_path / "two"):
        assert isinstance(found, dict), found
        for name, expected in one.items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)
    assert _sizes(tmp_path / "two") == _sizes(tmp_path / "one") == [(16, 8), (64, 16)]
    scales = [events(tmp_path / name, "step")[-1]["gradient_noise_scale"] for name in ("one", "two")]
    assert scales[0] != scales[1], "measured between other parts"
    assert min(scales) > 0
