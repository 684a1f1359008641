"""An embedding whose untouched rows wait is what AdamW makes of it: fed the same gradients, to 1e-6."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from bertsmith.training.lazy_rows import LazyRowsAdamW

ROWS, WIDTH = 60, 8


def lr(step: int) -> float:
    """Up, then down, as schedules go."""
    return 1e-3 * min((step + 1) / 20, 1.0) * max(0.0, 1 - step / 520)


def ids_of(step: int, seed: int) -> torch.Tensor:
    """Few rows a step, some often, some rarely, one only once, most never."""
    draw = np.random.default_rng([seed, step])
    often = draw.integers(0, 4, 3)
    rare = draw.integers(4, 30, 1 if step % 7 else 3)
    return torch.from_numpy(np.concatenate([often, rare, [50] if step == 1 else []]).astype(np.int64))


class Pair:
    """The same embedding twice, one trained by AdamW, one by ours, fed the same gradients."""

    def __init__(
        self,
        *,
        decay: float,
        eps: float,
        betas: tuple[float, float] = (0.9, 0.999),
        dtype: torch.dtype = torch.float32,
    ):
        torch.manual_seed(1)
        self.dense = nn.Embedding(ROWS, WIDTH, dtype=dtype)
        nn.init.normal_(self.dense.weight, std=0.02)
        self.lazy = copy.deepcopy(self.dense)
        settings = {"lr": 1e-2, "weight_decay": decay, "eps": eps, "betas": betas}
        self.adamw = torch.optim.AdamW(self.dense.parameters(), **settings)
        self.ours = LazyRowsAdamW([{"params": list(self.lazy.parameters())}], self.lazy, **settings)

    def step(self, number: int, *, clip: float, seed: int = 0) -> None:
        ids = ids_of(number, seed)
        torch.manual_seed(number)
        weights = torch.randn(len(ids), WIDTH, dtype=self.dense.weight.dtype) * 10.0 ** torch.randint(
            -6, 1, (len(ids), 1)
        )
        for module, optimizer in ((self.dense, self.adamw), (self.lazy, self.ours)):
            optimizer.zero_grad()
            (module(ids) * weights).sum().backward()
            gradient = module.weight.grad
            if gradient.is_sparse:
                module.weight.grad = gradient = gradient.coalesce()
                gradient = gradient.values()
            norm = gradient.norm()
            gradient.mul_((clip / norm).clamp(max=1.0))
            optimizer.param_groups[0]["lr"] = lr(number)
            optimizer.step()

    def differences(self) -> dict[str, float]:
        """Largest of weights, and of means relative to their largest."""
        self.ours.catch_up()
        theirs, own = self.adamw.state[self.dense.weight], self.ours.state[self.lazy.weight]
        found = {"weights": (self.dense.weight - self.lazy.weight).abs().max().item()}
        for name in ("exp_avg", "exp_avg_sq"):
            found[name] = ((theirs[name] - own[name]).abs().max() / theirs[name].abs().max()).item()
        return found


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
@pytest.mark.parametrize("clip", [0.1, 1e9])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-9)])
def test_weights_and_moments_at_1_10_and_500_steps(
    decay: float, eps: float, clip: float, dtype: torch.dtype, tolerance: float
) -> None:
    for count in (1, 10, 500):  # each from the start, so that no catching up on the way helps
        pair = Pair(decay=decay, eps=eps, dtype=dtype)
        for number in range(count):
            pair.step(number, clip=clip)
        found = pair.differences()
        assert found["weights"] < tolerance, count
        assert max(found.values()) < 2 * tolerance, count  # means: of their largest


@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.5, 0.99), (0.95, 0.9999), (0.0, 0.99)])
def test_other_betas(betas: tuple[float, float]) -> None:
    pair = Pair(decay=0.05, eps=1e-8, betas=betas, dtype=torch.float64)
    for number in range(300):
        pair.step(number, clip=1.0)
    assert max(pair.differences().values()) < 1e-8


def test_rows_that_wait_are_not_touched() -> None:
    pair = Pair(decay=0.1, eps=1e-8)
    before = pair.lazy.weight.detach().clone()
    for number in range(10):
        pair.step(number, clip=1.0)
    assert torch.equal(pair.lazy.weight[51:], before[51:])
    pair.ours.catch_up()
    assert not torch.equal(pair.lazy.weight[51:], before[51:])


def test_catching_up_more_often_changes_little_and_twice_nothing() -> None:
    one, other = Pair(decay=0.1, eps=1e-8), Pair(decay=0.1, eps=1e-8)
    for number in range(60):
        one.step(number, clip=1.0)
        other.step(number, clip=1.0)
        other.ours.catch_up()
    one.ours.catch_up()
    torch.testing.assert_close(one.lazy.weight, other.lazy.weight, rtol=0, atol=1e-6)
    before = one.lazy.weight.detach().clone()
    one.ours.catch_up()
    assert torch.equal(one.lazy.weight, before)


class StopError(Exception):
    pass


@pytest.mark.parametrize("stop_at", range(1, 5))
def test_a_stop_in_the_midst_of_catching_up_does_no_harm(stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal would end it after any of the tensors was written."""
    one, other = Pair(decay=0.1, eps=1e-8), Pair(decay=0.1, eps=1e-8)
    for number in range(30):
        one.step(number, clip=1.0)
        other.step(number, clip=1.0)
    one.ours.catch_up()
    writes = 0
    setitem: Callable[..., None] = torch.Tensor.__setitem__

    def stopping(self: torch.Tensor, key: object, value: object) -> None:
        nonlocal writes
        if isinstance(key, torch.Tensor) and len(self) == ROWS:
            writes += 1
            if writes == stop_at:
                raise StopError
        setitem(self, key, value)

    monkeypatch.setattr(torch.Tensor, "__setitem__", stopping)
    with pytest.raises(StopError):
        other.ours.catch_up()
    monkeypatch.undo()
    other.ours.zero_grad()
    other.ours.catch_up()
    assert torch.equal(one.lazy.weight, other.lazy.weight)
