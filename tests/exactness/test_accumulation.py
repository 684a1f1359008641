"""Promise 3: however a batch is cut into micro-batches, loss, gradients and weights are those of the whole batch.

Tolerances of the promise: float64 1e-9 after 1, 10 and 500 steps; float32 gradients of one update to a relative norm
of 1e-5 and 20 losses to 1e-5. Dropout is 0, since its draws depend on the cut.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from training_case import PLAN, TinyModel, events, make_batch, run

CUTS = {"4 x 8": (8, 8, 8, 8), "uneven": (1, 17, 2, 12), "one by one": (1,) * 32}


def _train(directory: Path, dtype: torch.dtype, steps: int, sizes: Sequence[int]) -> tuple[nn.Module, list[Any]]:
    plan = replace(PLAN, batch_size=32, total_steps=steps, log_every=1, clip=0.5)  # clipped, so that norms count too
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0).to(dtype)
    run(directory, plan=plan, model=model, sizes=sizes, evaluates=False)
    return model, [event["losses"] for event in events(directory, "step")]


def _gradients(sizes: Sequence[int], tmp_path: Path) -> dict[str, Tensor]:
    """Gradients of one update, seen at the moment the optimizer would use them."""
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0)
    seen: dict[str, Tensor] = {}

    def spy(_optimizer: Any, _args: Any, _kwargs: Any) -> None:
        seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    handle = register_optimizer_step_pre_hook(spy)
    try:
        plan = replace(PLAN, batch_size=32, total_steps=1, clip=1e9)
        run(tmp_path / str(sizes), plan=plan, model=model, sizes=sizes, evaluates=False)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("steps", [1, 10])
def test_float64_is_equal_to_1e_9(tmp_path: Path, cut: str, steps: int) -> None:
    whole, whole_losses = _train(tmp_path / "whole", torch.float64, steps, [32])
    parts, part_losses = _train(tmp_path / "parts", torch.float64, steps, CUTS[cut])
    _assert_equal(whole, parts, whole_losses, part_losses)


def test_float64_is_equal_to_1e_9_after_500_steps(tmp_path: Path) -> None:
    whole, whole_losses = _train(tmp_path / "whole", torch.float64, 500, [32])
    parts, part_losses = _train(tmp_path / "parts", torch.float64, 500, CUTS["uneven"])
    _assert_equal(whole, parts, whole_losses, part_losses)


def _assert_equal(whole: nn.Module, parts: nn.Module, whole_losses: list[Any], part_losses: list[Any]) -> None:
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=name)
    for ours, theirs in zip(part_losses, whole_losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("cut", CUTS)
def test_float32_gradients_are_equal_to_1e_5(tmp_path: Path, cut: str) -> None:
    whole, parts = _gradients([32], tmp_path), _gradients(CUTS[cut], tmp_path)
    assert whole.keys() == parts.keys()
    assert len(whole) == 8
    for name, expected in whole.items():
        assert (parts[name] - expected).norm() <= 1e-5 * expected.norm(), name


def test_float32_losses_are_equal_to_1e_5_for_20_steps(tmp_path: Path) -> None:
    _, whole = _train(tmp_path / "whole", torch.float32, 20, [32])
    _, parts = _train(tmp_path / "parts", torch.float32, 20, CUTS["uneven"])
    assert len(whole) == 20
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_mean_of_micro_batch_means_would_fail() -> None:
    """The batches of these tests tell the right denominator from the usual wrong one."""
    parts = make_batch(0, 32).split(CUTS["uneven"])
    shares = [part.counts["mlm"] / sum(p.counts["mlm"] for p in parts) for part in parts]
    assert max(abs(share - 1 / len(parts)) for share in shares) > 0.2
