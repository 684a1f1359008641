"""The one reader of labelled data: sentences with a label or a number, and sentences with a label on each word.

    classify   .tsv .txt .csv .jsonl .parquet, DataFrame, Arrow table, list of dicts or of (text, label); of pairs,
               (text, second text, label)
    multilabel the same with labels: a list, text with separators, or columns of 0 and 1
    regress    the same with a number for a label
    words      the same without labels (masked-word, language-model); a .txt is a text a line
    tag        CoNLL (word first, tag last, blank line between sentences), or tables with lists of words and of labels

Labels are text from here on; a whole number becomes its digits. Whatever is wrong is a `DataError` with file and line.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bertsmith.errors import DataError
from bertsmith.tasks.records import (
    Column,
    FoundT,
    Place,
    Records,
    collect,
    find_data_file,
    numbered_lines,
    read_records,
    read_text,
    together,
)
from bertsmith.tasks.rows import ClassesRow, ClassRow, RatedRow, TaggedRow, TextRow, labels_of

_TABLE_SUFFIXES = (".jsonl", ".parquet", ".csv")


LabelT = TypeVar("LabelT")
_NO_CLASS = 'is a measure, not a class; use task = "regress", or name the classes: labels = [...]'
Labels = tuple[str, ...]


def read_text_rows(
    source: object,
    *,
    text_column: Column = "text",
    label_column: Column = "label",
    pair_column: Column | None = None,
    header: bool = True,
    label_names: str | Path | None = None,
    require_labels: bool = True,
) -> list[ClassRow]:
    """Read a table of texts, or pairs of them, with a class each.

    Columns are names, or numbers from 0. TSV has no quoting (CoLA's text is full of quotes), CSV has. With
    `label_names`, a file with a name a line, the table holds line numbers from 0. Without `require_labels` (as for
    prediction) a label that is not there is None and an empty text is let through.
    """
    names = read_label_names(label_names) if label_names is not None else None

    def label(value: object, place: Place, line: int) -> str | None:
        return class_cell(value, names, place, line, required=require_labels)

    columns = (text_column,) if pair_column is None else (text_column, pair_column)
    return _read_texts(source, columns, label_column, label, header=header, require_labels=require_labels)


def read_plain_rows(source: object, *, text_column: Column = "text", header: bool = True) -> list[TextRow[None]]:
    """Texts alone: the lines of a .txt that are not blank, or a table's text column."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() == ".txt":
        lines = numbered_lines(read_text(find_data_file(source)))
        return [TextRow(text.strip(), None, line) for line, text in lines if text.strip()]
    records = read_records(source, header=header, columns=(text_column,))

    def row(found: tuple[int, object]) -> TextRow[None]:
        line, text = found
        return TextRow(text_cell(text, text_column, records.place, line, required=True), None, line)

    return collect(records.values(text_column), row)


def read_rated_rows(
    source: object,
    *,
    text_column: Column = "text",
    label_column: Column = "label",
    pair_column: Column | None = None,
    header: bool = True,
    require_labels: bool = True,
) -> list[RatedRow]:
    """The same with a finite number each."""

    def number(value: object, place: Place, line: int) -> float | None:
        return number_cell(value, place, line, required=require_labels)

    columns = (text_column,) if pair_column is None else (text_column, pair_column)
    return _read_texts(source, columns, label_column, number, header=header, require_labels=require_labels)


def read_multilabel_rows(
    source: object,
    *,
    text_column: Column = "text",
    label_column: Column = "label",
    label_columns: Sequence[Column] = (),
    label_separator: str = ",",
    pair_column: Column | None = None,
    header: bool = True,
    label_names: str | Path | None = None,
    require_labels: bool = True,
) -> list[ClassesRow]:
    """The same with any number of classes each: a list, text with `label_separator` between them (empty: none), or,
    with `label_columns`, a column for each, 1 (or true) where the row has it and 0 (or false) where not.
    """
    texts = (text_column,) if pair_column is None else (text_column, pair_column)
    names = read_label_names(label_names) if label_names is not None else None

    def listed(value: object, place: Place, line: int) -> Labels | None:
        if isinstance(value, str):
            value = [part for part in value.split(label_separator) if part.strip()]
        if value is None and not require_labels:
            return None
        if not isinstance(value, Sequence):
            raise place.error(f"column {label_column!r} is {kind_of(value)}; expected labels", line)
        found = [str(class_cell(part, names, place, line, required=True)) for part in value]
        if doubled := [label for label, times in Counter(found).items() if times > 1]:
            raise place.error(f"label {doubled[0]!r} is there twice", line)
        return tuple(found)

    if not label_columns:
        return _read_texts(source, texts, label_column, listed, header=header, require_labels=require_labels)
    records = read_records(source, header=header, columns=(*texts, *label_columns))

    def marked(values: Sequence[object], place: Place, line: int) -> Labels | None:
        marks = [
            _mark(value, column, place, line, required=require_labels)
            for column, value in zip(label_columns, values, strict=True)
        ]
        return None if None in marks else tuple(str(c) for c, mark in zip(label_columns, marks, strict=True) if mark)

    found = zip(*(records.values(column, optional=not require_labels) for column in label_columns), strict=True)
    values = ((columns[0][0], [value for _, value in columns]) for columns in found)
    return _text_rows(records, texts, values, marked, require_labels=require_labels)


def _read_texts(
    source: object,
    text_columns: Sequence[Column],
    label_column: Column,
    label_of: Callable[[object, Place, int], LabelT | None],
    *,
    header: bool,
    require_labels: bool,
) -> list[TextRow[LabelT]]:
    records = read_records(source, header=header, columns=(*text_columns, label_column))
    labels = records.values(label_column, optional=not require_labels)
    return _text_rows(records, text_columns, labels, label_of, require_labels=require_labels)


def _text_rows(
    records: Records,
    text_columns: Sequence[Column],
    labels: Iterable[tuple[int, FoundT]],
    label_of: Callable[[FoundT, Place, int], LabelT | None],
    *,
    require_labels: bool,
) -> list[TextRow[LabelT]]:
    """labels: (line, what the row has for a label), one a row."""

    def row(found: tuple[tuple[tuple[int, object], ...], tuple[int, FoundT]]) -> TextRow[LabelT]:
        texts, (line, label) = found
        first, *second = (
            text_cell(text, column, records.place, line, required=require_labels)
            for (_, text), column in zip(texts, text_columns, strict=True)
        )
        return TextRow(first, label_of(label, records.place, line), line, *second)

    return collect(zip(zip(*map(records.values, text_columns), strict=True), labels, strict=True), row)


def read_label_names(path: str | Path) -> tuple[str, ...]:
    """Class names, one a line; the line's number from 0 is the label in the table."""
    path = find_data_file(path)
    lines = [(number, line.strip()) for number, line in numbered_lines(read_text(path))]
    while lines and not lines[-1][1]:
        lines.pop()
    seen: set[str] = set()
    for number, name in lines:
        if not name or name in seen:
            problem = f"name {name!r} appears twice" if name else "an empty line among the names"
            raise DataError(f"{problem}; expected one different name a line", path=path, line=number)
        seen.add(name)
    return tuple(name for _, name in lines)


def class_names(
    rows: Iterable[Any], *, where: str | Path | None = None, declared: Sequence[str] = ()
) -> tuple[str, ...]:
    """The labels to learn, in order: `declared`, or those of the training rows, sorted (whole numbers by value).

    Raises `DataError` where the rows have fewer than two labels, or one that was not declared, or where all labels are
    numbers and some have fractions.
    """
    rows = list(rows)
    seen = {label for row in rows for label in labels_of(row)}
    if declared:
        check_labels(rows, declared, where=where)
    if len(seen) < 2:
        found = f"only the label {next(iter(seen))!r}" if seen else "no labels"
        raise DataError(
            f"{len(rows)} rows with {found}; a model needs at least two classes to tell apart: "
            "check the label column and the file",
            path=where,
        )
    if declared:
        return tuple(declared)
    if all(map(_is_measure, seen)) and not all(float(label).is_integer() for label in seen):
        place = Place(where)
        odd = ((row.line, label) for row in rows for label in labels_of(row) if not float(label).is_integer())
        raise together([place.error(f"label {label} {_NO_CLASS}", line) for line, label in odd])
    return in_order(seen)


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorted, whole numbers by value."""
    return tuple(sorted(labels, key=lambda label: (0, int(label), label) if _is_number(label) else (1, 0, label)))


def check_labels(rows: Iterable[Any], names: Sequence[str], *, where: str | Path | None = None) -> None:
    """Raise `DataError` for rows with a label that is not among `names`."""
    known = set(names)
    place = Place(where)
    wrong = []
    for row in rows:
        for offset, label in enumerate(labels_of(row)):
            if label not in known:
                line = row.line + (offset if isinstance(row, TaggedRow) and place.path is not None else 0)
                problem = f"unknown label {label!r}; the model knows: {_listed(names)}"
                advice = "remove the row, give training rows with this label, or name it in labels"
                wrong.append(place.error(f"{problem}; {advice}", line))
    if wrong:
        raise together(wrong)


def text_cell(value: object, column: Column, place: Place, line: int, *, required: bool) -> str:
    """A text as a table has it; `DataError` for what is none or, where it is required, empty."""
    if not isinstance(value, str):
        raise place.error(f"the text in column {column!r} is {kind_of(value)}; expected text", line)
    if required and not value.strip():
        raise place.error(f"the text in column {column!r} is empty; remove the row or fill it in", line)
    return value


def class_cell(value: object, names: Sequence[str] | None, place: Place, line: int, *, required: bool) -> str | None:
    """A label as text: names looked up by number, whole numbers as digits; None where it may be missing and is."""
    label = _as_label(value, place, line)
    if not label:
        if required:
            raise place.error("the label is missing; remove the row or fill it in", line)
        return None
    if names is None:
        return label
    if not _is_number(label) or int(label) >= len(names):
        raise place.error(f"unknown label {label!r}; expected a number from 0 to {len(names) - 1}", line)
    return names[int(label)]


def _mark(value: object, column: Column, place: Place, line: int, *, required: bool) -> bool | None:
    """Whether a row has the label of a column: 0 or 1, as number, text or bool."""
    if value is None and not required:
        return None
    text = str(value).strip().lower()
    if text in ("0", "0.0", "false"):
        return False
    if text in ("1", "1.0", "true"):
        return True
    raise place.error(f"column {column!r} is {kind_of(value)}; expected 0 or 1", line)


def number_cell(value: object, place: Place, line: int, *, required: bool) -> float | None:
    """A finite number as a table has it; `DataError` for what is none."""
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    if is_missing or (isinstance(value, str) and not value.strip()):
        if required:
            raise place.error("the number is missing; remove the row or fill it in", line)
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise place.error(f"the label is {kind_of(value)}; expected a number", line)
    try:
        found = float(value)
    except ValueError:
        raise place.error(f"label {str(value)[:40]!r} is no number, such as 3 or 4.5", line) from None
    if not math.isfinite(found):
        raise place.error(f"label {value} is not finite; remove the row or fill it in", line)
    return found


def _as_label(value: object, place: Place, line: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        if not value.is_integer():
            raise place.error(f'label {value} is a measure, not a class; use task = "regress", or make it text', line)
        value = int(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value).strip()
    raise place.error(f"the label is {kind_of(value)}; expected a name or a whole number", line)


def _is_measure(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()


def kind_of(value: object) -> str:
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
