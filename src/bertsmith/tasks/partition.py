"""Splits that are made: some of the rows held out, or all of them dealt into folds; by label, groups never parted.

Which rows go where depends on (seed, content) alone, not on the order of the rows.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from bertsmith.errors import DataError, UsageError
from bertsmith.runtime import derive_seed
from bertsmith.tasks.features import Ints
from bertsmith.tasks.rows import Row

_BINS = 10
"""Ranges of numbers, each with as many rows, that count as labels where groups are dealt."""


def held_out(
    rows: Sequence[Row],
    share: float,
    seed: int,
    *,
    groups: Sequence[str | None] | None = None,
    what: str = "validation",
) -> list[int]:
    """Numbers of the rows that are held out, `share` of all, ascending.

    Stratified: rows are sorted by label, within a label by a hash of (seed, content), and taken at even steps, so each
    label gives its share to within one row, and the choice does not hang on the order of the rows. Rows of one group
    go together, by the first one's label; the share is then one of groups.

    Args:
        groups: (rows,) of each row, before the rows' own.
        what: what the rows are held out for: another word, other rows.
    """
    if not 0.0 < share < 1.0:
        raise UsageError(f"the share of {what} rows is {share}; give more than 0 and less than 1")
    members = _groups(rows, groups)
    if len(members) < 2:
        told = f"{len(rows)} row" if len(rows) < 2 else f"{len(rows)} rows of one group, or on one text,"
        raise DataError(f"{told} cannot be split into training and {what}; give at least two")
    taken = min(max(round(len(members) * share), 1), len(members) - 1)
    steps = np.arange(len(members) + 1) * taken // len(members)
    salt = "split" if what == "validation" else f"split {what}"
    ordered = sorted(members, key=lambda group: _place(rows, group, salt, seed))
    return sorted(index for group, step in zip(ordered, np.diff(steps), strict=True) if step for index in group)


def folds_of(rows: Sequence[Row], folds: int, seed: int, *, groups: Sequence[str | None] | None = None) -> Ints:
    """(rows,) the fold of each row, from 0 below `folds`.

    Rows that stand alone are sorted as `held_out` sorts them and dealt in turn, so folds, and a label's rows in them,
    are equal in number to within one. Groups are dealt whole, the largest first, each to the fold that has the fewest
    rows of its labels, by their share of all such rows; of equal ones to the smallest.
    """
    members = _groups(rows, groups)
    if not 2 <= folds <= len(members):
        kind = "rows" if len(members) == len(rows) else "groups"
        raise UsageError(f"{folds} folds of {len(members)} {kind}; give from 2 to {len(members)}")
    members.sort(key=lambda group: _place(rows, group, "folds", seed))
    found = np.zeros(len(rows), dtype=np.int64)
    if len(members) == len(rows):
        for place, (index,) in enumerate(members):
            found[index] = place % folds
        return found
    strata = _classes(rows)
    totals = Counter(strata)
    held = [Counter[Hashable]() for _ in range(folds)]
    for group in sorted(members, key=len, reverse=True):
        own = Counter(strata[index] for index in group)

        def crowd(fold: int, own: Counter[Hashable] = own) -> tuple[float, int, int]:
            same = sum(held[fold][label] * count / totals[label] for label, count in own.items())
            return same, held[fold].total(), fold

        fold = min(range(folds), key=crowd)
        held[fold] += own
        found[group] = fold
    return found


def _groups(rows: Sequence[Row], groups: Sequence[str | None] | None) -> list[list[int]]:
    """Numbers of the rows that go together."""
    found: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        own = groups[index] if groups is not None else None
        name = row.group if own is None else own
        found.setdefault(index if name is None else name, []).append(index)
    return list(found.values())


def _place(rows: Sequence[Row], group: Sequence[int], salt: str, seed: int) -> tuple[str | float, int, int]:
    first = rows[group[0]]
    return first.stratum, derive_seed(salt, seed, first.content), group[0]


def _classes(rows: Sequence[Row]) -> list[Hashable]:
    """Each row's label; numbers as the range they fall into."""
    strata = [row.stratum for row in rows]
    numbers = [value for value in strata if isinstance(value, float)]
    if len(numbers) < len(strata):
        return list(strata)
    borders = np.quantile(numbers, np.arange(1, _BINS) / _BINS)
    return [int(place) for place in np.searchsorted(borders, numbers, side="right")]
