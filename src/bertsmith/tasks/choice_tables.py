"""Texts with a question and choices: from a table with columns, or from JSON in the layout of DREAM (Sun et al. 2019).

[[[turn, ...], [{"question": ..., "choice": [...], "answer": ...}, ...], id], ...]
"""

import json
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertsmith.errors import DataError
from bertsmith.tasks.records import Column, Place, collect, located, read_records, read_text, suffix_of
from bertsmith.tasks.rows import ChoiceRow


def read_choice_rows(
    source: object,
    *,
    text_column: Column = "text",
    question_column: Column = "question",
    choice_columns: Sequence[Column] = ("choices",),
    label_column: Column = "label",
    header: bool = True,
    require_labels: bool = True,
) -> list[ChoiceRow]:
    """Read questions, each with as many choices as it has, at least two.

    The question may be left out of the table; `label` is the right choice's number from 0, its letter from A, or its
    text. In JSON, `line` is the question's number in the file, from 1.
    """
    if isinstance(source, str | Path) and suffix_of(source) == ".json":
        path = located(source)
        place = Place(path)
        return collect(
            enumerate(_dream(path), start=1),
            lambda found: _row(*found[1], place, found[0], require_labels=require_labels),
        )
    wanted = (text_column, question_column, *choice_columns, label_column)
    records = read_records(source, header=header, columns=wanted)
    columns = [
        records.values(text_column),
        records.values(question_column, optional=True),
        records.values(label_column, optional=not require_labels),
        *(records.values(column) for column in choice_columns),
    ]

    def row(found: Sequence[tuple[int, object]]) -> ChoiceRow:
        (line, text), (_, question), (_, label), *listed = found
        own: object = [choice for _, choice in listed] if len(choice_columns) > 1 else listed[0][1]
        return _row(text, question, own, label, records.place, line, require_labels=require_labels)

    return collect(zip(*columns, strict=True), row)


def _row(
    text: object, question: object, choices: object, label: object, place: Place, line: int, *, require_labels: bool
) -> ChoiceRow:
    if not isinstance(text, str) or (require_labels and not text.strip()):
        raise place.error("the text is missing or empty; remove the row or fill it in", line)
    if question is not None and not isinstance(question, str):
        raise place.error(f"the question is {type(question).__name__}; expected text", line)
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise place.error(f"the choices are {type(choices).__name__}; expected a list of texts", line)
    if len(choices) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise place.error(f"{len(choices)} choices, or an empty one; expected at least two texts", line)
    number = _number(label, choices, place, line)
    if number is None and require_labels:
        raise place.error("the right choice is missing; remove the row or fill it in", line)
    return ChoiceRow(text, question or None, tuple(choices), number, line)


def _number(label: object, choices: Sequence[str], place: Place, line: int) -> int | None:
    """The right choice's number, from its number, text or letter."""
    if label is None or (isinstance(label, str) and not label.strip()):
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    text = str(label).strip()
    if text in choices:
        if choices.count(text) > 1:
            raise place.error(f"choice {text!r}, the right one, is there {choices.count(text)} times", line)
        return choices.index(text)
    if text.isascii() and text.isdigit():
        number = int(text)
    elif len(text) == 1 and text.upper() in string.ascii_uppercase:
        number = string.ascii_uppercase.index(text.upper())
    else:
        number = len(choices)
    if number >= len(choices):
        raise place.error(
            f"{text[:40]!r} is none of the {len(choices)} choices, nor their number from 0 or letter from A", line
        )
    return number


def _dream(path: str | Path) -> Iterator[tuple[Any, Any, Any, Any]]:
    try:
        entries = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", path=path) from error
    layout = "expected [[[turn, ...], [{question, choice, answer}, ...], id], ...]"
    if not isinstance(entries, list) or not entries:
        raise DataError(f"holds no list of texts; {layout}", path=path)
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, list) or len(entry) < 2 or not all(isinstance(part, list) for part in entry[:2]):
            raise DataError(f"text {number} is no [turns, questions, id]; {layout}", path=path)
        turns, questions = entry[:2]
        for asked in questions:
            if not isinstance(asked, dict) or not {"question", "choice"} <= asked.keys():
                raise DataError(f"text {number} has no question and choice; {layout}", path=path)
            yield "\n".join(map(str, turns)), asked["question"], asked["choice"], asked.get("answer")
