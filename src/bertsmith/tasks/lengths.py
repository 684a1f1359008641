"""How long rows are in tokens, and what a `max_length` cuts off them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsmith.tasks.features import Features, Ints

COVERED = 0.99
"""Share of rows that the advised `max_length` holds whole."""
LONGEST = 512
"""The largest `max_length` there is."""
_STEP, _LEAST = 8, 8
_BARS = 64
_PLACES: Mapping[str, float] = {"50 %": 0.5, "90 %": 0.9, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}


@dataclass(frozen=True)
class Lengths:
    """Token counts of rows."""

    places: dict[str, int]
    """50 %, 90 %, 95 % and 99 % of the rows have at most so many, [CLS] and [SEP] included; and the longest."""
    advised: int
    """`max_length`: the smallest multiple of 8 that holds 99 % of the rows whole, or as much as there may be."""
    cut_share: float
    """Share of the rows that are longer than that."""


def lengths_of(counts: Ints, *, positions: int = LONGEST) -> Lengths:
    """counts: (rows,) tokens of each; positions: those of the model."""
    places = {name: int(np.quantile(counts, place, method="inverted_cdf")) for name, place in _PLACES.items()}
    enough = int(np.quantile(counts, COVERED, method="inverted_cdf"))
    advised = min(max(_LEAST, -(-enough // _STEP) * _STEP), LONGEST, positions)
    return Lengths(places, advised, float((counts > advised).mean()))


def whole_lengths(features: Features) -> Ints:
    """(sequences,) tokens of each before anything was cut off: of rows, or of their choices or windows."""
    return features.tokens.lengths + features.cut_tokens


def row_lengths(features: Features) -> Ints:
    """(examples,) the same of each example's longest sequence."""
    whole = whole_lengths(features)
    return whole if features.starts is None else np.maximum.reduceat(whole, features.starts[:-1])


def histogram(counts: Ints, *, max_length: int) -> dict[str, Any]:
    """Rows in at most `_BARS` bars of `width` tokens each: the first holds 1 to `width` tokens.

    A bar ends at `max_length`, so that no bar is of rows that are cut and rows that are not.
    """
    longest = int(counts.max(initial=1))
    least = -(-longest // _BARS)
    whole = [width for width in range(least, max(least, max_length) + 1) if max_length % width == 0]
    width = whole[0] if whole else least
    bars = np.bincount((np.maximum(counts, 1) - 1) // width)
    return {"width": width, "max_length": max_length, "counts": bars.tolist()}


def in_words(lengths: Lengths) -> str:
    """Such as "50 % have at most 11, 90 % 16, ..., the longest 47"."""
    *parts, longest = lengths.places.items()
    (first, most), *others = parts
    told = ", ".join(f"{name} {value:,}" for name, value in others)
    return f"{first} have at most {most:,}, {told}, the longest {longest[1]:,}"
