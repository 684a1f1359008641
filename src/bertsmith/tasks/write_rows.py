"""Labelled rows and their copies to a table that can be read again, with the row that each came from.

    .jsonl    an object a line: the text (and pair) and label, or words and labels; row; method
    .csv      the same as columns; several labels of a row with the separator between them
    .conll    a word a line: word, row, method, tag, with tabs between them

`row` is the line that the original begins at, `method` how a copy was made; an original has "original".
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_text
from bertsmith.errors import UsageError
from bertsmith.tasks.augment import Copy
from bertsmith.tasks.base import Columns
from bertsmith.tasks.rows import TaggedRow

ORIGINAL = "original"


def check_suffix(path: Path, *, tagged: bool) -> None:
    """Raise `UsageError` for a kind of file that cannot hold such rows."""
    allowed = (".jsonl", ".conll") if tagged else (".jsonl", ".csv")
    if path.suffix.lower() not in allowed:
        kind = "tagged words" if tagged else "texts with labels"
        raise UsageError(f"--out {path}: {kind} are written to {' or '.join(allowed)}")


def write_copies(path: Path, rows: Sequence[Any], copies: Sequence[Copy], columns: Columns) -> None:
    """All rows and then all copies, whole or not at all."""
    suffix = path.suffix.lower()
    origin = [(row, row, ORIGINAL) for row in rows] + [(copy.row, rows[copy.source], copy.method) for copy in copies]
    if suffix == ".conll":
        write_text(path, "\n".join(_conll(row, source.line, method) for row, source, method in origin))
        return
    records = [_fields(row, columns) | {"row": source.line, "method": method} for row, source, method in origin]
    if suffix == ".jsonl":
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _cell(value, columns.label_separator) for name, value in record.items()})
    write_text(path, text.getvalue())


def _fields(row: Any, columns: Columns) -> dict[str, Any]:
    if isinstance(row, TaggedRow):
        return {"words": row.words, "labels": row.labels}
    pair = {} if row.pair is None else {_name(columns.pair, "pair"): row.pair}
    return {_name(columns.text, "text"): row.text, **pair, _name(columns.label, "label"): row.label}


def _name(column: str | int | None, usual: str) -> str:
    return column if isinstance(column, str) else usual


def _cell(value: Any, separator: str) -> Any:
    return separator.join(value) if isinstance(value, tuple) else value


def _conll(row: TaggedRow, line: int, method: str) -> str:
    pairs = zip(row.words, row.labels or (), strict=True)
    return "".join(f"{word}\t{line}\t{method}\t{tag}\n" for word, tag in pairs)
