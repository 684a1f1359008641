"""Losses and divergences of every kind of output against their formulas, written the plain way."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.errors import UsageError
from bertsmith.tasks.losses import ANY_OF_LABELS, NUMBER, ONE_OF_CLASSES, ONE_OF_ITEMS, Shape

seeds = st.integers(0, 1000)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(seed=seeds, smoothing=st.floats(0, 0.9))
def test_smoothed_and_weighted_as_torch_has_it(seed, smoothing):
    outputs, weights = drawn(seed, 5, 3), (0.5, 1.0, 3.0)
    targets = torch.arange(5) % 3
    found = ONE_OF_CLASSES.losses(outputs, targets, None, Shape(smoothing=smoothing, weights=weights))
    spread = torch.full((5, 3), smoothing / 3, dtype=torch.float64)
    spread[torch.arange(5), targets] += 1 - smoothing
    expected = -(spread * torch.tensor(weights) * outputs.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found, expected)


@given(seed=seeds, gamma=st.floats(0.1, 5))
def test_focal_loss_is_that_of_the_paper(seed, gamma):
    outputs, targets = drawn(seed, 6, 4), torch.arange(6) % 4
    p = outputs.softmax(-1)[torch.arange(6), targets]
    torch.testing.assert_close(
        ONE_OF_CLASSES.losses(outputs, targets, None, Shape(focal_gamma=gamma)), -((1 - p) ** gamma) * p.log()
    )
    marks = (drawn(seed + 1, 6, 4) > 0).float()
    p = torch.where(marks > 0, outputs.sigmoid(), 1 - outputs.sigmoid())
    torch.testing.assert_close(
        ANY_OF_LABELS.losses(outputs, marks, None, Shape(focal_gamma=gamma)), (-((1 - p) ** gamma) * p.log()).mean(-1)
    )


@given(seed=seeds)
def test_weights_of_labels_count_where_a_row_has_them(seed):
    outputs, marks = drawn(seed, 6, 2), (drawn(seed + 1, 6, 2) > 0).double()
    weights = torch.tensor([2.0, 5.0], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(outputs, marks, pos_weight=weights, reduction="none").mean(-1)
    torch.testing.assert_close(ANY_OF_LABELS.losses(outputs, marks, None, Shape(weights=(2.0, 5.0))), expected)


def test_nothing_asked_for_is_the_plain_loss():
    outputs, targets = drawn(1, 5, 3), torch.arange(5) % 3
    assert torch.equal(
        ONE_OF_CLASSES.losses(outputs, targets, None, Shape()), ONE_OF_CLASSES.losses(outputs, targets, None)
    )
    for kind in (NUMBER, ONE_OF_ITEMS):
        with pytest.raises(UsageError, match="are for classes and labels"):
            kind.losses(outputs, targets, None, Shape(smoothing=0.1))


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p / q).log()).sum()


@given(seed=seeds)
def test_divergences_are_the_mean_of_both_directions(seed):
    one, other = drawn(seed, 7, 2), drawn(seed + 1, 7, 2)
    p, q = one.softmax(-1), other.softmax(-1)
    expected = torch.stack([(kl(a, b) + kl(b, a)) / 2 for a, b in zip(p, q, strict=True)])
    torch.testing.assert_close(ONE_OF_CLASSES.divergences(one, other, None), expected)
    p, q = (torch.stack([x.sigmoid(), 1 - x.sigmoid()], -1) for x in (one, other))
    labels = [[(kl(p[i, j], q[i, j]) + kl(q[i, j], p[i, j])) / 2 for j in range(2)] for i in range(7)]
    expected = torch.stack([torch.stack(row).mean() for row in labels])
    torch.testing.assert_close(ANY_OF_LABELS.divergences(one, other, None), expected)
    torch.testing.assert_close(NUMBER.divergences(one[:, :1], other[:, :1], None), (one - other)[:, 0] ** 2)
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 2])
    expected = []
    for example in range(3):
        p, q = one[groups == example].softmax(0), other[groups == example].softmax(0)
        kinds = [(kl(p[:, kind], q[:, kind]) + kl(q[:, kind], p[:, kind])) / 2 for kind in range(2)]
        expected.append(torch.stack(kinds).mean())
    torch.testing.assert_close(ONE_OF_ITEMS.divergences(one, other, groups), torch.stack(expected))


def test_gradients_of_divergences_are_finite_where_examples_are_unequal():
    one, other = drawn(1, 7, 1).requires_grad_(), drawn(2, 7, 1).requires_grad_()
    ONE_OF_ITEMS.divergences(one, other, torch.tensor([0, 0, 0, 1, 2, 2, 2])).sum().backward()
    assert torch.isfinite(one.grad).all()
    assert torch.isfinite(other.grad).all()
