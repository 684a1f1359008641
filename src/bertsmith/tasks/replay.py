"""Which old rows are learned again: a buffer of a few of them, a pure function of the seed and the rows."""

from collections.abc import Sequence
from typing import Literal, TypeVar

from bertsmith.errors import UsageError
from bertsmith.runtime import derive_seed
from bertsmith.tasks.rows import Row

AnyRow = TypeVar("AnyRow", bound=Row)


def replay_buffer(
    rows: Sequence[AnyRow], size: int, by: Literal["stratified", "reservoir"], *, seed: int
) -> list[AnyRow]:
    """`size` of the rows, in their order. Raises `UsageError` where there are not as many.

    stratified: rows are sorted by label, within a label by a hash of (seed, content), and taken at even steps, so each
    label gives its share to within one row, and the choice does not hang on the order of the rows.

    reservoir: algorithm R (Vitter 1985), which reads rows one by one and at any time holds an even sample of those it
    has read: row i, counted from 0, takes the place j of the buffer, j drawn from 0 to i, where j is one of its places.
    """
    if size > len(rows):
        raise UsageError(f"learn_on.replay = {size:,}, but there are {len(rows):,} old rows; set it to at most that")
    return [rows[index] for index in sorted((_stratified if by == "stratified" else _reservoir)(rows, size, seed))]


def _stratified(rows: Sequence[AnyRow], size: int, seed: int) -> list[int]:
    def place(index: int) -> tuple[str | float, int, int]:
        row = rows[index]
        return row.stratum, derive_seed("replay", seed, row.content), index

    order = sorted(range(len(rows)), key=place)
    return [order[(2 * step + 1) * len(rows) // (2 * size)] for step in range(size)]


def _reservoir(rows: Sequence[AnyRow], size: int, seed: int) -> list[int]:
    buffer = list(range(size))
    for index in range(size, len(rows)):
        if (place := derive_seed("reservoir", seed, index) % (index + 1)) < size:
            buffer[place] = index
    return buffer
