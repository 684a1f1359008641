"""The table of a fine-tuning's evaluations, read back from metrics.jsonl: on the screen and as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bertsmith.artifact import write_text
from bertsmith.tasks.evaluate import ScoreRow
from bertsmith.training.track import clock_text, read_metrics


@dataclass(frozen=True)
class EvaluationRow:
    """One evaluation during training."""

    step: int
    epoch: float
    training_loss: float | None
    """Mean over the logged updates since the evaluation before; None where there was none."""
    validation_loss: float
    metric: str
    score: float
    seconds: float
    """The evaluation itself."""
    elapsed_seconds: float
    """Since the start of training, evaluations included."""
    best: bool
    """Best so far."""


def read_evaluations(path: Path, metric: str) -> tuple[EvaluationRow, ...]:
    """Evaluation lines of a metrics.jsonl; after a resume the last line of a step counts."""
    rows: dict[int, EvaluationRow] = {}
    losses: list[float] = []
    for event in read_metrics(path):
        if event["event"] == "step" and event["loss"] is not None:
            losses.append(event["loss"])
        elif event["event"] == "evaluation":
            rows[event["step"]] = EvaluationRow(
                step=event["step"],
                epoch=event["epoch"],
                training_loss=sum(losses) / len(losses) if losses else None,
                validation_loss=event["loss"],
                metric=metric,
                score=event["scores"][metric],
                seconds=event["seconds"],
                elapsed_seconds=event["elapsed_seconds"],
                best=event["best"],
            )
            losses = []
    return tuple(rows.values())


def write_evaluations(path: Path, rows: Sequence[EvaluationRow]) -> None:
    """One line an evaluation, columns as in `EvaluationRow`, and times as h:mm:ss beside the seconds."""
    text = io.StringIO()
    names = [field.name for field in fields(EvaluationRow)]
    writer = csv.DictWriter(text, [*names, "time", "elapsed_time"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        times = {"time": clock_text(row.seconds), "elapsed_time": clock_text(row.elapsed_seconds)}
        writer.writerow(asdict(row) | times)
    write_text(path, text.getvalue())


def print_evaluations(
    rows: Sequence[EvaluationRow], scores: Sequence[ScoreRow], metric: str, *, console: Console
) -> None:
    """Every evaluation with totals, then the score table by the chosen metric."""
    table = Table("epoch", "step", "training loss", "validation loss", metric, "evaluated in", "elapsed", box=None)
    for row in rows:
        training_loss = "" if row.training_loss is None else f"{row.training_loss:.4f}"
        cells = [f"{row.epoch:.2f}", f"{row.step:,}", training_loss, f"{row.validation_loss:.4f}", f"{row.score:.4f}"]
        table.add_row(*cells, clock_text(row.seconds), clock_text(row.elapsed_seconds))
    best = max(rows, key=lambda row: row.score)
    total = clock_text(sum(row.seconds for row in rows))
    table.add_row(
        "total", f"{rows[-1].step:,}", "", "", f"{best.score:.4f}", total, clock_text(rows[-1].elapsed_seconds)
    )
    console.print(table)
    console.print(f"best at step {best.step:,} (epoch {best.epoch:.2f})", highlight=False)
    table = Table("model", "scored on", metric, "95 % interval", "rows", "time", box=None)
    for line in scores:
        if line.metric == metric:
            interval = f"{line.low:.4f} to {line.high:.4f}"
            table.add_row(
                line.name, line.split, f"{line.score:.4f}", interval, f"{line.rows:,}", clock_text(line.seconds)
            )
    console.print(table)
