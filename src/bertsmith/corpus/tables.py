"""Documents in tables: a column of a CSV or TSV file, or of a Parquet file."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart, SourceFile
from bertsmith.corpus.plain_text import id_of, unwrap
from bertsmith.errors import DataError

_ROWS_AT_ONCE = 1024


def read_csv(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The text column of each row; a row that holds it not is refused. Tabs part columns in a .tsv, else commas."""
    file = part.file
    csv.field_size_limit(min(sys.maxsize, source.max_document_bytes))
    errors = {"strict": "strict", "skip": "ignore", "replace": "replace"}[source.on_error]
    delimiter = source.delimiter or ("\t" if file.suffix == ".tsv" else ",")
    number = 0
    try:
        with (
            file.open_content() as content,
            io.TextIOWrapper(content, encoding=source.encoding, errors=errors, newline="") as text,
        ):
            rows = csv.reader(text, delimiter=delimiter, strict=True)
            column = _column(source, next(rows) if source.header else None)
            for row in rows:
                number = rows.line_num
                if not row:
                    continue
                if column >= len(row):
                    raise DataError(
                        f"the row has {len(row)} columns, none for {source.text_field!r}", path=file.path, line=number
                    )
                yield _document(source, part, number, row[column])
    except StopIteration:
        counts["empty file"] += 1
    except UnicodeDecodeError as error:
        raise DataError(
            f"not {source.encoding.upper()} (byte 0x{error.object[error.start]:02x}); set encoding, or on_error",
            path=file.path,
            line=number + 1,
        ) from error
    except (csv.Error, ValueError, OSError, EOFError) as error:
        raise DataError(f"cannot be read: {error}", path=file.path, line=number + 1) from error


def _column(source: Source, header: list[str] | None) -> int:
    if header is None:
        if not source.text_field.isdecimal():
            raise ValueError(f"text_field {source.text_field!r} must be a column's number from 0, since header = false")
        return int(source.text_field)
    names = [name.removeprefix("\ufeff").strip() for name in header]
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
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"column {source.text_field!r} holds {kind}, not text", path=path)
        groups = range(part.start, opened.num_row_groups if part.end is None else part.end)
        number = 0
        try:
            for batch in opened.iter_batches(_ROWS_AT_ONCE, row_groups=list(groups), columns=[source.text_field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if text is None:
                        counts["row without text"] += 1
                    else:
                        yield _document(source, part, number, text)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            place = f"row {number + 1} of row group {part.start}"
            raise DataError(f"cannot be read at {place} or after it: {error}", path=path) from error


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


def _document(source: Source, part: FilePart, number: int, text: str) -> RawDocument:
    text = "\n\n".join(unwrap(text.splitlines())) if source.unwrap else text
    return RawDocument(id_of(part, number), text, part.file.name)
