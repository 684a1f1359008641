"""Documents in tables: a column of a CSV or TSV file, or of a Parquet file."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart, SourceFile
from bertsmith.corpus.plain_text import line_reader
from bertsmith.corpus.texts import document_of, id_of
from bertsmith.errors import DataError

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1024, 8_000_000


def read_csv(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The text column of each row; a row that holds it not is refused. Tabs part columns in a .tsv, else commas."""
    file = part.file
    csv.field_size_limit(min(sys.maxsize, source.max_document_bytes))
    lines = _Lines(line_reader(source).lines(part, counts))
    rows = csv.reader(lines, delimiter=source.delimiter or ("\t" if file.suffix == ".tsv" else ","), strict=True)
    try:
        header = next(rows, None) if source.header else None
        if source.header and header is None:
            return
        column = _column(source, header)
        for row in rows:
            if not row:
                continue
            try:
                if column >= len(row):
                    raise ValueError(f"the row has {len(row)} columns, none for {source.text_field!r}")
                document = document_of(row[column], source, counts, id=id_of(part, lines.number), name=file.name)
            except ValueError:
                if source.on_error != "skip":
                    raise
                counts["record that cannot be used"] += 1
                continue
            if document is not None:
                yield document
    except (csv.Error, ValueError) as error:
        raise DataError(f"cannot be read as CSV: {error}", path=file.path, line=lines.number) from error


class _Lines:
    """Lines as `csv` wants them, and the number of the last one given."""

    def __init__(self, numbered: Iterator[tuple[int, str]]):
        self._numbered = numbered
        self.number = 1

    def __iter__(self) -> Iterator[str]:
        for number, line in self._numbered:
            self.number = number
            yield line + "\n"


def _column(source: Source, header: list[str] | None) -> int:
    if header is None:
        if not source.text_field.isdecimal():
            raise ValueError(f"text_field {source.text_field!r} must be a column's number from 0, since header = false")
        return int(source.text_field)
    names = [name.strip() for name in header]
    if source.text_field not in names:
        raise ValueError(f"no column {source.text_field!r} (columns: {', '.join(names)}); set text_field")
    return names.index(source.text_field)


def row_group_borders(file: SourceFile, chunk_bytes: int) -> list[int]:
    """Row groups at which the parts of a Parquet file begin, each part about `chunk_bytes` unpacked."""
    with _parquet(file) as opened:
        sizes = [opened.metadata.row_group(number).total_byte_size for number in range(opened.num_row_groups)]
    borders, size = [0], 0
    for number, group in enumerate(sizes):
        if size and size + group > chunk_bytes:
            borders.append(number)
            size = 0
        size += group
    return borders


def read_parquet(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The text column of a range of row groups; rows without a value are counted."""
    path = part.file.path
    with _parquet(part.file) as opened:
        names = opened.schema_arrow.names
        if source.text_field not in names:
            raise DataError(f"no column {source.text_field!r} (columns: {', '.join(names)}); set text_field", path=path)
        kind = opened.schema_arrow.field(source.text_field).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise DataError(f"column {source.text_field!r} holds {kind}, not text; set text_field", path=path)
        last = opened.num_row_groups if part.end is None else part.end
        number = 0
        try:
            for group in range(part.start, last):
                rows = _rows_at_once(opened, group)
                for batch in opened.iter_batches(rows, row_groups=[group], columns=[source.text_field]):
                    for number, text in enumerate(batch.column(0).to_pylist(), number + 1):  # noqa: B020
                        id = id_of(part, number)
                        document = document_of(text, source, counts, id=id, name=part.file.name)
                        if document is not None:
                            yield document
        except (pa.ArrowException, OSError, ValueError) as error:
            place = f"row {number + 1:,} of row group {part.start} or after it"
            raise DataError(f"cannot be read at {place}: {error}", path=path) from error


def _rows_at_once(file: Any, group: int) -> int:
    """Rows of a row group that take some megabytes."""
    facts = file.metadata.row_group(group)
    row_bytes = facts.total_byte_size // max(1, facts.num_rows)
    return max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // max(1, int(row_bytes))))


class _parquet:  # noqa: N801  (used as a function)
    """A Parquet file, open; `DataError` where it is none."""

    def __init__(self, file: SourceFile):
        self.file = file

    def __enter__(self) -> Any:
        self.stored = self.file.open()
        try:
            self.opened = pq.ParquetFile(self.stored)
        except (pa.ArrowException, OSError) as error:
            self.stored.close()
            raise DataError(f"is no Parquet file, or a torn one: {error}", path=self.file.path) from error
        return self.opened

    def __exit__(self, *_: object) -> None:
        self.stored.close()
