"""Events of a training that its charts mark: phases, growing batches, rollbacks, stops, checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bertsmith.analysis.folder import Training, mapping, step_of
from bertsmith.analysis.markup import number, show, spread, words

Kind = Literal["phase", "change", "trouble", "checkpoint"]
MOST_CHECKPOINTS = 60
"""Drawn of one training, evenly spread; more ticks are one line."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step, in words."""

    step: int
    kind: Kind
    said: str


def marks(training: Training) -> list[Mark]:
    """In the order of the log; of many checkpoints some."""
    found = [Mark(step_of(event), *told) for event in training.events if (told := _told(event)) is not None]
    saved = spread([mark for mark in found if mark.kind == "checkpoint"], MOST_CHECKPOINTS)
    return sorted([mark for mark in found if mark.kind != "checkpoint"] + saved, key=lambda mark: mark.step)


def marks_of(trainings: Sequence[Training]) -> list[Mark]:
    """Those of one training; of several, only what is more than a checkpoint, with the training's name."""
    if len(trainings) == 1:
        return marks(trainings[0])
    return [
        Mark(mark.step, mark.kind, f"{training.name}: {mark.said}")
        for training in trainings
        for mark in marks(training)
        if mark.kind != "checkpoint"
    ]


def _told(event: Mapping[str, Any]) -> tuple[Kind, str] | None:
    kind = event.get("event")
    if kind == "phase":
        return "phase", f"phase {mapping(event.get('plan')).get('phase_name', '')} begins"
    if kind == "start" and number(event.get("resumed_from")) is not None:
        return "change", "resumed from its checkpoint"
    if kind == "decision" and event.get("name") in ("batch_size", "micro_batch_size", "clip") and step_of(event):
        return "change", f"{words(event['name'])} becomes {show(event.get('value'))}: {event.get('because', '')}"
    if kind == "rollback":
        back = f"from step {show(event.get('from_step'))} to {show(event.get('to_step'))}"
        return "trouble", f"gone back {back}: {event.get('because', '')}"
    if kind == "checkpoint":
        return "checkpoint", "checkpoint"
    if kind == "checkpoint_failed":
        return "trouble", f"no checkpoint could be written: {event.get('message', '')}"
    if kind == "stop" and event.get("reason") != "done":
        return "trouble", f"stopped: {event.get('reason', '')} {event.get('message') or ''}".rstrip()
    return None
