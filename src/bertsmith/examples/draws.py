"""Random draws as pure functions: no generator, no state, so any example of any epoch can be drawn again at once.

A draw is a hash of (key, counter). The hash is the finaliser of splitmix64 (Steele, Lea & Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014); its 64 bits pass the usual tests of randomness when fed with a counter.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from bertsmith.runtime import derive_seed

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_FEISTEL_ROUNDS = 6


def hash_counters(keys: UInt64 | np.uint64, counters: npt.NDArray[Any]) -> UInt64:
    """64 random bits for each counter under its key; `keys` and `counters` broadcast."""
    with np.errstate(over="ignore"):
        z = keys + (counters.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return np.asarray(z ^ (z >> np.uint64(31)))


def example_keys(purpose: str, seed: int, epochs: Int64, ids: Int64) -> UInt64:
    """One key for each (epoch, example id), different for each purpose and seed."""
    keys = hash_counters(np.uint64(derive_seed(purpose, seed)), epochs)
    return hash_counters(keys, ids)


def below(bits: UInt64, bounds: npt.NDArray[Any]) -> Int64:
    """Turn random bits into integers in [0, bound); the bias is under bound / 2**32.

    Multiply-and-shift (Lemire, "Fast random integer generation in an interval", 2019). Bounds must be below 2**32.
    """
    high = bits >> np.uint64(32)
    return np.asarray((high * bounds.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def fraction(bits: UInt64) -> npt.NDArray[np.float64]:
    """Turn random bits into floats in [0, 1)."""
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def shuffled(positions: npt.NDArray[Any], size: int, key: int) -> Int64:
    """Where each of `positions` in [0, size) goes under a keyed shuffle of that range, without building the range.

    A Feistel network permutes the next power of four; results that fall outside the range are sent through again
    until they fall inside ("cycle walking": Black & Rogaway, "Ciphers with arbitrary finite domains", 2002), which
    keeps it a bijection. On average under four passes.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    values = positions.astype(np.uint64)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], half_bits, key)
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _feistel(values: UInt64, half_bits: int, key: int) -> UInt64:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for number in range(_FEISTEL_ROUNDS):
        round_key = hash_counters(np.uint64(key), np.array(number))
        left, right = right, left ^ (hash_counters(round_key, right) & mask)
    return np.asarray((left << shift) | right)
