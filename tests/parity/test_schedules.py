"""Schedules equal to PyTorch's and transformers', at the progress at which those sample: step / total.

Ours are sampled in the middle of a step by the loop; as functions of progress they are the same.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

from bertsmith.config import ScheduleConfig
from bertsmith.training.schedule import SHAPES, make_schedule

TOTAL, WARMUP = 40, 8
RATE = 0.5
Make = Callable[[torch.optim.Optimizer], LRScheduler]


def rates(make: Make, steps: int) -> list[float]:
    """The factor that a peer's scheduler sets before each of its steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"] / RATE)
        optimizer.step()
        scheduler.step()
    return seen


TRANSFORMERS: list[tuple[Make, dict[str, Any]]] = [
    (transformers.get_constant_schedule, {"schedule": "constant", "warmup_share": 0.0}),
    (lambda o: transformers.get_constant_schedule_with_warmup(o, WARMUP), {"schedule": "constant"}),
    (lambda o: transformers.get_linear_schedule_with_warmup(o, WARMUP, TOTAL), {"schedule": "linear"}),
    (lambda o: transformers.get_cosine_schedule_with_warmup(o, WARMUP, TOTAL), {"schedule": "cosine"}),
    (
        lambda o: transformers.get_cosine_schedule_with_warmup(o, WARMUP, TOTAL, num_cycles=1.5),
        {"schedule": "cosine_annealing", "period_share": (TOTAL - WARMUP) / TOTAL / 3},
    ),
    (
        lambda o: transformers.get_cosine_with_min_lr_schedule_with_warmup(o, WARMUP, TOTAL, min_lr_rate=0.2),
        {"schedule": "cosine", "end_share": 0.2},
    ),
    (
        lambda o: transformers.get_cosine_with_hard_restarts_schedule_with_warmup(o, WARMUP, TOTAL, num_cycles=4),
        {"schedule": "cosine_with_restarts", "cycles": 4},
    ),
    (
        lambda o: transformers.get_polynomial_decay_schedule_with_warmup(o, WARMUP, TOTAL, lr_end=0.1 * RATE, power=2),
        {"schedule": "polynomial", "power": 2.0, "end_share": 0.1},
    ),
    (lambda o: transformers.get_inverse_sqrt_schedule(o, WARMUP), {"schedule": "inverse_sqrt"}),
    (
        lambda o: transformers.get_inverse_sqrt_schedule(o, WARMUP, timescale=20),
        {"schedule": "inverse_sqrt", "timescale_share": 20 / TOTAL},
    ),
]
TRANSFORMERS += [
    (
        lambda o, shape=decay_shape: transformers.get_wsd_schedule(o, WARMUP, 10, TOTAL, decay_type=shape),  # type: ignore[misc]
        {"schedule": "wsd", "decay_share": 10 / TOTAL, "decay_shape": decay_shape},
    )
    for decay_shape in ("1-sqrt", "linear", "cosine")
]


@pytest.mark.parametrize(("make", "settings"), TRANSFORMERS, ids=lambda one: str(one) if isinstance(one, dict) else "")
def test_equal_to_transformers(make: Make, settings: dict[str, Any]) -> None:
    ours = make_schedule(ScheduleConfig(**{"warmup_share": WARMUP / TOTAL, **settings}))
    expected = rates(make, TOTAL + 1)
    assert [ours(step / TOTAL) for step in range(TOTAL + 1)] == pytest.approx(expected, abs=1e-7)
    assert len({round(rate, 3) for rate in expected}) > 1 or settings["schedule"] == "constant"


TORCH: list[tuple[Make, dict[str, Any]]] = [
    (lambda o: ConstantLR(o, factor=1.0), {"schedule": "constant"}),
    (lambda o: PolynomialLR(o, total_iters=TOTAL, power=1.0), {"schedule": "linear"}),
    (lambda o: PolynomialLR(o, total_iters=TOTAL, power=3.0), {"schedule": "polynomial", "power": 3.0}),
    (lambda o: CosineAnnealingLR(o, TOTAL), {"schedule": "cosine"}),
    (
        lambda o: CosineAnnealingLR(o, 10, eta_min=0.1 * RATE),
        {"schedule": "cosine_annealing", "period_share": 10 / TOTAL, "end_share": 0.1},
    ),
    (
        lambda o: CosineAnnealingWarmRestarts(o, TOTAL // 5, eta_min=0.1 * RATE),
        {"schedule": "cosine_with_restarts", "cycles": 5, "end_share": 0.1},
    ),
    (lambda o: StepLR(o, 6, gamma=0.3), {"schedule": "step", "drop_every_share": 6 / TOTAL, "drop_factor": 0.3}),
    (
        lambda o: MultiStepLR(o, [7, 20, 33], gamma=0.5),
        {"schedule": "multi_step", "drop_at_shares": (7 / TOTAL, 20 / TOTAL, 33 / TOTAL), "drop_factor": 0.5},
    ),
]


@pytest.mark.parametrize(("make", "settings"), TORCH, ids=lambda one: str(one) if isinstance(one, dict) else "")
def test_equal_to_pytorch(make: Make, settings: dict[str, Any]) -> None:
    ours = make_schedule(ScheduleConfig(warmup_share=0.0, **settings))
    assert [ours(step / TOTAL) for step in range(TOTAL)] == pytest.approx(rates(make, TOTAL), abs=1e-12)


@pytest.mark.parametrize(
    ("torch_one", "settings"),
    [(CosineAnnealingLR, {"schedule": "cosine"}), (StepLR, {"schedule": "step", "drop_every_share": 8 / TOTAL})],
)
def test_a_warmup_is_as_if_chained_before_pytorch_s(torch_one: Any, settings: dict[str, Any]) -> None:
    span = TOTAL - WARMUP if torch_one is CosineAnnealingLR else 8
    after = rates(lambda o: torch_one(o, span), TOTAL - WARMUP)
    ours = make_schedule(ScheduleConfig(warmup_share=WARMUP / TOTAL, **settings))
    assert [ours(step / TOTAL) for step in range(WARMUP, TOTAL)] == pytest.approx(after, abs=1e-12)
    assert [ours(step / TOTAL) for step in range(WARMUP)] == pytest.approx([step / WARMUP for step in range(WARMUP)])


@pytest.mark.parametrize("total", [7, 100, 12_345])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_drops_and_restarts_are_not_a_step_late_whatever_the_rounding(total: int, every: int) -> None:
    config = ScheduleConfig(
        schedule="step", warmup_share=0.0, drop_every_share=min(every / total, 1.0), drop_factor=0.999
    )
    ours = make_schedule(config)
    for step in range(0, total, max(1, total // 500)):
        assert math.isclose(ours(step / total), 0.999 ** (step // every)), step


def test_every_schedule_is_compared() -> None:
    compared = {settings["schedule"] for _, settings in TRANSFORMERS + TORCH}
    assert compared == set(SHAPES)
