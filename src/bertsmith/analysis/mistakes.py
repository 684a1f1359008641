"""What a model got wrong, of any task: by label, the surest mistakes, and block by block in the order of the file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsmith.tasks.base import Task
from bertsmith.tasks.metrics import class_report, tag_report
from bertsmith.tasks.multilabel import Labelling
from bertsmith.tasks.predictions import Predictions
from bertsmith.tasks.regress import Rating
from bertsmith.tasks.tag import Tagging

BLOCK_ROWS = 32
"""Rows in a block, as in a batch of the usual CoLA tutorial; doubled until there are not too many blocks."""
MOST_BLOCKS = 130


@dataclass(frozen=True)
class Mistake:
    """A wrong answer."""

    size: float
    """The probability that the model gave it; of numbers, how far off it is."""
    row: int
    line: int
    """In the file."""
    label: str
    prediction: str
    text: str
    words: tuple[str, ...] = ()
    word: int = 0
    """Which of `words` is tagged wrongly."""


@dataclass(frozen=True)
class LabelScore:
    """One class, entity type, or label against all else."""

    label: str
    precision: float
    recall: float
    f1: float
    truly: int
    """How often it truly is there."""
    cells: tuple[int, int, int, int] | None = None
    """Where each row is a yes or a no: rows given it rightly, given it wrongly, that miss it, and all others."""


@dataclass(frozen=True)
class Blocks:
    """Scores of rows as they follow one another in the file."""

    metric: str
    rows: int
    """In each block but the last."""
    total: int
    scores: tuple[float, ...]
    whole: float
    """The score of all rows together."""


def confusion(predictions: Predictions) -> Counter[tuple[str, str]]:
    """(true, predicted) class -> rows, or words; empty where answers are not one class each."""
    task = predictions.task
    counts: Counter[tuple[str, str]] = Counter()
    for row, answer in _pairs(predictions):
        label, guess = task.labels_of(row), task.predictions_of(answer)
        if isinstance(answer, Labelling) or len(label) != len(guess):
            return Counter()
        counts.update(zip(label, guess, strict=True))
    return counts


def label_scores(predictions: Predictions) -> tuple[LabelScore, ...]:
    """A line for each class, entity type or label; none for tasks without."""
    rows, answers = predictions.rows, predictions.answers
    if isinstance(answers[0], Labelling):
        return tuple(_yes_or_no(label, predictions) for label in predictions.labels)
    if isinstance(answers[0], Tagging):
        report = tag_report([row.labels for row in rows], [answer.tags for answer in answers], predictions.labels)
    elif confusion(predictions):
        truth = [predictions.task.labels_of(row)[0] for row in rows]
        guesses = [predictions.task.predictions_of(answer)[0] for answer in answers]
        report = class_report(truth, guesses, predictions.labels)
    else:
        return ()
    return tuple(
        LabelScore(label, found["precision"], found["recall"], found["f1"], round(found["support"]))
        for label, found in report.items()
    )


def surest_mistakes(predictions: Predictions, most: int) -> tuple[Mistake, ...]:
    """The wrong answers with the largest probability, or the numbers that are furthest off; of equals the first."""
    found = sorted(_mistakes(predictions), key=lambda mistake: (-mistake.size, mistake.row, mistake.word))
    return tuple(found[:most])


def have_mistakes(predictions: Predictions) -> bool:
    """Whether an answer of this task can be wrong, or a number off; vectors are only near or far."""
    return predictions.task.gives_probabilities or isinstance(predictions.answers[0], Rating)


def blocks(predictions: Predictions, metric: str) -> Blocks:
    """The metric on each `BLOCK_ROWS` rows, or on more where there would be more than `MOST_BLOCKS` blocks."""
    task, labels, total = predictions.task, predictions.labels, len(predictions.rows)
    size = BLOCK_ROWS
    while total > size * MOST_BLOCKS:
        size *= 2

    def score(start: int, end: int) -> float:
        with np.errstate(all="ignore"):
            found = task.statistics(predictions.rows[start:end], predictions.answers[start:end], labels)[metric].value
        return found if np.isfinite(found) else 0.0

    scores = tuple(score(start, start + size) for start in range(0, total, size))
    return Blocks(metric, size, total, scores, score(0, total))


def _pairs(predictions: Predictions) -> Iterator[tuple[Any, Any]]:
    return zip(predictions.rows, predictions.answers, strict=True)


def _mistakes(predictions: Predictions) -> Iterator[Mistake]:
    task = predictions.task
    if predictions.answers and isinstance(predictions.answers[0], Tagging):
        yield from _wrong_words(predictions)
        return
    right, decisions = task.right(predictions.rows, predictions.answers), None
    if right is not None and not isinstance(predictions.answers[0], Labelling):
        decisions = task.decisions(predictions.rows, predictions.answers)
    for number, (row, answer) in enumerate(_pairs(predictions)):
        if isinstance(answer, Labelling):
            yield from _wrong_labels(task, number, row, answer)
        elif isinstance(answer, Rating):
            yield Mistake(abs(answer.value - row.label), number, row.line, *task.told(row, answer), task.text_of(row))
        elif right is not None and decisions is not None and not right[number]:
            sure = float(decisions.confidence[number])
            yield Mistake(sure, number, row.line, *task.told(row, answer), task.text_of(row))


def _wrong_words(predictions: Predictions) -> Iterator[Mistake]:
    for number, (row, answer) in enumerate(_pairs(predictions)):
        for word, (label, guess) in enumerate(zip(row.labels, answer.tags, strict=True)):
            if label != guess:
                yield Mistake(answer.confidence[word], number, row.line, label, guess, row.words[word], row.words, word)


def _wrong_labels(task: Task[Any, Any], number: int, row: Any, answer: Labelling) -> Iterator[Mistake]:
    for label, share in answer.probabilities.items():
        there, given = label in row.label, label in answer.labels
        if there != given:
            told = (label, f"not {label}") if there else (f"not {label}", label)
            yield Mistake(max(share, 1 - share), number, row.line, *told, task.text_of(row))


def _yes_or_no(label: str, predictions: Predictions) -> LabelScore:
    there = np.array([label in row.label for row in predictions.rows])
    given = np.array([label in answer.labels for answer in predictions.answers])
    right, truly, told = int((there & given).sum()), int(there.sum()), int(given.sum())
    cells = (right, told - right, truly - right, len(there) - truly - told + right)
    precision, recall, f1 = right / max(1, told), right / max(1, truly), 2 * right / max(1, told + truly)
    return LabelScore(label, precision, recall, f1, truly, cells)
