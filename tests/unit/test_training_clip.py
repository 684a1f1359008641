"""Clipping by norm and by value, and the limit that is picked from the first gradients."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bertsmith.config import parse_recipe
from bertsmith.errors import RecipeError
from bertsmith.training.clip import PERCENTILE, RECORDED_UPDATES, clip_gradients
from bertsmith.training.plan import Due
from bertsmith.training.state import State
from bertsmith.training.track import read_metrics
from training_case import PLAN, events, make_batch, run

AUTO = replace(PLAN, clip="auto", total_steps=RECORDED_UPDATES + 8, log_every=1)


def _gradients() -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=draw) for shape in ((4, 3), (5,), ())]


def _as_peer_clips(how: Any, limit: float) -> list[Tensor]:
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in _gradients()]
    for parameter, gradient in zip(parameters, _gradients(), strict=True):
        parameter.grad = gradient
    how(parameters, limit)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize(("by", "peer"), [("norm", clip_grad_norm_), ("value", clip_grad_value_)])
@pytest.mark.parametrize("limit", [0.5, 1.0, 100.0])
def test_clipped_as_pytorch_clips(by: Any, peer: Any, limit: float) -> None:
    gradients = _gradients()
    size = float(torch.nn.utils.get_total_norm(gradients, norm_type=2.0 if by == "norm" else math.inf))
    clipped, decision = clip_gradients(gradients, size=size, clip=limit, by=by, state=State())
    assert clipped is (limit < 100.0)
    assert decision is None
    for ours, theirs in zip(gradients, _as_peer_clips(peer, limit), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=0)


@pytest.mark.parametrize("by", ["norm", "value"])
def test_the_loop_clips_so(tmp_path: Path, by: Any) -> None:
    sizes: list[float] = []

    def spy(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        sizes.append(float(torch.nn.utils.get_total_norm(gradients, norm_type=2.0 if by == "norm" else math.inf)))

    handle = register_optimizer_step_pre_hook(spy)
    try:
        run(tmp_path, plan=replace(PLAN, clip=0.3, clip_by=by, log_every=1), evaluates=False)
    finally:
        handle.remove()
    rates = [event["clip_rate"] for event in events(tmp_path, "step")]
    assert 1.0 in rates
    for size, rate in zip(sizes, rates, strict=True):
        assert size <= 0.3 * (1 + 1e-6)
        assert rate == (size >= 0.3 * (1 - 1e-6))


@pytest.mark.parametrize("by", ["norm", "value"])
def test_auto_picks_the_percentile_of_the_first_gradients_once(tmp_path: Path, by: Any) -> None:
    seen: list[tuple[float, float]] = []

    def spy(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        gradients = torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"]])
        seen.append((float(gradients.norm()), float(gradients.abs().max())))

    unclipped = replace(AUTO, clip=1e9, total_steps=1)
    handle = register_optimizer_step_pre_hook(spy)
    try:
        run(tmp_path / "one", plan=unclipped, evaluates=False)
        _, _, printed = run(tmp_path / by, plan=replace(AUTO, clip_by=by), evaluates=False)
    finally:
        handle.remove()
    steps = events(tmp_path / by, "step")
    (decision,) = events(tmp_path / by, "decision")
    assert (decision["name"], decision["step"]) == ("clip", RECORDED_UPDATES)
    if by == "norm":
        norms = [event["gradient_norm"] for event in steps[:RECORDED_UPDATES]]
        assert decision["value"] == pytest.approx(np.percentile(norms, PERCENTILE), rel=1e-12)
        assert [event["clip_rate"] for event in steps[:RECORDED_UPDATES]] == [float(norm > 1) for norm in norms]
        later = steps[RECORDED_UPDATES:]
        assert [e["clip_rate"] for e in later] == [float(e["gradient_norm"] > decision["value"]) for e in later]
    else:
        assert 0 < decision["value"] < seen[0][0], "an absolute value, not a norm"
        assert max(largest for _, largest in seen[1 + RECORDED_UPDATES :]) <= decision["value"] * (1 + 1e-6)
    assert f"clip       {decision['value']:.4g}: the 90th percentile of the first 100 gradients" in printed
    order = [event["event"] for event in _all(tmp_path / by) if event["step"] == RECORDED_UPDATES]
    assert order[:2] == ["decision", "step"]


def _all(directory: Path) -> list[dict[str, Any]]:
    return list(read_metrics(directory / "metrics.jsonl"))


def test_updates_that_were_skipped_are_not_recorded(tmp_path: Path) -> None:
    def next_batches(due: Due) -> list[Any]:
        return make_batch(due.step, 8).split((4, 4))

    calls = 0

    def spoil(function: Any) -> Any:
        def loss_sums(batch: Any) -> Any:
            nonlocal calls
            calls += 1
            sums = dict(function(batch))
            if calls in (5, 11):
                sums["mlm"] = sums["mlm"] * math.inf
            return sums

        return loss_sums

    run(tmp_path, plan=AUTO, next_batches=next_batches, wrap=spoil, evaluates=False)
    (decision,) = events(tmp_path, "decision")
    assert decision["step"] == RECORDED_UPDATES + 2
    assert math.isfinite(decision["value"])


def test_a_run_too_short_to_pick_is_clipped_at_1(tmp_path: Path) -> None:
    run(tmp_path / "auto", plan=replace(PLAN, clip="auto", log_every=1), evaluates=False)
    run(tmp_path / "one", plan=replace(PLAN, clip=1.0, log_every=1), evaluates=False)
    assert events(tmp_path / "auto", "decision") == []
    losses = [[event["loss"] for event in events(tmp_path / name, "step")] for name in ("auto", "one")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("clip", [0, "automatic"])
def test_a_limit_that_is_none_is_refused(clip: Any) -> None:
    with pytest.raises(RecipeError, match=r"finetune\.clip"):
        parse_recipe({"name": "r", "finetune": {"model": "m", "clip": clip}})
