"""Any labelled source as numbered records: a file, here or at a URL, a DataFrame, an Arrow table or a list.

A record is a line number (from 1; for tables in memory, the row number) and its fields by column. Files, plain or
compressed, are read as UTF-8 and nothing else: a byte that is not is an error with its line, never a replacement
character.
"""

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from bertsmith.corpus.files import UNREADABLE, SourceFile, find_files, is_url
from bertsmith.errors import DataError
from bertsmith.runtime import data_roots

Column = str | int
FoundT = TypeVar("FoundT")
RowT = TypeVar("RowT")

_NAMED = 10
"""Wrong rows that an error names."""


@dataclass(frozen=True)
class Place:
    """Where rows come from, so that an error can say it."""

    path: Path | str | None = None
    """A file, or its URL."""
    name: str = ""
    """Of what is no file: a query."""

    def error(self, message: str, line: int | None = None) -> DataError:
        name = f"{self.name}: " if self.name else ""
        if self.path is None and line is not None:
            found = DataError(f"{name}row {line}: {message}")
            found.line = line
            return found
        return DataError(name + message, path=self.path, line=line)


@dataclass(frozen=True)
class Records:
    """Rows of one source: column names (or None where a row has only positions) and numbered fields."""

    place: Place
    columns: tuple[str, ...] | None
    rows: Sequence[tuple[int, Sequence[object] | Mapping[str, object]]]

    def values(self, column: Column, *, optional: bool = False) -> Iterator[tuple[int, object]]:
        """Yield (line, value) of one column; where it is not there, None if `optional`, else `DataError`."""
        if optional and self.columns is not None and isinstance(column, str) and column not in self.columns:
            yield from ((line, None) for line, _ in self.rows)
            return
        position = self._position(column)
        found: list[tuple[int, object]] = []
        wrong: list[DataError] = []
        for line, fields in self.rows:
            value: object = None
            if isinstance(fields, Mapping) and column in fields:
                value = fields[str(column)]
            elif not isinstance(fields, Mapping) and position is not None and position < len(fields):
                value = fields[position]
            elif not optional:
                wrong.append(self._missing(column, fields, line))
            found.append((line, value))
        if wrong:
            raise together(wrong)
        yield from found

    def has(self, column: Column) -> bool:
        """Whether its rows, or the first of them, have such a column."""
        if self.columns is not None:
            return column in self.columns
        first = self.rows[0][1] if self.rows else ()
        return column in first if isinstance(first, Mapping) else isinstance(column, int) and column < len(first)

    def _missing(self, column: Column, fields: Sequence[object] | Mapping[str, object], line: int) -> DataError:
        if isinstance(fields, Mapping):
            known = ", ".join(map(str, fields)) or "none"
            return self.place.error(f"no field {column!r}{_nearest(column, fields)}; fields: {known}", line)
        return self.place.error(f"no column {column!r} in a row of {len(fields)}; columns are counted from 0", line)

    def _position(self, column: Column) -> int | None:
        if isinstance(column, int):
            return column
        if self.columns is None:
            if any(not isinstance(fields, Mapping) for _, fields in self.rows):
                raise self.place.error(
                    f"column {column!r} is a name, but without a header columns are numbers from 0; "
                    "give a number, or header = true (no --no-header)"
                )
            return None
        if self.columns.count(column) > 1:
            raise self.place.error(f"the header names column {column!r} twice; give the column's number from 0", 1)
        if column not in self.columns:
            raise self.place.error(
                f"no column {column!r}{_nearest(column, self.columns)}; columns: {', '.join(self.columns)} "
                "(a file without a header needs header = false, or --no-header, and numbers from 0)",
                1 if self.place.path else None,
            )
        return self.columns.index(column)


def collect(found: Iterable[FoundT], build: Callable[[FoundT], RowT]) -> list[RowT]:
    """A row of each; all are tried, and one `DataError` tells of the first that is wrong, and where the others are."""
    rows: list[RowT] = []
    wrong: list[DataError] = []
    for values in found:
        try:
            rows.append(build(values))
        except DataError as error:
            wrong.append(error)
    if wrong:
        raise together(wrong)
    return rows


