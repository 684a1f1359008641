"""Ranks of partners, against sorting them by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.tasks.embed_metrics import partner_ranks, rank_values, unit


@given(seed=st.integers(0, 1000), rows=st.integers(1, 9), kinds=st.integers(1, 9))
def test_a_rank_is_the_place_among_different_partners(seed, rows, kinds):
    draw = np.random.default_rng(seed)
    texts = draw.integers(0, kinds, rows)
    vectors = draw.normal(size=(rows, 5)).astype(np.float32)
    partners = draw.normal(size=(kinds, 5)).astype(np.float32)[texts]  # equal texts have equal vectors
    found = partner_ranks(vectors, partners, texts)
    for row in range(rows):
        cosines = {text: unit(vectors[row]) @ unit(partners[list(texts).index(text)]) for text in set(texts.tolist())}
        nearest_first = sorted(cosines, key=lambda text: -cosines[text])
        assert nearest_first.index(texts[row]) + 1 == found[row]


def test_the_right_one_comes_last_of_those_as_near():
    same = np.ones((3, 2), dtype=np.float32)
    assert partner_ranks(same, same, np.arange(3)).tolist() == [3, 3, 3]


def test_many_rows_are_the_same_as_few(monkeypatch):
    draw = np.random.default_rng(1)
    vectors, partners = draw.normal(size=(2, 10, 4)).astype(np.float32)
    whole = partner_ranks(vectors, partners, np.arange(10))
    monkeypatch.setattr("bertsmith.tasks.embed_metrics._ROWS_AT_ONCE", 3)
    assert np.array_equal(partner_ranks(vectors, partners, np.arange(10)), whole)


def test_recall_and_reciprocal_rank():
    ranks = np.array([1, 2, 10, 11])
    assert rank_values(ranks, "recall@1").mean() == 0.25
    assert rank_values(ranks, "recall@10").mean() == 0.75
    assert rank_values(ranks, "mrr").mean() == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 4)
