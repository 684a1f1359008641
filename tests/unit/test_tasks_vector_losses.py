"""Losses of vectors against their formulas, written the plain way."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.errors import UsageError
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.vector_losses import Cosine, InBatch, Margin

seeds = st.integers(0, 1000)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cos(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@given(seed=seeds, examples=st.integers(2, 6), width=st.sampled_from([2, 3]), temperature=st.floats(0.05, 2))
def test_in_batch_is_a_softmax_over_all_partners_and_strangers(seed, examples, width, temperature):
    vectors = drawn(seed, examples, width, 4)
    texts = torch.arange(examples * width).view(examples, width)
    found = InBatch(temperature).losses(vectors.flatten(0, 1), texts, None)
    for number in range(examples):
        scores = [
            math.exp(cos(vectors[number, 0], vectors[other, place]) / temperature)
            for place in range(1, width)
            for other in range(examples)
        ]
        expected = -math.log(scores[number] / sum(scores))
        assert float(found[number]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_text_is_never_to_be_told_apart_from_itself():
    """Rows 0 and 1 have one partner, and row 2's partner is row 0's text: neither counts against row 0."""
    vectors = drawn(1, 4, 2, 5)
    texts = torch.tensor([[0, 1], [2, 1], [3, 0], [4, 5]])
    found = InBatch(0.1).losses(vectors.flatten(0, 1), texts, None)
    right, other = (math.exp(cos(vectors[0, 0], vectors[row, 1]) / 0.1) for row in (0, 3))
    assert float(found[0]) == pytest.approx(-math.log(right / (right + other)))
    assert torch.isfinite(found).all()


def test_many_rows_are_the_same_as_few(monkeypatch):
    vectors, texts = drawn(2, 18, 3), torch.arange(18).view(9, 2)
    whole = InBatch(0.2).losses(vectors, texts, None)
    monkeypatch.setattr("bertsmith.tasks.vector_losses._ANCHORS_AT_ONCE", 4)
    torch.testing.assert_close(InBatch(0.2).losses(vectors, texts, None), whole, rtol=1e-12, atol=0)


@given(seed=seeds)
def test_cosine_is_the_squared_distance_from_the_score(seed):
    vectors, scores = drawn(seed, 5, 2, 4), drawn(seed + 1, 5, 1).sigmoid()
    found = Cosine().losses(vectors.flatten(0, 1), scores, None)
    torch.testing.assert_close(found, (F.cosine_similarity(vectors[:, 0], vectors[:, 1]) - scores[:, 0]) ** 2)


@given(seed=seeds, margin=st.floats(0.1, 1))
def test_margin_is_the_triplet_loss_of_cosines(seed, margin):
    vectors = drawn(seed, 5, 3, 4)
    found = Margin(margin).losses(vectors.flatten(0, 1), torch.zeros(5, 3, dtype=torch.int64), None)
    expected = F.triplet_margin_with_distance_loss(
        *vectors.unbind(1),
        distance_function=lambda a, b: 1 - F.cosine_similarity(a, b),
        margin=margin,
        reduction="none",
    )
    torch.testing.assert_close(found, expected)


def test_bfloat16_does_not_reach_the_cosines():
    vectors, texts = drawn(3, 8, 4).float(), torch.arange(8).view(4, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = InBatch(0.05).losses(vectors, texts, None)
    assert torch.equal(found, InBatch(0.05).losses(vectors, texts, None))


def test_what_is_for_answers_is_refused():
    vectors, texts = drawn(1, 4, 3), torch.arange(4).view(2, 2)
    with pytest.raises(UsageError, match="are for classes and labels"):
        InBatch(0.1).losses(vectors, texts, None, Shape(smoothing=0.1))
    with pytest.raises(UsageError, match="r_drop is for outputs"):
        InBatch(0.1).divergences(vectors, vectors, None)
