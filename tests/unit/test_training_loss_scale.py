"""float16: gradients that would vanish are kept, overflow halves the scale, and a resumed run goes on with it."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bertsmith.errors import BertsmithError
from bertsmith.training import loss_scale
from training_case import CPU, PLAN, TinyModel, events, run, with_every_checkpoint

HALF = replace(CPU, dtype=torch.float16)


def _bits(model: Any) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_it_learns_as_in_float32(tmp_path: Path) -> None:
    plan = replace(PLAN, total_steps=30, log_every=30)
    run(tmp_path / "half", plan=plan, model=_model(), runtime=HALF)
    run(tmp_path / "full", plan=plan, model=_model())
    half, full = (events(tmp_path / name, "step")[-1] for name in ("half", "full"))
    assert half["loss"] == pytest.approx(full["loss"], rel=1e-2)
    assert half["loss_scale"] == 2.0**16
    assert "loss_scale" not in full


def _model() -> TinyModel:
    torch.manual_seed(1)
    return TinyModel(dropout=0.0)


def _times(factor: float, calls: set[int] | None = None) -> Callable[[Any], Any]:
    """Loss sums times a factor, in some calls or in all."""
    number = 0

    def wrap(function: Callable[[Any], Mapping[str, Tensor]]) -> Callable[[Any], Mapping[str, Tensor]]:
        def loss_sums(batch: Any) -> Mapping[str, Tensor]:
            nonlocal number
            number += 1
            applies = calls is None or number in calls
            return {name: value * (factor if applies else 1.0) for name, value in function(batch).items()}

        return loss_sums

    return wrap


def test_small_gradients_do_not_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of a millionth: unscaled, their gradients are zero in float16."""
    plan = replace(PLAN, total_steps=1, log_every=1, clip=1e9)
    norms = {}
    for scale in (1.0, 2.0**16):
        monkeypatch.setattr(loss_scale, "FIRST_SCALE", scale)
        run(tmp_path / str(scale), plan=plan, model=_model(), runtime=HALF, wrap=_times(1e-6))
        norms[scale] = events(tmp_path / str(scale), "step")[0]["gradient_norm"]
    run(tmp_path / "full", plan=plan, model=_model(), wrap=_times(1e-6))
    expected = events(tmp_path / "full", "step")[0]["gradient_norm"]
    assert norms[2.0**16] == pytest.approx(expected, rel=1e-2)
    assert abs(norms[1.0] / expected - 1) > 0.05, "without a scale something is lost"


def test_overflow_skips_and_halves_until_it_fits_and_resumes_with_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**20)
    monkeypatch.setattr(loss_scale, "UPDATES_BEFORE_GROWTH", 4)
    plan = with_every_checkpoint(replace(PLAN, total_steps=16, log_every=1))
    result, model, printed = run(tmp_path / "straight", plan=plan, runtime=HALF)
    scales = [event["loss_scale"] for event in events(tmp_path / "straight", "step")]
    assert 0 < result.skipped_updates < 10
    assert "overflow in float16; update skipped, loss scale" in printed
    changes = {later / earlier for earlier, later in zip([2.0**20, *scales], scales, strict=False)}
    assert changes == {0.5, 1.0, 2.0}, "the case has all three"
    for step in (2, 7, 11):
        copy = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", copy)
        for later in range(step + 1, 17):
            shutil.rmtree(copy / "checkpoints" / f"step-{later:08d}")
        _, again, _ = run(copy, plan=plan, model=TinyModel(), runtime=HALF)
        assert _bits(again) == _bits(model)
        assert [event["loss_scale"] for event in events(copy, "step")] == scales


def test_a_loss_that_is_not_finite_is_no_fault_of_the_scale(tmp_path: Path) -> None:
    plan = replace(PLAN, total_steps=40, rollback_after=10, max_rollbacks=0)
    with pytest.raises(BertsmithError, match="not finite in 10 updates in a row"):
        run(tmp_path, plan=plan, runtime=HALF, wrap=_times(math.nan))
    assert events(tmp_path, "stop")[-1]["step"] == 9
