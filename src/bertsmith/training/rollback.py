"""Updates that must not be applied: loss or gradient is not finite, or, where asked for, the loss leaps.

Such an update is skipped. After some in a row the examples that spoil them are found and named, the run goes back to
the newest checkpoint from before, and goes on without them. Which examples are left out, and from which update on, is
part of the state. Before that update nothing differs, so that whatever checkpoint a run goes back to, or is resumed
from, it comes to the same.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bertsmith.errors import BertsmithError
from bertsmith.training.plan import Plan
from bertsmith.training.state import State

_LOSSES_IN_MEDIAN = 50
_NAMES_TO_SAY = 8

Probe = Callable[[Any], bool]
"""A micro-batch, or a part of it, to whether its loss or gradient is not as it should be."""


def loss_limit(plan: Plan, state: State) -> float:
    """A loss above it leaps; infinite where nobody asked, or too few losses are known."""
    if plan.spike_factor is None or len(state.recent_losses) < _LOSSES_IN_MEDIAN:
        return math.inf
    return plan.spike_factor * statistics.median(state.recent_losses)


def note_loss(plan: Plan, state: State, loss: float) -> None:
    """Remember the loss of an update that was applied, for the median."""
    if plan.spike_factor is not None:
        state.recent_losses = [*state.recent_losses[-_LOSSES_IN_MEDIAN + 1 :], loss]


def problem(losses: Mapping[str, float], *, norm: float, loss: float, limit: float) -> str | None:
    """Why an update is not to be applied, in words; None where it is."""
    if not (math.isfinite(norm) and all(map(math.isfinite, losses.values()))):
        values = ", ".join(f"{name} {value}" for name, value in {**losses, "gradient norm": norm}.items())
        return f"not finite ({values})"
    if loss > limit:
        return f"loss {loss:.4f} is above {limit:.4f}, the limit by spike_factor"
    return None


def names(batch: Any) -> list[str]:
    """Of a micro-batch's examples, such as "example 17" or "row 3"."""
    return [f"{batch.example_kind} {number}" for number in batch.example_ids]


def without_left_out(batches: Sequence[Any], state: State) -> list[Any]:
    """The micro-batches of an update without the examples that are left out by then."""
    left_out = {name for entry in state.left_out if entry["from_step"] <= state.step for name in entry["examples"]}
    if not left_out:
        return list(batches)
    kept = []
    for batch in batches:
        rows = [row for row, name in enumerate(names(batch)) if name not in left_out]
        if len(rows) == len(batch.example_ids):
            kept.append(batch)
        elif rows:
            kept.append(batch.take(rows))
    return kept


def spoilers(batches: Iterable[Any], probe: Probe) -> list[str]:
    """Names of the examples that spoil these micro-batches: those that do so alone; where none does, all of a
    micro-batch that is spoiled; and where none is, all of them.
    """
    found: list[str] = []
    every: list[str] = []
    for batch in batches:
        every += names(batch)
        if probe(batch):
            alone = [name for row, name in enumerate(names(batch)) if probe(batch.take([row]))]
            found += alone or names(batch)
    return sorted(set(found or every), key=by_number)


def said(examples: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    more = len(examples) - _NAMES_TO_SAY
    return ", ".join(examples[:_NAMES_TO_SAY]) + (f" and {more:,} more" if more > 0 else "")


def report(plan: Plan, state: State) -> BertsmithError:
    """Why the run stops, and what to do."""
    leaps = "" if plan.spike_factor is None else f" or more than {plan.spike_factor:g} times its median"
    text = (
        f"loss or gradient was not finite{leaps} in {plan.rollback_after} updates in a row (the last: {state.step + 1})"
    )
    if state.rollbacks:
        examples = [name for entry in state.left_out for name in entry["examples"]]
        times = "once" if state.rollbacks == 1 else f"{state.rollbacks} times"
        text += (
            f", although the run went back {times} and left out {said(examples)}; that speaks against the weights "
            "rather than the examples"
        )
    return BertsmithError(f"{text}; lower the learning rate, or set runtime.dtype = 'float32'")


def by_number(name: str) -> tuple[str, int]:
    """For sorting names."""
    kind, _, number = name.rpartition(" ")
    return kind, int(number)
