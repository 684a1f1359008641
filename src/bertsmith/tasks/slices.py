"""Scores of parts of a table: rows of like length, of one label, or with one value in a column."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsmith.errors import UsageError
from bertsmith.tasks.base import Task
from bertsmith.tasks.features import Features
from bertsmith.tasks.records import Column, Records, read_records
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.splits import given_tables

MOST_VALUES = 20
"""Values of a column, the most frequent ones, that have a line each; all others have one together."""
LENGTHS, LABEL = "tokens", "label"
"""Slices that every table has."""


@dataclass(frozen=True)
class SliceRow:
    """The score of some rows of a split."""

    split: str
    slice: str
    """A column's name, or `tokens`, or `label`."""
    value: str
    """Which of its rows."""
    metric: str
    score: float
    low: float
    high: float
    """Bounds of the 95 % bootstrap interval."""
    rows: int


def read_slices(
    source: object, rows: Sequence[Any], columns: Sequence[Column], *, header: bool
) -> dict[str, tuple[str, ...]]:
    """Column -> its value for each of `rows`, which were read from `source`; "" where there is none.

    Raises `DataError` for a column that is not there, `UsageError` for a source without columns.
    """
    if not columns:
        return {}
    names = [column for column in columns if isinstance(column, str)]
    if names and isinstance(source, list | tuple) and any(isinstance(row, tuple) for row in source):
        raise UsageError(f"rows that are tuples have no column {names[0]!r}; give dicts, or the column's number")
    tables = [read_records(table.source, header=header, columns=columns) for table in given_tables(source)]
    return {_name(column): _values(tables, column, rows) for column in columns}


def _values(tables: Sequence[Records], column: Column, rows: Sequence[Any]) -> tuple[str, ...]:
    """Of each row: by its line in the one table, or, of several, in their order."""
    listed = [(line, _told(value)) for table in tables for line, value in table.values(column)]
    by_line = dict(listed)
    if len(tables) == 1 and all(row.line in by_line for row in rows):
        return tuple(by_line[row.line] for row in rows)
    if len(tables) == 1 or len(listed) != len(rows):
        raise UsageError(
            f"slices by column {column!r} need rows that are lines of one table, or all lines of several; here "
            f"{len(rows):,} rows are of {len(tables)} with {len(listed):,} lines"
        )
    return tuple(value for _, value in listed)


def score_slices(
    task: Task[Any, Any],
    rows: Sequence[Any],
    answers: Sequence[Any],
    labels: Sequence[str],
    features: Features,
    *,
    columns: Mapping[str, Sequence[str]],
    metric: str,
    split: str,
    seed: int,
) -> tuple[SliceRow, ...]:
    """A line for each quarter of the rows by length, for each label (where a row has one), and for each value of
    `columns`, column -> value of each row.

    The score is `metric`; of rows with one label the accuracy, which is that label's recall. Nothing for tasks whose
    scores are of all rows together.
    """
    if not task.scores_parts(rows):
        return ()

    def line(name: str, value: str, chosen: Sequence[int], metric: str) -> SliceRow:
        some, said = [rows[number] for number in chosen], [answers[number] for number in chosen]
        score = task.score(some, said, labels)[metric]
        low, high = task.interval(some, said, labels, metric, seed=seed)
        return SliceRow(split, name, value, metric, score, low, high, len(some))

    found = [line(LENGTHS, value, chosen, metric) for value, chosen in _by_length(features, len(rows))]
    if "accuracy" in task.metrics and all(isinstance(row, TextRow) and isinstance(row.label, str) for row in rows):
        of_label = _by_value([row.label for row in rows])
        found += [line(LABEL, value, chosen, "accuracy") for value, chosen in of_label]
    for name, values in columns.items():
        found += [line(name, value, chosen, metric) for value, chosen in _by_value(values)]
    return tuple(found)


def _by_length(features: Features, rows: int) -> Iterable[tuple[str, list[int]]]:
    """Quarters of the rows by the tokens that the model reads of them; fewer parts where many are of one length."""
    lengths = np.bincount(features.row_of_example, weights=features.lengths, minlength=rows).astype(np.int64)
    bounds = np.unique([lengths.min() - 1, *np.quantile(lengths, [0.25, 0.5, 0.75, 1], method="lower")])
    for low, high in itertools.pairwise(bounds):
        chosen = np.flatnonzero((lengths > low) & (lengths <= high)).tolist()
        first = int(lengths[chosen].min())
        yield f"{first} to {int(high)}" if first < high else str(first), chosen


def _by_value(values: Sequence[str]) -> Iterable[tuple[str, list[int]]]:
    """Most frequent first, of equals as they are sorted."""
    order = sorted(Counter(values).items(), key=lambda found: (-found[1], found[0]))
    named = [value for value, _ in order[:MOST_VALUES]]
    places: dict[str, list[int]] = {value: [] for value in named}
    others: list[int] = []
    for number, value in enumerate(values):
        places.get(value, others).append(number)
    yield from ((value or "(empty)", chosen) for value, chosen in places.items())
    if others:
        yield f"({len(order) - MOST_VALUES:,} other values)", others


def _name(column: Column) -> str:
    """What a column's slice is called, so that it is not taken for one that every table has."""
    return f"column {column}" if isinstance(column, int) or column in (LENGTHS, LABEL) else column


def _told(value: object) -> str:
    return "" if value is None else str(value).strip()