def together(wrong: Sequence[DataError]) -> DataError:
    """The first error, with the lines of the next nine and how many more there are."""
    first, *others = wrong
    lines = sorted({error.line for error in others if error.line is not None} - {first.line})
    if not lines:
        return first
    named = ", ".join(f"{line:,}" for line in lines[: _NAMED - 1])
    more = f" and {len(lines) - _NAMED + 1:,} more" if len(lines) >= _NAMED else ""
    return DataError(f"{first} (wrong rows besides: {named}{more})")


def located(name: str | Path) -> str | Path:
    """A URL as it is, or the file that is meant; raises `DataError` where there is none."""
    return name if is_url(str(name)) else find_data_file(name)


def in_short(lines: Sequence[int]) -> str:
    """The first ten, and how many more."""
    named = ", ".join(f"{line:,}" for line in lines[:_NAMED])
    return named + (f" and {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else "")


def find_data_file(path: str | Path) -> Path:
    """The file as it is named, or below the first data folder that has it.

    Raises `DataError` with the places looked at.
    """
    path = Path(path).expanduser()
    tried = [path] if path.is_absolute() else [path, *(root / path for root in data_roots())]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    folder = next((candidate for candidate in tried if candidate.is_dir()), None)
    if folder is not None:
        raise DataError("is a folder; give a file of rows", path=folder)
    looked = ", ".join(str(candidate) for candidate in tried)
    raise DataError(f"file {path} does not exist (looked at {looked}); give an existing file or set BERTSMITH_DATA")


def suffix_of(source: str | Path) -> str:
    """What says how a file is read, in lower case: `.tsv` of `rows.tsv.gz`."""
    return SourceFile(str(source), "", 0).suffix


def read_bytes(path: str | Path) -> bytes:
    """A file, here or at a URL, decompressed; raises `DataError` where it cannot be read."""
    file = find_files([str(path)])[0] if is_url(str(path)) else SourceFile(str(path), "", 0)
    try:
        with file.open_content() as content:
            return content.read()
    except UNREADABLE as error:
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path=path) from error


def read_text(path: str | Path) -> str:
    """The same as text, without a byte order mark; raises `DataError` where it is not UTF-8, empty or unreadable."""
    raw = read_bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8 "
            f"(such as: iconv -f {_guess_encoding(raw)} -t UTF-8)",
            path=path,
            line=line,
        ) from error
    if not text.strip():
        raise DataError("the file is empty; expected a row a line", path=path)
    return text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines by LF or CRLF alone (`str.splitlines` also breaks at U+2028 and others, which may stand inside a text)."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def read_records(source: object, *, header: bool, columns: Sequence[Column]) -> Records:
    """Read a path or URL, pandas DataFrame, Arrow table or sequence of rows; `Records` are given back.

    `header` says whether the first line of a .tsv or .csv names the columns; `columns` are those wanted (of a
    DataFrame, only they are converted).
    """
    if isinstance(source, Records):
        return source
    if isinstance(source, str | Path):
        path = located(source)
        reader = _READERS.get(suffix_of(path))
        if reader is None:
            raise DataError(f"unknown kind of file {suffix_of(path)!r}; use one of: {', '.join(_READERS)}", path=path)
        return reader(path, header)
    if isinstance(source, pa.Table):
        return _from_arrow(source, Place())
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        return _from_frame(source, columns)
    if isinstance(source, Sequence):
        if not source:
            raise DataError("the list of rows is empty; expected at least one row")
        rows = [(number, _as_fields(row, number, columns)) for number, row in enumerate(source, start=1)]
        return Records(Place(), None, rows)
    raise DataError(
        f"cannot read rows from {type(source).__name__}; give a file, a pandas DataFrame, an Arrow table or a list"
    )


def _read_tsv(path: str | Path, header: bool) -> Records:
    """Tabs between fields and no quoting, as CoLA and most research tables are: a quote is a character of the text."""
    rows = [(line, text.split("\t")) for line, text in numbered_lines(read_text(path)) if text]
    return _rectangular(path, rows, header, "tab")


