import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.examples.draws import example_keys, hash_counters
from bertsmith.examples.mask import budgets, mask_tokens

REPLACEMENTS = np.arange(10, 1000)
MASK = 4


def mask(ids: np.ndarray, maskable: np.ndarray, *, share: float = 0.15, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    keys = example_keys("mask", seed, np.zeros(len(ids), dtype=np.int64), np.arange(len(ids)))
    return mask_tokens(ids, maskable, keys, share=share, mask_id=MASK, replacements=REPLACEMENTS)


@given(
    rows=st.integers(1, 6),
    length=st.integers(1, 64),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 10**6),
)
def test_the_budget_is_exact(rows: int, length: int, share: float, seed: int) -> None:
    bits = hash_counters(np.uint64(seed), np.arange(rows * length)).reshape(rows, length)
    maskable = bits % 4 > 0
    ids = np.full((rows, length), 500)
    hidden, chosen = mask(ids, maskable, share=share, seed=seed)
    count = maskable.sum(axis=1)
    wanted = np.where(count > 0, np.maximum(1, np.floor(count * share + 0.5)), 0)
    assert chosen.sum(axis=1).tolist() == wanted.tolist()
    assert not (chosen & ~maskable).any()
    assert (hidden[~chosen] == 500).all()
    assert np.isin(hidden[chosen], [500, MASK, *REPLACEMENTS]).all()


def test_budgets() -> None:
    counts = np.array([0, 1, 3, 10, 17, 126])
    assert budgets(counts, 0.15).tolist() == [0, 1, 1, 2, 3, 19]


def test_eighty_ten_ten() -> None:
    ids = np.full((400, 128), 5)
    hidden, chosen = mask(ids, np.ones_like(ids, dtype=bool))
    values = hidden[chosen]
    assert abs((values == MASK).mean() - 0.8) < 0.02
    assert abs((values == 5).mean() - 0.1) < 0.015
    random = values[(values != MASK) & (values != 5)]
    assert random.min() >= 10
    assert len(np.unique(random)) > 400


def test_positions_are_chosen_evenly() -> None:
    ids = np.full((4000, 40), 5)
    _, chosen = mask(ids, np.ones_like(ids, dtype=bool))
    assert np.abs(chosen.mean(axis=0) - 0.15).max() < 0.03


@pytest.mark.parametrize("padding", [1, 40])
def test_padding_and_neighbours_change_nothing(padding: int) -> None:
    ids = np.arange(10, 10 + 6 * 20).reshape(6, 20)
    hidden, chosen = mask(ids, np.ones_like(ids, dtype=bool))
    wide = np.pad(ids, ((0, 0), (0, padding)))
    hidden_wide, chosen_wide = mask(wide, wide > 0)
    assert np.array_equal(hidden_wide[:, :20], hidden)
    assert np.array_equal(chosen_wide[:, :20], chosen)
    assert not chosen_wide[:, 20:].any()
