"""Scores of a fine-tuned model on labelled rows, each with its 95 % bootstrap interval."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.errors import UsageError
from bertsmith.model.weights import read_card
from bertsmith.runtime import Runtime
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.calibration import Calibration, calibration
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.predictions import Predictions
from bertsmith.tasks.records import Column
from bertsmith.tasks.slices import SliceRow, read_slices, score_slices
from bertsmith.training.distributed import Ranks

HARDEST = 10
"""Rows with the largest loss that an evaluation names."""


@dataclass(frozen=True)
class Scored:
    """A model's answers on labelled rows, and what they are worth."""

    answers: Sequence[Any]
    scores: Mapping[str, float]
    loss: float
    """Mean over targets: rows, words that the model read, or windows of a text."""
    row_losses: Sequence[float]
    """Mean loss of each row's targets; 0 where it has none."""


@dataclass(frozen=True)
class ScoreRow:
    """One line of a score table (scores.json)."""

    name: str
    split: str
    metric: str
    score: float
    low: float
    high: float
    """Bounds of the 95 % bootstrap interval."""
    rows: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class EvaluateResult:
    """What `evaluate` found on one table."""

    table: tuple[ScoreRow, ...]
    """A line for each metric of the task."""
    metric: str
    """The metric that the model was chosen by."""
    loss: float
    calibration: Calibration | None
    """Of the answers' probabilities; None where the task has none."""
    slices: tuple[SliceRow, ...]
    """Scores by length, by label, and by the columns asked for."""
    truncation_share: float
    """Share of tokens that were cut off."""
    unanswered_items: int
    """Words that were cut off: a tagger has no answer for them but "O"."""
    records: tuple[dict[str, Any], ...]
    """Rows, labels and predictions, as in predictions-SPLIT.jsonl."""

    predictions: Predictions
    """The same as rows and answers."""

    @property
    def scores(self) -> dict[str, float]:
        return {row.metric: row.score for row in self.table}


def evaluate(
    model: str | Path | Predictor,
    data: object,
    *,
    columns: Columns | None = None,
    name: str | None = None,
    split: str | None = None,
    slice_columns: Sequence[Column] = (),
    seed: int = 42,
    runtime: Runtime | None = None,
    ranks: Ranks | None = None,
) -> EvaluateResult:
    """Score a model directory or run on a labelled table: a file, DataFrame, Arrow table or list.

    Without `columns` the table is like those that the model was fine-tuned on. `name` and `split` are what the score
    table calls model and data; `slice_columns` are columns for whose values scores are told too; `ranks` are all
    processes, where several share the rows. Raises `DataError` naming the line of a label that the model does not know.
    """
    started = time.monotonic()
    predictor = model if isinstance(model, Predictor) else Predictor.load(model, runtime=runtime)
    task, labels = predictor.task, predictor.labels
    columns = columns or predictor.columns
    rows = task.read(data, columns, require_labels=True)
    of_columns = read_slices(data, rows, slice_columns, header=columns.header)
    where = data if isinstance(data, str | Path) else None
    task.check(rows, labels, where=where)
    features = predictor.encode(rows, labelled=True)
    scored = score_features(predictor, rows, features, ranks=ranks)
    split = split or (Path(where).stem if where is not None else "test")
    metric = str(read_card(predictor.directory).get("metric") or task.default_metric)
    table = score_table(
        task,
        rows,
        scored.answers,
        labels,
        name=name or str(predictor.directory),
        split=split,
        seconds=time.monotonic() - started,
        seed=seed,
    )
    slices = score_slices(
        task, rows, scored.answers, labels, features, columns=of_columns, metric=metric, split=split, seed=seed
    )
    decisions = task.decisions(rows, scored.answers)
    return EvaluateResult(
        table=table,
        metric=metric,
        loss=scored.loss,
        calibration=None if decisions is None else calibration(decisions),
        slices=slices,
        truncation_share=features.truncation_share,
        unanswered_items=features.lost_items,
        records=tuple(
            task.record(number, row, answer)
            for number, (row, answer) in enumerate(zip(rows, scored.answers, strict=True))
        ),
        predictions=Predictions(task, rows, scored.answers),
    )


def score_rows(predictor: Predictor, rows: Sequence[Any]) -> Scored:
    """A model's answers to labelled rows, and what they are worth."""
    return score_features(predictor, rows, predictor.encode(rows, labelled=True))


def score_features(
    predictor: Predictor, rows: Sequence[Any], features: Features, *, ranks: Ranks | None = None
) -> Scored:
    """The same of rows that are encoded already, with their targets."""
    outputs = predictor.outputs(features, ranks=ranks) / predictor.temperature
    return score_outputs(predictor.task, rows, features, outputs, predictor.labels)


def score_outputs(
    task: Task[Any, Any], rows: Sequence[Any], features: Features, outputs: Floats, labels: Sequence[str]
) -> Scored:
    """Answers, scores and losses from the results of all items."""
    if features.targets is None:
        raise UsageError("rows without labels cannot be scored; use predict")
    answers = task.decode(rows, features, outputs, labels)
    losses = task.losses_of(outputs, features)
    owner = features.row_of_target
    targets = np.bincount(owner, minlength=len(rows))
    row_losses = np.bincount(owner, weights=losses, minlength=len(rows)) / np.maximum(targets, 1)
    return Scored(
        answers=answers,
        scores=task.score(rows, answers, labels),
        loss=float(losses.mean()) if len(losses) else 0.0,
        row_losses=row_losses.tolist(),
    )


def score_table(
    task: Task[Any, Any],
    rows: Sequence[Any],
    answers: Sequence[Any],
    labels: Sequence[str],
    *,
    name: str,
    split: str,
    seconds: float,
    seed: int,
    note: str = "",
) -> tuple[ScoreRow, ...]:
    """A line with interval for each of the task's metrics."""
    lines = []
    for metric, score in task.score(rows, answers, labels).items():
        low, high = task.interval(rows, answers, labels, metric, seed=seed)
        lines.append(ScoreRow(name, split, metric, score, low, high, len(rows), round(seconds, 3), note))
    return tuple(lines)


def details(task: Task[Any, Any], rows: Sequence[Any], scored: Scored, labels: Sequence[str]) -> dict[str, Any]:
    """Fields of an evaluation event that a diagnosis reads: predictions per class, where there are classes, and the
    hardest examples.
    """
    counts = Counter(label for answer in scored.answers for label in task.predictions_of(answer))
    order = np.argsort(-np.asarray(scored.row_losses), kind="stable")[:HARDEST]
    hardest = []
    for number in order.tolist():
        label, prediction = task.told(rows[number], scored.answers[number])
        text, loss = task.text_of(rows[number]), scored.row_losses[number]
        hardest.append({"text": text, "label": label, "prediction": prediction, "loss": loss})
    found: dict[str, Any] = {"hardest": hardest}
    return found | {"predictions_per_class": {label: counts[label] for label in labels}} if counts else found
