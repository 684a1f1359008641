"""What is in a table that nobody has described: which columns hold texts and labels, and so which task it is for.

    a question, a text and answers, or SQuAD's JSON             answer
    a list of choices, or DREAM's JSON                          choose
    a list of words and one of labels, or CoNLL                 tag
    a list of labels, or labels with separators                 multilabel
    a number with many values                                   regress
    a column with few values                                    classify

The text is the column with the longest values; a second one nearly as long, and as varied, makes pairs.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertsmith.errors import DataError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.records import Records, find_data_file, read_records

_LOOKED_AT = 2_000
"""Rows; the kind of a column shows in fewer."""
_MOST_CLASSES = 200
_SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True)
class Guess:
    """A task for a table, and why."""

    task: str
    columns: Columns
    reasons: tuple[str, ...]
    """Sentences for a person who is to check the guess."""


@dataclass(frozen=True)
class _Column:
    name: str | int
    values: tuple[object, ...]

    @property
    def texts(self) -> list[str]:
        return [str(value) for value in self.values if value is not None and str(value).strip()]

    @property
    def mean_length(self) -> float:
        return statistics.fmean(map(len, self.texts)) if self.texts else 0.0

    @property
    def different(self) -> int:
        return len(set(self.texts))

    @property
    def are_lists(self) -> bool:
        return any(isinstance(value, list | tuple) for value in self.values)

    @property
    def are_numbers(self) -> bool:
        return bool(self.texts) and all(map(_is_number, self.texts))

    @property
    def are_fractions(self) -> bool:
        return self.are_numbers and any(not float(text).is_integer() for text in self.texts)


def guess(source: str | Path) -> Guess:
    """Look at a file of labelled rows. Raises `DataError` where no text, or no label, can be told."""
    path = find_data_file(source)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _guess_json(path)
    if suffix not in (".tsv", ".txt", ".csv", ".jsonl", ".parquet"):
        return Guess("tag", Columns(), (f"{path.name} is read as CoNLL: a word a line, its label last",))
    header = suffix not in (".tsv", ".txt", ".csv") or _has_header(path)
    records = read_records(path, header=header, columns=())
    columns = _columns(records)
    said = () if header else ("the first line looks like a row, so columns are numbers from 0",)
    found = _guess_lists(columns) or _guess_texts(columns, path)
    return Guess(found.task, replace(found.columns, header=header), (*said, *found.reasons))


def _guess_json(path: Path) -> Guess:
    start = path.read_text(encoding="utf-8-sig", errors="replace").lstrip()[:1]
    if start == "{":
        return Guess("answer", Columns(), ("JSON that begins with { is read in SQuAD's layout",))
    return Guess("choose", Columns(), ("JSON that begins with [ is read in DREAM's layout",))


def _guess_lists(columns: Sequence[_Column]) -> Guess | None:
    names = {str(column.name).lower(): column for column in columns}
    if {"question", "context", "answers"} <= names.keys():
        return Guess("answer", Columns(), ("it has columns question, context and answers",))
    lists = [column for column in columns if column.are_lists]
    texts = [column for column in columns if not column.are_lists and not column.are_numbers]
    if not lists:
        return None
    if len(lists) >= 2:
        words, labels = sorted(lists, key=lambda column: -column.different)[:2]
        found = Columns(text=words.name, label=labels.name)
        return Guess("tag", found, (f"{words.name!r} and {labels.name!r} are lists: words, and a label each",))
    (own,) = lists
    if not texts:
        raise DataError("one column of lists and no text; say which columns hold what, in a recipe")
    text = max(texts, key=lambda column: column.mean_length)
    others = [column for column in columns if column not in (own, text)]
    if "choice" in str(own.name).lower() or "option" in str(own.name).lower():
        question = next((column for column in others if "question" in str(column.name).lower()), None)
        label = next((column for column in reversed(others) if column is not question), None)
        if label is None:
            raise DataError(f"{own.name!r} holds choices, but no column says which is right")
        asked: dict[str, Any] = {} if question is None else {"question": question.name}
        found = Columns(text=text.name, choices=(own.name,), label=label.name, **asked)
        return Guess("choose", found, (f"{own.name!r} holds lists of choices, and {label.name!r} the right one",))
    found = Columns(text=text.name, label=own.name)
    return Guess("multilabel", found, (f"{own.name!r} holds lists of labels for the text in {text.name!r}",))


def _guess_texts(columns: Sequence[_Column], path: Path) -> Guess:
    texts = sorted((c for c in columns if not c.are_numbers), key=lambda column: -column.mean_length)
    if not texts:
        raise DataError("no column holds text; expected one beside the labels", path=path)
    text = texts[0]
    second = next((c for c in texts[1:] if _is_second(c, text)), None)
    rest = [column for column in columns if column not in (text, second) and column.texts]
    marks = [column for column in rest if set(column.texts) <= {"0", "1"}]
    text_column: dict[str, Any] = {"text": text.name} | ({} if second is None else {"pair": second.name})
    reasons = [f"{text.name!r} has the longest texts"]
    if second is not None:
        reasons.append(f"{second.name!r} is nearly as long and as varied: rows are pairs")
    if len(marks) >= 2:
        names = tuple(column.name for column in marks)
        reasons.append(f"{len(names)} columns hold nothing but 0 and 1: labels that a row has or has not")
        return Guess("multilabel", Columns(labels=names, **text_column), tuple(reasons))
    classes = [c for c in rest if _are_classes(c) and not c.are_fractions]
    measures = [c for c in rest if c.are_fractions]
    listed = next((c for c in rest if _separator(c)), None)
    if classes:
        label = min(classes, key=lambda c: ("label" not in str(c.name).lower(), c.different))
        if listed is not None and label is listed:
            separator = _separator(listed)
            reasons.append(f"{label.name!r} holds labels with {separator!r} between them")
            return Guess(
                "multilabel", Columns(label=label.name, label_separator=separator, **text_column), tuple(reasons)
            )
        reasons.append(f"{label.name!r} has {label.different} different values: classes")
        return Guess("classify", Columns(label=label.name, **text_column), tuple(reasons))
    if measures:
        label = measures[-1]
        reasons.append(f"{label.name!r} holds numbers with fractions: a measure")
        return Guess("regress", Columns(label=label.name, **text_column), tuple(reasons))
    raise DataError(
        f"no column beside {text.name!r} looks like a label: few different values, or numbers with fractions", path=path
    )


def _is_second(column: _Column, text: _Column) -> bool:
    """A text of its own: at least a third as long and as varied as the first, of several words or characters."""
    is_long = column.mean_length >= max(12.0, text.mean_length / 3)
    return is_long and 3 * column.different >= text.different and not _are_classes(column)


def _are_classes(column: _Column) -> bool:
    """Few values, each of which comes again."""
    rows = len(column.texts)
    return 1 < column.different <= _MOST_CLASSES and 5 * column.different <= 2 * rows


def _separator(column: _Column) -> str:
    """What stands between labels: a mark in some of the values, of whose parts there are few; none: ''."""
    for mark in _SEPARATORS:
        holding = [text for text in column.texts if mark in text]
        parts = Counter(part.strip() for text in column.texts for part in text.split(mark))
        if len(holding) >= 2 and len(parts) < column.different and all(len(part) < 40 for part in parts):
            return mark
    return ""


def _columns(records: Records) -> list[_Column]:
    rows = [fields for _, fields in records.rows[:_LOOKED_AT]]
    if records.columns is None and isinstance(rows[0], Mapping):
        names = list(dict.fromkeys(str(name) for fields in rows if isinstance(fields, Mapping) for name in fields))
        return [_Column(name, tuple(f.get(name) for f in rows if isinstance(f, Mapping))) for name in names]
    keys: Sequence[str | int] = range(len(rows[0])) if records.columns is None else records.columns
    tables = [fields for fields in rows if not isinstance(fields, Mapping)]
    return [_Column(key, tuple(fields[place] for fields in tables)) for place, key in enumerate(keys)]


def _has_header(path: Path) -> bool:
    """The first line names the columns: it has no number, no long text, and nothing that comes again below it."""
    records = read_records(path, header=False, columns=())
    lines = [
        [str(value) for value in fields] for _, fields in records.rows[:_LOOKED_AT] if not isinstance(fields, Mapping)
    ]
    first, rest = lines[0], lines[1:]
    if not rest or any(_is_number(cell) or not cell.strip() or len(cell) > 40 for cell in first):
        return False
    below = [{row[place] for row in rest} for place in range(len(first))]
    return len(set(first)) == len(first) and not any(cell in below[place] for place, cell in enumerate(first))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
