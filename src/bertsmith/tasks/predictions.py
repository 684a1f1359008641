"""predictions-SPLIT.jsonl read back: labelled rows and what a model answered."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.errors import DataError
from bertsmith.tasks.base import Labels, Task
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.records import numbered_lines, read_text


@dataclass(frozen=True)
class Predictions:
    """Labelled rows of one split and an answer to each."""

    task: Task[Any, Any]
    rows: Sequence[Any]
    answers: Sequence[Any]

    @property
    def labels(self) -> Labels:
        """The classes that rows or answers name, sorted."""
        return _labels(self.task, self.rows, self.answers)


def read_predictions(path: Path, *, task_name: str | None = None) -> Predictions:
    """Every line of a file that `finetune` or `predict` wrote, by default of the task that its fields tell.

    Raises `DataError` with the line that has no label, or is none of the task's.
    """
    task = TASKS.get(task_name or "")
    found = []
    for line, text in numbered_lines(read_text(path)):
        if not text:
            continue
        try:
            record = json.loads(text)
            task = task or task_of(record)
            if task is None:
                raise ValueError("it is no answer of a task")
            found.append(task.of_record(record))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            problem = f"not a labelled row with its prediction ({what}); expected what finetune or predict writes"
            raise DataError(problem, path=path, line=line) from error
    assert task is not None, "a file with a line"
    return Predictions(task, [row for row, _ in found], [answer for _, answer in found])


def sound_predictions(records: Iterable[Mapping[str, Any]], *, task_name: str | None = None) -> Predictions | None:
    """The same of records, passing over those that are not sound, as a torn file may have them; None without any."""
    task = TASKS.get(task_name or "")
    found = []
    for record in records:
        task = task or task_of(record)
        try:
            if task is not None:
                found.append(task.of_record(record))
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
    if task is None or not found:
        return None
    return Predictions(task, [row for row, _ in found], [answer for _, answer in found])


def task_of(record: Mapping[str, Any]) -> Task[Any, Any] | None:
    """The task whose answer a record is, by its fields."""
    if not isinstance(record, Mapping):
        return None
    prediction = record.get("prediction")
    if "words" in record:
        name = "tag"
    elif "choices" in record:
        name = "choose"
    elif "start" in record:
        name = "answer"
    elif "predictions" in record:
        name = "multilabel"
    elif isinstance(prediction, str):
        name = "classify"
    elif isinstance(prediction, int | float):
        name = "regress"
    else:
        return None
    return TASKS[name]


def _labels(task: Task[Any, Any], rows: Sequence[Any], answers: Sequence[Any]) -> Labels:
    names = {label for row in rows for label in task.labels_of(row)}
    names |= {label for answer in answers for label in task.predictions_of(answer)}
    for answer in answers:
        known = getattr(answer, "probabilities", None)
        names |= known.keys() if isinstance(known, Mapping) else set()
    return tuple(sorted(names))
