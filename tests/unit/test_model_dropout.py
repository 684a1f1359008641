"""Dropout: the share and the scale it promises, the same draws from the same seed, none where nothing is dropped."""

import pytest
import torch

from bertsmith.model.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_share_and_scale(p: float, dtype: torch.dtype) -> None:
    x = torch.ones(400, 501, dtype=dtype)  # not a multiple of four
    y = Dropout(p)(x)
    assert y.dtype == dtype
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.005)
    kept = y[y != 0]
    assert torch.all(kept == kept[0])
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=0.01)
    assert y.double().mean().item() == pytest.approx(1.0, abs=0.05)


def test_neighbours_are_independent() -> None:
    """Four elements share a draw: any two of them are dropped together as often as chance has it."""
    dropped = (Dropout(0.5)(torch.ones(200_000)) == 0).double().view(-1, 4)
    correlation = torch.corrcoef(dropped.t())
    assert (correlation - torch.eye(4, dtype=torch.float64)).abs().max().item() < 0.02


def test_gradient_goes_where_the_value_went() -> None:
    x = torch.randn(64, 33, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, y != 0)


def test_same_seed_same_draws() -> None:
    x, dropout = torch.ones(1000), Dropout(0.3)
    torch.manual_seed(5)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(5)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(0.5).eval()], ids=["p = 0", "eval"])
def test_draws_nothing_where_nothing_is_dropped(dropout: Dropout) -> None:
    x, state = torch.randn(100), torch.get_rng_state()
    assert dropout(x) is x
    assert torch.equal(torch.get_rng_state(), state)
