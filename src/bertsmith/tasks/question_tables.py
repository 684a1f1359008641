"""Questions on texts and the answers found in them: JSON in SQuAD's layout (versions 1 and 2; CMRC and XQuAD too), or a
table with columns question, context and answers, each `{"text": [...], "answer_start": [...]}` as `datasets` has them.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertsmith.errors import DataError
from bertsmith.tasks.records import Column, Place, collect, located, read_records, read_text, suffix_of
from bertsmith.tasks.rows import QuestionRow

_log = logging.getLogger("bertsmith.tasks")

_NAMED = 10
"""Wrong rows that an error names."""
_LAYOUT = 'expected SQuAD\'s layout: {"data": [{"paragraphs": [{"context": ..., "qas": [{"question": ...}]}]}]}'


def read_question_rows(
    source: object,
    *,
    question_column: Column = "question",
    text_column: Column = "context",
    answers_column: Column = "answers",
    header: bool = True,
    no_answer: bool = False,
    require_labels: bool = True,
) -> list[QuestionRow]:
    """Read questions; `line` is the question's number in a JSON file, from 1.

    no_answer: whether a question may have none in its text. An answer that does not stand at its place (answer_start)
    is looked for in the text: the nearest place is taken, with a warning; one that is nowhere counts for scores but
    cannot be learned from. Raises `DataError` naming the first ten questions of which no answer is in the text, or that
    have none where there must be one.
    """
    if isinstance(source, str | Path) and suffix_of(source) == ".json":
        path = located(source)
        place, rows = Place(path), list(_squad(path))
    else:
        records = read_records(source, header=header, columns=(question_column, text_column, answers_column))
        place = records.place
        columns = (
            records.values(question_column),
            records.values(text_column),
            records.values(answers_column, optional=not require_labels),
        )

        def row(found: Sequence[tuple[int, object]]) -> QuestionRow:
            (line, question), (_, text), (_, answers) = found
            asked, told = _text(question, "question", place, line), _text(text, "text", place, line)
            return QuestionRow(asked, told, _answers_of_columns(answers, place, line), line)

        rows = collect(zip(*columns, strict=True), row)
    if not rows:
        raise place.error("no questions; expected at least one")
    if require_labels:
        rows = _with_places(rows, place)
        _check(rows, place, no_answer=no_answer)
    return rows


def _with_places(rows: Sequence[QuestionRow], place: Place) -> list[QuestionRow]:
    """Each answer where it truly stands."""
    found = [
        row
        if row.answers is None
        else replace(row, answers=tuple((text, _place(row, text, at)) for text, at in row.answers))
        for row in rows
    ]
    if moved := [row for row, before in zip(found, rows, strict=True) if row.answers != before.answers]:
        _log.warning(
            "%s%d questions have an answer that does not stand at its place (answer_start), and are read with the "
            "nearest place in the text, if any: %s",
            "" if place.path is None else f"{place.path}: ",
            len(moved),
            _numbers(moved),
        )
    return found


def _place(row: QuestionRow, answer: str, start: int) -> int:
    """Where the answer stands in the text nearest to `start`; -1: nowhere."""
    if not answer.strip():
        return -1
    if start >= 0 and row.text.startswith(answer, start):
        return start
    places = (found.start() for found in re.finditer(re.escape(answer), row.text))
    return min(places, key=lambda place: abs(place - start), default=-1)


def _check(rows: Sequence[QuestionRow], place: Place, *, no_answer: bool) -> None:
    unmarked = [row for row in rows if row.answers is None]
    _refuse(unmarked, place, "without answers; every question needs them to be learned from or scored")
    empty = [row for row in rows if not row.answers]
    if not no_answer:
        _refuse(empty, place, "whose text holds no answer; set finetune.no_answer = true where that may be")
    lost = [row for row in rows if row.answers and all(start < 0 for _, start in row.answers)]
    _refuse(lost, place, "whose answer is not in the text; mend or remove them")


def _refuse(rows: Sequence[QuestionRow], place: Place, problem: str) -> None:
    if rows:
        raise place.error(f"{len(rows):,} questions {problem}: {_numbers(rows)}")


def _numbers(rows: Sequence[QuestionRow]) -> str:
    """The first ten rows, and how many more."""
    named = ", ".join(f"{row.line}{f' ({row.key})' if row.key else ''}" for row in rows[:_NAMED])
    return f"number {named}" + (f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else "")


def _squad(path: str | Path) -> Iterator[QuestionRow]:
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", path=path) from error
    asked = [
        (article, paragraph, question)
        for article in _list(found, "data", path)
        for paragraph in _list(article, "paragraphs", path)
        for question in _list(paragraph, "qas", path)
    ]
    place = Place(path)
    yield from collect(enumerate(asked, start=1), lambda one: _question(*one[1], place, one[0]))


def _question(
    article: Mapping[str, Any], paragraph: Mapping[str, Any], asked: Mapping[str, Any], place: Place, number: int
) -> QuestionRow:
    text = _text(paragraph.get("context"), "context", place, number)
    question = _text(asked.get("question"), "question", place, number)
    answers: tuple[tuple[str, int], ...] | None = None
    if asked.get("is_impossible"):
        answers = ()
    elif "answers" in asked:
        answers = tuple(_answer(answer, place, number) for answer in _list(asked, "answers", place.path))
    title = article.get("title")
    source = title if isinstance(title, str) else None
    return QuestionRow(question, text, answers, number, str(asked.get("id", "")), source)


def _list(holder: object, key: str, path: str | Path | None) -> list[dict[str, Any]]:
    found = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise DataError(f"no list {key!r} where there should be one; {_LAYOUT}", path=path)
    return found


def _answer(answer: Mapping[str, Any], place: Place, number: int) -> tuple[str, int]:
    text, start = answer.get("text"), answer.get("answer_start")
    if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
        raise _wrong(place, number, "an answer needs text and a whole number answer_start")
    return text, start


def _answers_of_columns(found: object, place: Place, line: int) -> tuple[tuple[str, int], ...] | None:
    """`{"text": [...], "answer_start": [...]}`, or a list of `{"text": ..., "answer_start": ...}`."""
    if found is None:
        return None
    if isinstance(found, Mapping) and {"text", "answer_start"} <= found.keys():
        texts, starts = found["text"], found["answer_start"]
        texts, starts = ([texts], [starts]) if isinstance(texts, str) else (texts, starts)
        if not isinstance(texts, list | tuple) or not isinstance(starts, list | tuple):
            raise place.error('answers are not {"text": [...], "answer_start": [...]}', line)
        if len(texts) != len(starts):
            raise place.error(f"{len(texts)} answers but {len(starts)} starts; expected as many", line)
        found = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if isinstance(found, str) or not isinstance(found, Sequence) or not all(isinstance(one, Mapping) for one in found):
        raise place.error('answers are not {"text": [...], "answer_start": [...]}', line)
    return tuple(_answer(one, place, line) for one in found)


def _text(value: object, what: str, place: Place, line: int) -> str:
    """An empty question is let through, as CMRC 2018 has them: the text alone is read."""
    if not isinstance(value, str) or (what != "question" and not value.strip()):
        raise _wrong(place, line, f"the {what} is missing or empty")
    return value


def _wrong(place: Place, number: int, problem: str) -> DataError:
    """Of a question, which has a number and, in JSON, no line."""
    error = place.error(f"question {number}: {problem}")
    error.line = number
    return error
