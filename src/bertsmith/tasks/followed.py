"""A fixed set of validation rows, followed over the evaluations: which are learned, forgotten, never right."""

from collections.abc import Sequence
from typing import Any

from bertsmith.tasks.base import Task

MOST_ROWS = 200
FILE = "followed.jsonl"
LONGEST = 300
"""Characters of a text that are kept."""


def followed_rows(count: int) -> list[int]:
    """Numbers of at most `MOST_ROWS` of the rows, evenly spread."""
    if count <= MOST_ROWS:
        return list(range(count))
    return [i * (count - 1) // (MOST_ROWS - 1) for i in range(MOST_ROWS)]


def followed_texts(task: Task[Any, Any], rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Lines of followed.jsonl: what the numbers in an evaluation's `followed` stand for."""
    return [
        {"row": number, "line": rows[number].line, "text": _cut(task.text_of(rows[number]))}
        for number in followed_rows(len(rows))
    ]


def followed(task: Task[Any, Any], rows: Sequence[Any], answers: Sequence[Any]) -> list[tuple[int, bool, str, str]]:
    """For an evaluation: number, is it right, label and answer of each row; none where answers are only near."""
    chosen = followed_rows(len(rows))
    some, given = [rows[i] for i in chosen], [answers[i] for i in chosen]
    right = task.right(some, given) if some else None
    if right is None:
        return []
    told = [task.told(row, answer) for row, answer in zip(some, given, strict=True)]
    return [
        (number, bool(is_right), _cut(label), _cut(said))
        for number, is_right, (label, said) in zip(chosen, right, told, strict=True)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
