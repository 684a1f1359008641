"""Where a recipe's labelled rows are: files, globs and URLs, a database query, a dataset of the hub.

What is no file of this machine is read as corpora read it (corpus.sql, corpus.hub); a task then reads the rows as it
reads any table's.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from bertsmith.config import Rows, RowSource
from bertsmith.corpus.files import find_files, is_pattern, is_url
from bertsmith.corpus.hub import dataset_files
from bertsmith.corpus.sql import opened_query, shown_url
from bertsmith.errors import DataError
from bertsmith.tasks.records import Place, Records, located

_SHOWN_QUERY = 60
"""Characters of a query that an error shows."""


@dataclass(frozen=True)
class Table:
    """One table that a task can read: a file, the rows of a query, or what a caller gave."""

    source: object

    @property
    def path(self) -> str | Path | None:
        """Of a file."""
        return self.source if isinstance(self.source, str | Path) else None

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """A `DataError` of rows that are in no file tells the query that they are of."""
        name = self.source.place.name if isinstance(self.source, Records) else ""
        try:
            yield
        except DataError as error:
            if not name or str(error).startswith(name):
                raise
            raise DataError(f"{name}: {error}") from error


def tables_of(rows: Rows) -> list[Table]:
    """The tables that a recipe names, in order; `DataError` for what is not there."""
    if isinstance(rows, RowSource):
        return [Table(_query(rows))] if rows.kind == "sql" else _remote(rows)
    return [Table(path) for name in ([rows] if isinstance(rows, str) else rows) for path in _files(name)]


def check_files(rows: Rows) -> None:
    """Raise `DataError` where files that a recipe names are not there; nothing else is reached for."""
    if not isinstance(rows, RowSource):
        for name in [rows] if isinstance(rows, str) else rows:
            if not is_url(name):
                _files(name)


def _files(name: str) -> Sequence[str | Path]:
    if not is_pattern(name):
        return [located(name)]
    try:
        return [located(name)]  # a file may have a bracket in its name
    except DataError:
        return [file.path for file in find_files([name])]


def _remote(rows: RowSource) -> list[Table]:
    return [Table(file.path) for file in dataset_files(rows.dataset, rows.paths)]


def _query(rows: RowSource) -> Records:
    """All rows of a query, numbered from 1."""
    query = " ".join(rows.query.split())
    shown = query if len(query) <= _SHOWN_QUERY else f"{query[: _SHOWN_QUERY - 1]}…"
    place = Place(name=f"{shown_url(rows.url)} ({shown})")
    with opened_query(rows.url, rows.query) as (names, found):
        listed = list(_plain(found))
    if not listed:
        raise place.error("the query gives no rows")
    return Records(place, tuple(names), listed)


def _plain(rows: Iterator[tuple[int, Sequence[Any]]]) -> Iterator[tuple[int, Sequence[object]]]:
    """A database's exact numbers as those of tables."""
    for number, values in rows:
        yield number, tuple(_number(value) if isinstance(value, Decimal) else value for value in values)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
