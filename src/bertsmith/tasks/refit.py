"""`refit`: once the validation rows have chosen how long to train, train once more on them too.

The second training begins where the first began, and makes as many passes over its rows as the first had made at its
best evaluation, with the learning rates that it had on the way there. Only test rows are left to measure it by.
"""

from dataclasses import dataclass
from pathlib import Path

from bertsmith.training.schedule import Schedule
from bertsmith.training.track import read_metrics

FOLDER = "refit"
"""Below a fine-tuning's own: metrics.jsonl and checkpoints/ of the second training."""


@dataclass(frozen=True)
class Refit:
    """A training on training and validation rows."""

    rows: int
    epochs: float
    """Passes over them."""
    planned_epochs: int
    """Those that the first training was to make, over which its learning rate was spread."""

    @property
    def note(self) -> str:
        """What people are told of such a model."""
        return f"refit on training and validation rows ({self.rows:,}; {self.epochs:.2f} epochs); no validation score"

    def steps(self, steps_per_epoch: int) -> int:
        return max(1, round(self.epochs * steps_per_epoch))

    def schedule(self, planned: Schedule, steps_per_epoch: int) -> Schedule:
        """The first part of the one that was planned."""
        share = self.steps(steps_per_epoch) / (self.planned_epochs * steps_per_epoch)
        return lambda progress: planned(progress * share)


def seconds_of(metrics: Path) -> float:
    """How long the training of a metrics.jsonl took."""
    return max(float(event.get("elapsed_seconds", 0.0)) for event in read_metrics(metrics))
