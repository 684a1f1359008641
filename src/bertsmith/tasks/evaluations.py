"""The table of a fine-tuning's evaluations, read back from metrics.jsonl: as CSV, and its totals in one line."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bertsmith.artifact import write_text
from bertsmith.training.track import read_metrics
from bertsmith.training.view import clock_text


@dataclass(frozen=True)
class EvaluationRow:
    """One evaluation during training."""

    step: int
    epoch: float
    training_loss: float | None
    """Mean over the updates since the evaluation before; None where none was applied."""
    validation_loss: float
    metric: str
    score: float
    seconds: float
    """Of the evaluation itself."""
    elapsed_seconds: float
    """Since the start of training, evaluations included."""
    best: bool
    """Best so far."""


def read_evaluations(path: Path, metric: str) -> tuple[EvaluationRow, ...]:
    """Evaluation lines of a metrics.jsonl, in order; where a step was done again, the last line counts."""
    rows: dict[int, EvaluationRow] = {}
    for event in read_metrics(path):
        if event["event"] == "evaluation":
            rows[event["step"]] = EvaluationRow(
                step=event["step"],
                epoch=event["epoch"],
                training_loss=event["training_loss"],
                validation_loss=event["loss"],
                metric=metric,
                score=event["scores"][metric],
                seconds=event["seconds"],
                elapsed_seconds=event["elapsed_seconds"],
                best=event["best"],
            )
    return tuple(rows[step] for step in sorted(rows))


def write_evaluations(path: Path, rows: Sequence[EvaluationRow]) -> None:
    """One line an evaluation, columns as in `EvaluationRow`, times as h:mm:ss beside the seconds; totals last."""
    text = io.StringIO()
    names = [field.name for field in fields(EvaluationRow)]
    writer = csv.DictWriter(text, [*names, "time", "elapsed_time"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row) | _times(row.seconds, row.elapsed_seconds))
    seconds = sum(row.seconds for row in rows)
    last = rows[-1].elapsed_seconds
    totals = {"step": "total", "metric": rows[-1].metric, "score": _best(rows).score, "seconds": seconds}
    writer.writerow(totals | {"elapsed_seconds": last} | _times(seconds, last))
    write_text(path, text.getvalue())


def totals_line(rows: Sequence[EvaluationRow]) -> str:
    """How long it took, and what the best was."""
    best, last = _best(rows), rows[-1]
    evaluated = clock_text(sum(row.seconds for row in rows))
    return (
        f"total      {last.step:,} steps in {clock_text(last.elapsed_seconds)}, of which {len(rows)} evaluations "
        f"{evaluated}; best at step {best.step:,} (epoch {best.epoch:.2f}): {best.metric} {best.score:.4f}"
    )


def _best(rows: Sequence[EvaluationRow]) -> EvaluationRow:
    return [row for row in rows if row.best][-1]


def _times(seconds: float, elapsed_seconds: float) -> dict[str, str]:
    return {"time": clock_text(seconds), "elapsed_time": clock_text(elapsed_seconds)}
