"""Lines that come in while they are answered: texts, or JSON objects, from a pipe or a terminal."""

import json
import os
import select
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bertsmith.errors import DataError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.predict import ROWS_AT_ONCE, Predictor, records_of
from bertsmith.tasks.records import Place, Records, collect

_BYTES_AT_ONCE = 1 << 16
_PLACE = Place(name="standard input")

Line = tuple[int, str]
"""Its number, from 1, and its text."""


def lines_as_they_come(descriptor: int, *, most: int = ROWS_AT_ONCE) -> Iterator[list[Line]]:
    """Whole lines of a file descriptor, in groups: it waits for the first of a group, and takes with it what is there
    already, at least `most` of them where so many are; empty lines are left out.

    Raises `DataError` for a line that is not UTF-8.
    """
    rest, number, is_open = b"", 0, True
    while is_open:
        parts, held = [rest], rest.count(b"\n")
        while is_open and held < most and (not held or select.select([descriptor], [], [], 0)[0]):
            found = os.read(descriptor, _BYTES_AT_ONCE)
            is_open = bool(found)
            parts.append(found)
            held += found.count(b"\n")
        *whole, rest = b"".join(parts).split(b"\n")
        if not is_open and rest:
            whole.append(rest)
        lines = [(line, _decoded(text, line)) for line, text in enumerate(whole, start=number + 1)]
        number += len(whole)
        if group := [(line, text) for line, text in lines if text.strip()]:
            yield group


def predict_lines(predictor: Predictor, descriptor: int, *, columns: Columns | None = None) -> Iterator[dict[str, Any]]:
    """Yield a record a line, as `predict` does, as soon as it is answered.

    Where the first line is a JSON object all are, with the columns of the tables that the model was fine-tuned on, or
    `columns`; else each is a text. Raises `DataError` naming the line.
    """
    columns = _named(replace(columns or predictor.columns, label_names=None))
    is_json: bool | None = None
    count = 0
    for lines in lines_as_they_come(descriptor):
        if is_json is None:
            is_json = _object(lines[0][1]) is not None
        if is_json:
            records = Records(_PLACE, None, collect(lines, _fields))
            rows = predictor.task.read(records, columns, require_labels=False)
        else:
            rows = collect(lines, lambda line: _row(predictor, line))
        yield from records_of(predictor, predictor.stream(rows), first=count)
        count += len(rows)


def _row(predictor: Predictor, line: Line) -> Any:
    number, text = line
    found = predictor.task.row(text, number)
    if found is None:
        raise _PLACE.error(f"a text, but this model takes {predictor.task.expected}: give a JSON object a line", number)
    return found


def _fields(line: Line) -> tuple[int, Mapping[str, object]]:
    number, text = line
    found = _object(text)
    if found is None:
        raise _PLACE.error(f"{text[:40]!r} is no JSON object, as the first line is", number)
    return number, found


def _object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _named(columns: Columns) -> Columns:
    """JSON has no column numbers: of tables without a header, the usual names."""
    usual = Columns(pair="pair")
    names = {
        name: getattr(usual, name) for name in ("text", "pair", "question") if isinstance(getattr(columns, name), int)
    }
    return replace(columns, **names)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: line {number}: byte 0x{line[error.start]:02x} is not UTF-8") from error
