import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.examples.draws import below, example_keys, fraction, hash_counters, shuffled


@given(st.integers(1, 3000), st.integers(0, 2**62))
def test_a_shuffle_is_a_bijection(size: int, key: int) -> None:
    assert np.array_equal(np.sort(shuffled(np.arange(size), size, key)), np.arange(size))


def test_a_shuffle_seeks() -> None:
    whole = shuffled(np.arange(1000), 1000, 5)
    assert np.array_equal(shuffled(np.array([999, 3]), 1000, 5), whole[[999, 3]])


def test_shuffles_mix_and_differ_by_key() -> None:
    size = 10_000
    one, two = (shuffled(np.arange(size), size, key) for key in (1, 2))
    assert abs(np.corrcoef(np.arange(size), one)[0, 1]) < 0.05
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
    assert (np.abs(np.diff(one)) == 1).mean() < 0.01


def test_a_shuffle_of_a_huge_range_takes_no_array_of_it() -> None:
    drawn = shuffled(np.arange(100), 10**12, 1)
    assert len(set(drawn.tolist())) == 100
    assert drawn.min() >= 0
    assert drawn.max() < 10**12


@pytest.mark.parametrize("bound", [1, 2, 7, 30_000])
def test_draws_are_even(bound: int) -> None:
    bits = hash_counters(np.uint64(3), np.arange(200_000))
    drawn = below(bits, np.array(bound))
    assert drawn.min() >= 0
    assert drawn.max() < bound
    assert abs(drawn.mean() / max(1, bound - 1) - 0.5) < 0.01 or bound == 1
    assert abs(fraction(bits).mean() - 0.5) < 0.005


def test_every_bit_depends_on_every_part() -> None:
    """Neighbouring seeds, epochs, ids and counters give hashes that agree in half of their bits."""
    base = example_keys("mask", 1, np.array([2]), np.array([3]))
    others = [
        example_keys("mask", 2, np.array([2]), np.array([3])),
        example_keys("mask", 1, np.array([3]), np.array([3])),
        example_keys("mask", 1, np.array([2]), np.array([4])),
        example_keys("pairs", 1, np.array([2]), np.array([3])),
        hash_counters(base, np.array([0])),
    ]
    for other in others:
        assert 12 < int(base[0] ^ other[0]).bit_count() < 52


def test_known_values() -> None:
    """The draws of a run must not change between versions, or its resume would not be exact."""
    assert hash_counters(np.uint64(0), np.arange(2)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert shuffled(np.arange(6), 6, 42).tolist() == [3, 5, 4, 1, 0, 2]
