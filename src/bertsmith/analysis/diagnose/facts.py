"""A log as numbers: finite ones only, in the order of the steps, whatever the file holds; of a long log the medians of
so many stretches.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertsmith.analysis.diagnose.finding import Series
from bertsmith.analysis.folder import Training, mapping, step_of
from bertsmith.analysis.markup import number
from bertsmith.analysis.run_log import Floats
from bertsmith.tasks.predict import TASKS

MOST_POINTS = 2000
Points = list[tuple[float, float]]
"""(step, value)"""


class Facts:
    """What the checks ask of one training."""

    def __init__(self, training: Training, recipe: Mapping[str, Any]):
        self.training = training
        self.settings = mapping(recipe.get("pretrain" if training.kind == "pretrain" else "finetune"))
        """The recipe's section."""
        self.steps = training.steps
        self.evaluations = _ordered(training.of("evaluation"))
        self.loss = self.column("loss")
        self.is_pretraining = training.kind == "pretrain"
        self.own = self._own_losses()
        """Training loss of what is learned: the main objective's, without penalties beside it."""

    def column(self, name: str) -> Points:
        """A number of the step lines."""
        return [(step, float(np.median(part))) for step, part in self._stretches(name)]

    def peaks(self) -> Points:
        """The loss again, of each stretch the highest."""
        return [(step, float(part.max())) for step, part in self._stretches("loss")]

    def _stretches(self, name: str) -> Iterator[tuple[float, Floats]]:
        """(last step, values) of `MOST_POINTS` stretches of the log; of a short one each line is one."""
        values = self.steps.column(name)
        known = np.isfinite(values)
        steps, values = self.steps.step[known], values[known]
        if len(values):
            for places in np.array_split(np.arange(len(values)), min(len(values), MOST_POINTS)):
                yield float(steps[places[-1]]), values[places]

    def held_out(self) -> Points:
        """Held-out loss."""
        return points(self.evaluations, "loss")

    def between(self) -> Points:
        """Training loss between evaluations."""
        return points(self.evaluations, "training_loss")

    def scores(self) -> Points:
        """By the metric that chooses; empty in pre-training."""
        if self.is_pretraining:
            return []
        found = []
        for event in self.evaluations:
            values = [number(value) for value in mapping(event.get("scores")).values()]
            if values and values[0] is not None:
                found.append((float(step_of(event)), values[0]))
        return found

    def metric(self) -> str:
        names = [next(iter(mapping(event.get("scores"))), "") for event in self.evaluations]
        return str(names[-1]) if names else ""

    @property
    def smaller_is_better(self) -> bool:
        """Whether that is so of the metric."""
        task = TASKS.get(str(self.training.start.get("task")))
        return task is not None and self.metric() in task.smaller_is_better

    def label_counts(self) -> dict[str, float]:
        found = mapping(mapping(self.training.start.get("data")).get("label_counts"))
        return {str(label): count for label, value in found.items() if (count := number(value))}

    @property
    def clip(self) -> float | None:
        """The limit of the gradient's norm: what was picked, else the recipe's."""
        picked = [number(event.get("value")) for event in self.training.of("decision") if event.get("name") == "clip"]
        return picked[-1] if picked else number(self.settings.get("clip"))

    def peak_rate(self) -> float:
        return max((rate for _, rate in self.column("learning_rate")), default=0.0)

    def recipe_rate(self) -> str:
        """The peak learning rate, for an advice."""
        return f"{self.peak_rate():.2g}"

    @property
    def section(self) -> str:
        return "pretrain" if self.is_pretraining else "finetune"

    def _own_losses(self) -> Points:
        task = self.training.start.get("task")
        name = "mlm" if self.is_pretraining else str(task)
        found = self.column(f"losses.{name}")
        return found or self.loss


def points(events: Sequence[Mapping[str, Any]], key: str) -> Points:
    """(step, value) of each event that has a finite one."""
    return [(float(step_of(event)), value) for event in events if (value := number(event.get(key))) is not None]


def values(found: Points) -> list[float]:
    return [value for _, value in found]


def smoothed(found: Points, width: int = 5) -> Points:
    """Median of each point and those around it."""
    half = width // 2
    return [
        (step, statistics.median(values(found[max(0, index - half) : index + half + 1])))
        for index, (step, _) in enumerate(found)
    ]


def third(found: Points, number: int) -> float:
    """Median of the first (0), second or last (2) third."""
    size = max(1, len(found) // 3)
    part = (found[:size], found[size : 2 * size] or found[-size:], found[-size:])[number]
    return statistics.median(values(part))


def series(name: str, found: Points, most: int = 80) -> Series:
    """For a small chart: of each stretch its lowest and highest, so that no extreme is lost."""
    if len(found) > most:
        size = -(-2 * len(found) // most)
        kept = []
        for start in range(0, len(found), size):
            part = found[start : start + size]
            kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
        found = kept
    return Series(name, tuple(found))


def _ordered(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By step; of a step that stands twice, the later line."""
    return [event for _, event in sorted({step_of(event): event for event in events}.items())]
