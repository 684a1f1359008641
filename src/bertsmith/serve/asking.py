"""From a request to a model's answers: which model, what it reads, and a place in its queue."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from bertsmith.serve.faults import Fault
from bertsmith.serve.models import Asked, Model, Served, Shelf

_READ_AT_ONCE = 20_000
"""Characters that are tokenised without giving other requests their turn: some milliseconds."""
DEADLINE = "x-deadline-seconds"


@dataclass(frozen=True)
class Answered:
    """Answers in the order of the inputs, and what they took."""

    model: Model
    answers: list[Any]
    asked: Asked

    @property
    def head(self) -> dict[str, Any]:
        """What all of our own answers begin with."""
        return {"model": self.model.name, "usage": {"tokens": self.asked.tokens, "cut": self.asked.cut}}


async def ask(request: Request, name: str | None, tasks: Sequence[str], inputs: Sequence[Any]) -> Answered:
    """Answers of the model of that name, or of the first of one of `tasks`, to inputs as the task takes them."""
    return await ask_of(request, shelf_of(request).find(name, tasks), inputs)


async def ask_of(request: Request, served: Served, inputs: Sequence[Any]) -> Answered:
    told = request.scope.setdefault("bertsmith", {})
    told |= {"model": served.model.name, "inputs": len(inputs)}
    if served.batcher.is_full:
        raise served.batcher.full()
    if sum(map(_characters, inputs)) <= _READ_AT_ONCE:
        asked = served.model.read(inputs)
    else:
        asked = await asyncio.to_thread(served.model.read, inputs)
    told["tokens"] = asked.tokens
    answers = await served.ask(asked, deadline_seconds=_deadline(request))
    return Answered(served.model, answers, asked)


def shelf_of(request: Request) -> Shelf:
    found: Shelf = request.app.state.shelf
    return found


def _characters(given: Any) -> int:
    return len(given) if isinstance(given, str) else sum(map(_characters, given))


def _deadline(request: Request) -> float | None:
    given = request.headers.get(DEADLINE)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise Fault(400, f"the header {DEADLINE} is no number of seconds above 0")
    return seconds
