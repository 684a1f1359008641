"""The fused masked-token loss against autograd through the plain formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.training import losses
from bertsmith.training.losses import (
    masked_token_loss_sum,
    masked_token_sums,
    next_sentence_loss_sum,
    next_sentence_right,
)


def _inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, weight, bias = torch.randn(11, 4, dtype=dtype), torch.randn(7, 4, dtype=dtype), torch.randn(7, dtype=dtype)
    labels = torch.tensor([0, 6, 3, -100, 2, 2, 5, -100, 1, 0, -100])
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), labels


def _plain(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias), labels, ignore_index=-100, reduction="sum")


@pytest.fixture(params=[(1, 1), (7 * 3, 1), (7 * 5, 7 * 2), (7 * 11, 7 * 3), (10_000, 10_000)], ids=str)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits in a block, and in a part of it."""
    monkeypatch.setattr(losses, "BLOCK_LOGITS", request.param[0])
    monkeypatch.setattr(losses, "_PART_LOGITS", request.param[1])


@pytest.mark.usefixtures("cut")
def test_loss_and_gradients_equal_autograd_in_float64() -> None:
    *tensors, labels = _inputs()
    expected, got = _plain(*tensors, labels), masked_token_loss_sum(*tensors, labels)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(0.37 * loss, tensors) for loss in (got, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck_by_finite_differences() -> None:
    *tensors, labels = _inputs()
    assert torch.autograd.gradcheck(lambda *args: masked_token_loss_sum(*args, labels), tensors)


def test_under_autocast_it_agrees_with_autocast_of_the_plain_formula() -> None:
    *tensors, labels = _inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = masked_token_loss_sum(*tensors, labels)
        expected = _plain(*tensors, labels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected.float(), rtol=1e-2, atol=0)
    ours, theirs = (torch.autograd.grad(loss, tensors) for loss in (got, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 2e-2 * b.norm()


def test_huge_logits_stay_finite() -> None:
    hidden = torch.full((2, 3), 1e4, requires_grad=True)
    loss = masked_token_loss_sum(hidden, torch.eye(5, 3) * 1e4, torch.zeros(5), torch.tensor([0, 4]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(hidden.grad).all()  # type: ignore[arg-type]


@pytest.mark.usefixtures("cut")
def test_right_answers_are_those_of_the_greatest_logit() -> None:
    hidden, weight, bias, labels = _inputs()
    best = F.linear(hidden, weight, bias).argmax(dim=1)
    labels[[0, 4, 6]] = best[[0, 4, 6]]
    _, right = masked_token_sums(hidden, weight, bias, labels)
    assert int(right) == int((best == labels).sum()) >= 3
    assert not right.requires_grad


def test_pairs_answered_rightly_are_counted_and_no_pair_is_not() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 1.0]])
    assert int(next_sentence_right(logits, torch.tensor([0, 0, -100, 0]))) == 2


def test_no_labels_give_zero_loss_and_gradient() -> None:
    hidden, weight, bias, _ = _inputs()
    loss = masked_token_loss_sum(hidden, weight, bias, torch.full((11,), -100))
    loss.backward()
    assert loss == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()
    empty = masked_token_loss_sum(hidden[:0], weight, bias, torch.zeros(0, dtype=torch.int64))
    assert empty == 0


def test_next_sentence_loss_passes_over_examples_without_a_pair() -> None:
    logits = torch.randn(4, 2)
    got = next_sentence_loss_sum(logits, torch.tensor([0, -100, 1, -100]))
    torch.testing.assert_close(got, -(logits.log_softmax(1)[0, 0] + logits.log_softmax(1)[2, 1]))