def _read_csv(path: str | Path, header: bool) -> Records:
    """Commas between fields, quotes as spreadsheets write them; a record may span lines and is known by its first."""
    text = read_text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            if fields:
                rows.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"not valid CSV: {error}; check the quotes of this record", path=path, line=line) from error
    return _rectangular(path, rows, header, "comma")


def _rectangular(path: str | Path, rows: list[tuple[int, list[str]]], header: bool, separator: str) -> Records:
    place, (first_line, first) = Place(path), rows[0]
    wrong = []
    for line, fields in rows:
        if len(fields) != len(first):
            problem = f"{len(fields)} {separator}-separated fields, but line {first_line} has {len(first)}"
            wrong.append(place.error(f"{problem}; every row needs the same number", line))
        elif header and fields == first and line != first_line:
            wrong.append(place.error(f"the header of line {first_line} again; remove it", line))
    if wrong:
        raise together(wrong)
    if not header:
        return Records(place, None, rows)
    if len(rows) == 1:
        raise DataError("only a header and no rows (header = false, or --no-header, if that line is a row)", path=path)
    return Records(place, tuple(first), rows[1:])


def _read_jsonl(path: str | Path, header: bool) -> Records:  # noqa: ARG001 - every reader takes it
    place = Place(path)

    def row(numbered: tuple[int, str]) -> tuple[int, Mapping[str, object]]:
        line, text = numbered
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise place.error(f"not valid JSON: {error}; expected one object a line", line) from error
        if not isinstance(fields, dict):
            raise place.error(f"expected a JSON object, found {type(fields).__name__}", line)
        return line, fields

    return Records(
        place, None, collect(((line, text) for line, text in numbered_lines(read_text(path)) if text.strip()), row)
    )


def _read_parquet(path: str | Path, header: bool) -> Records:  # noqa: ARG001 - every reader takes it
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(path)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a readable Parquet file: {error}", path=path) from error
    return _from_arrow(table, Place(path))


_READERS: dict[str, Callable[[str | Path, bool], Records]] = {
    ".tsv": _read_tsv,
    ".txt": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


TABLE_SUFFIXES = tuple(_READERS)
"""Of files that are tables with columns."""


def _from_arrow(table: pa.Table, place: Place) -> Records:
    if not table.num_rows:
        raise place.error("the table has no rows")
    columns = [table.column(position).to_pylist() for position in range(table.num_columns)]
    rows = [(number, fields) for number, fields in enumerate(zip(*columns, strict=True), start=1)]
    return Records(place, tuple(table.column_names), rows)


def _from_frame(frame: Any, columns: Sequence[Column]) -> Records:
    """Only the wanted columns, through Arrow, so that NaN, NA and None all become None."""
    if not len(frame):
        raise DataError("the table has no rows")
    names = tuple(map(str, frame.columns))
    values: list[Sequence[object]] = []
    for position, name in enumerate(names):
        if name not in columns and position not in columns:
            values.append([None] * len(frame))
            continue
        try:
            values.append(pa.array(frame.iloc[:, position], from_pandas=True).to_pylist())
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"column {name!r} mixes kinds of values: {error}; make it text") from error
    return Records(Place(), names, list(enumerate(zip(*values, strict=True), start=1)))


def _as_fields(row: object, number: int, columns: Sequence[Column]) -> Sequence[object] | Mapping[str, object]:
    """A row of a list: a dict as it is; a tuple by position, which stands for the wanted columns in their order."""
    if isinstance(row, Mapping):
        return row
    if isinstance(row, str):
        row = (row,)
    if not isinstance(row, Sequence):
        raise DataError(f"row {number}: {type(row).__name__} is not a row; give a dict, a tuple or a text")
    names = [str(column) for column in columns if isinstance(column, str)]
    return dict(zip(names, row, strict=False)) if len(names) == len(columns) else row


def _nearest(column: Column, known: object) -> str:
    names = [str(name) for name in known] if isinstance(known, Sequence | Mapping) else []
    close = difflib.get_close_matches(str(column), names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _guess_encoding(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "LATIN1"
    return "GB18030" if any("\u4e00" <= character <= "\u9fff" for character in text) else "LATIN1"
