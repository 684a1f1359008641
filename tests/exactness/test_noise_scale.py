"""The gradient noise scale against problems whose own is known by formula, and through the loop.

With loss 1/2 |w - x|^2 and x ~ N(mean, diag(s^2)), an example's gradient is w - x: its mean is w - mean, its covariance
diag(s^2) whatever w is. So |G|^2 = |w - mean|^2 and tr(Sigma) = sum s^2.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bertsmith.config import OptimizerConfig
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.loop import train
from bertsmith.training.noise_scale import NoiseScale, first_share, rotated
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Due, Plan
from bertsmith.training.track import Track
from training_case import CPU, PLAN, events, run

DIMENSIONS = 200


@pytest.mark.parametrize("true_scale", [3.0, 40.0, 300.0])
@pytest.mark.parametrize(("small", "large"), [(8, 32), (16, 32), (1, 64)])
def test_the_estimate_is_that_of_the_formula(true_scale: float, small: int, large: int) -> None:
    draw = np.random.default_rng(7)
    spread = draw.uniform(0.5, 1.5, DIMENSIONS)
    gradient = draw.normal(size=DIMENSIONS)
    gradient *= math.sqrt(np.square(spread).sum() / true_scale) / np.linalg.norm(gradient)
    scale = NoiseScale()
    for _ in range(2000):
        each = gradient + spread * draw.normal(size=(large, DIMENSIONS))
        norms = [float(np.linalg.norm(each[:count].mean(axis=0))) for count in (small, large)]
        scale.add(small=small, small_norm=norms[0], large=large, large_norm=norms[1])
    assert scale.trace == pytest.approx(np.square(spread).sum(), rel=0.1)
    assert scale.value == pytest.approx(true_scale, rel=0.25)


def test_it_is_unknown_at_first_and_infinite_where_there_is_only_noise() -> None:
    scale = NoiseScale()
    for number in range(30):
        assert (scale.value is None) == (number < 20)
        scale.add(small=8, small_norm=1.0, large=32, large_norm=0.4)  # 1/4 of the noise would be a norm of 0.5
    assert scale.value == math.inf


def test_what_is_not_finite_is_not_counted() -> None:
    scale = NoiseScale()
    scale.add_parts(0.5, math.inf, batch_size=8, norm=1.0)
    assert scale == NoiseScale()
    scale.add_parts(0.25, 0.5, batch_size=8, norm=1.0)  # a norm of 2 over 2 examples, of 1 over 8
    assert scale.squared_norm == pytest.approx((8 * 1 - 2 * 4) / 6)
    assert scale.trace == pytest.approx((4 - 1) / (1 / 2 - 1 / 8))


def test_the_mean_is_plain_at_first_then_forgets() -> None:
    scale = NoiseScale()
    for value in (1.0, 2.0, 3.0):
        scale.add(small=1, small_norm=value, large=2, large_norm=value)
    assert scale.squared_norm == pytest.approx((1 + 4 + 9) / 3)
    for _ in range(2000):
        scale.add(small=1, small_norm=5.0, large=2, large_norm=5.0)
    assert scale.squared_norm == pytest.approx(25.0, rel=1e-6)


def test_the_first_share_is_of_items_and_unknown_where_parts_are_unlike() -> None:
    assert first_share([{"mlm": 2}, {"mlm": 6}], {"mlm": 8, "#tokens": 99}) == 0.25
    assert first_share([{"mlm": 2}], {"mlm": 8}) == 0.25, "the rest is on another rank"
    both = [{"mlm": 2, "nsp": 4}, {"mlm": 6, "nsp": 4}]
    assert first_share(both, {"mlm": 8, "nsp": 8}) == pytest.approx((0.25 + 0.5) / 2)
    assert first_share([{"mlm": 2}], {"mlm": 2}) is None
    assert first_share([{"mlm": 2}, {"label": 3}], {"mlm": 2, "label": 3}) is None
    assert first_share([{"mlm": 2, "nsp": 0}, {"mlm": 2, "nsp": 0}], {"mlm": 4, "nsp": 0}) is None
    assert first_share([{"mlm": 0}, {"mlm": 2}], {"mlm": 2}) is None
    assert first_share([], {"mlm": 2}) is None


def test_every_place_comes_first_in_turn() -> None:
    assert [rotated(3, step) for step in range(4)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    assert rotated(1, 5) == [0]


class _Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(DIMENSIONS))


@dataclass(frozen=True)
class _Points:
    points: Tensor  # (batch, DIMENSIONS)

    @property
    def counts(self) -> dict[str, int]:
        return {"square": len(self.points)}

    @property
    def num_tokens(self) -> int:
        return len(self.points)

    def to(self, device: torch.device) -> "_Points":
        return self


def _train_mean(directory: Path, plan: Plan, mean: Tensor) -> list[dict[str, float]]:
    """A run that hardly moves, on points around `mean` with variance 1."""
    model = _Mean()

    def next_batches(due: Due) -> list[_Points]:
        generator = torch.Generator().manual_seed(due.step)
        points = mean + torch.randn(due.batch_size, DIMENSIONS, generator=generator)
        return [_Points(part) for part in points.split(due.micro_batch_size)]

    train(
        model=model,
        optimizer=make_optimizer(model, OptimizerConfig(learning_rate=1e-9, weight_decay=0.0)),
        schedule=lambda progress: 1.0,
        next_batches=next_batches,
        loss_sums=lambda batch: {"square": (model.weight - batch.points).square().sum() / 2},
        plan=plan,
        checkpoints=Checkpoints(directory / "checkpoints"),
        track=Track(directory / "metrics.jsonl", about={"run": "mean"}),
        runtime=CPU,
    )
    return events(directory, "step")


@pytest.mark.parametrize("micro_batch_size", [4, 10])
def test_the_loop_logs_the_noise_scale_of_its_problem(tmp_path: Path, micro_batch_size: int) -> None:
    mean = torch.full((DIMENSIONS,), 0.2)  # |G|^2 = 200 x 0.04 = 8, tr(Sigma) = 200: 25 examples
    plan = Plan(
        batch_size=20,
        micro_batch_size=micro_batch_size,
        num_examples=100,
        total_steps=600,
        learning_rate=1e-9,
        log_every=300,
        clip=1.0,  # far below the norm: the scale is of what was not clipped
    )
    logged = _train_mean(tmp_path, plan, mean)
    assert logged[-1]["gradient_noise_scale"] == pytest.approx(25.0, rel=0.2)
    assert logged[-1]["clip_rate"] == 1.0


def test_a_batch_in_one_piece_tells_nothing(tmp_path: Path) -> None:
    plan = replace(PLAN, total_steps=30, log_every=30, micro_batch_size=8)
    run(tmp_path, plan=plan, sizes=[8], evaluates=False)
    assert events(tmp_path, "step")[-1]["gradient_noise_scale"] is None
