from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.examples.blocks import Index
from bertsmith.examples.order import Order


def index(spans: list[int], *, tokens_a_span: int = 100) -> Index:
    counts = np.array(spans, dtype=np.int64)
    return Index(counts * tokens_a_span, counts, counts * 4, np.ones_like(counts))


def numbers(order: Order, positions: np.ndarray) -> np.ndarray:
    """The example at each position."""
    before = np.cumsum(order.index.spans) - order.index.spans
    found = np.full(len(positions), -1)
    for visit in order.visits(positions):
        of_window = np.concatenate([before[block] + np.arange(order.index.spans[block]) for block in visit.blocks])
        found[visit.rows] = of_window[visit.places]
    return found


@given(
    spans=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    window=st.integers(1, 6000),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 5),
)
def test_every_example_comes_once_an_epoch(spans: list[int], window: int, seed: int, epoch: int) -> None:
    order = Order(index(spans), window_tokens=window, seed=seed)
    size = sum(spans)
    assert sorted(numbers(order, epoch * size + np.arange(size)).tolist()) == list(range(size))


@given(position=st.integers(0, 10_000), window=st.integers(500, 6000))
def test_a_position_is_found_without_those_before_it(position: int, window: int) -> None:
    walked = numbers(Order(index([30] * 20), window_tokens=window, seed=3), np.arange(position, position + 40))
    sought = numbers(Order(index([30] * 20), window_tokens=window, seed=3), np.array([position + 39, position]))
    assert sought.tolist() == [walked[39], walked[0]]


def test_few_blocks_are_open_at_a_time_and_each_epoch_has_others_together() -> None:
    order = Order(index([50] * 64), window_tokens=8 * 5000, seed=1)
    together = []
    for epoch in range(3):
        visits = list(order.visits(epoch * 3200 + np.arange(3200)))
        assert [len(visit.blocks) for visit in visits] == [8] * 8
        assert all(visit.rows.tolist() == list(range(visit.rows[0], visit.rows[-1] + 1)) for visit in visits)
        together.append({visit.blocks for visit in visits})
    assert len(set.union(*together)) == 24


def test_one_window_where_all_fits() -> None:
    order = Order(index([3, 0, 9]), window_tokens=10**9, seed=1)
    assert {visit.blocks for visit in order.visits(np.arange(100))} == {(0, 1, 2)}


def test_a_batch_over_the_border_of_windows_and_epochs() -> None:
    order = Order(index([20, 20]), window_tokens=2000, seed=1)
    visits = list(order.visits(np.arange(15, 50)))
    assert [(visit.epoch, len(visit.rows)) for visit in visits] == [(0, 5), (0, 20), (1, 10)]
    assert all(len(one.blocks) == 1 for one in visits)
    assert all(one.rows[-1] < two.rows[0] for one, two in pairwise(visits))
