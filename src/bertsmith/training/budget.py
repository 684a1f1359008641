"""How a wall-clock budget becomes a number of steps, once enough of them are measured."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import EVALUATIONS_PER_RUN, Plan
from bertsmith.training.sizes import Decision
from bertsmith.training.state import State

_WARMUP_STEPS = 3  # not measured: compilation, caches, first allocations
_PROVISIONAL_STEPS = 5
_MEASURED_STEPS = 50
_SHARE_FOR_MEASURING = 0.2
_DISK_BYTES_PER_SECOND = 200e6


@dataclass
class Measured:
    """Times of this process since it began: what a budget is counted by."""

    step_seconds: list[float] = field(default_factory=list)
    evaluation_seconds: float = 0.0
    """Of the last one."""


def decide_total_steps(
    state: State, plan: Plan, measured: Measured, *, elapsed_seconds: float, checkpoint_bytes: int, ranks: Ranks
) -> Decision | None:
    """The number of steps, or a provisional one, which is written into the state; None where nothing new is decided."""
    assert plan.budget_seconds is not None, "without one the total is known"
    planned = None if plan.total_steps is None else state.first_step + plan.total_steps
    if state.step == planned:
        state.total_steps = state.step
        return None
    spent_seconds = elapsed_seconds - state.first_elapsed_seconds
    found = steps_in_budget(
        budget_seconds=plan.budget_seconds - spent_seconds,
        spent_seconds=spent_seconds,
        step_seconds=measured.step_seconds,
        evaluation_seconds=measured.evaluation_seconds,
        evaluate_every=plan.evaluate_every,
        checkpoint_bytes=checkpoint_bytes,
        checkpoint_every_seconds=plan.checkpoint_every_seconds,
    )
    found = ranks.from_first(found)
    if found is None:
        return None
    name, steps, because = found
    value = min(state.step + steps, planned or sys.maxsize)
    if name == "provisional_total_steps":
        if state.provisional_total_steps not in (None, planned):
            return None  # read back from a checkpoint
        state.provisional_total_steps = value
    else:
        state.total_steps, state.budget_total_steps = value, state.step + steps
    return Decision(name, value, because)


def steps_in_budget(
    *,
    budget_seconds: float,
    spent_seconds: float,
    step_seconds: Sequence[float],
    evaluation_seconds: float,
    evaluate_every: int | None,
    checkpoint_bytes: int,
    checkpoint_every_seconds: float,
) -> tuple[str, int, str] | None:
    """How many more steps fit into what is left of a budget: (name of the decision, steps, reason), or None yet.

    The first steps are not measured; after a few more there is a provisional count, which only the learning rate's
    warm-up goes by; after 50 (or a fifth of the budget, if that is less) the count is final. Time for evaluations and
    checkpoints to come is set aside.
    """
    measured = step_seconds[_WARMUP_STEPS:] or step_seconds[-1:]
    enough = len(measured) >= _MEASURED_STEPS and len(step_seconds) > _WARMUP_STEPS
    short = spent_seconds >= _SHARE_FOR_MEASURING * (spent_seconds + budget_seconds)
    final = enough or short
    if not final and len(step_seconds) != _WARMUP_STEPS + _PROVISIONAL_STEPS:
        return None
    seconds_per_step = statistics.fmean(measured)
    checkpoint_seconds = checkpoint_bytes / _DISK_BYTES_PER_SECOND
    left_seconds = (budget_seconds - checkpoint_seconds) / (1 + checkpoint_seconds / checkpoint_every_seconds)
    if evaluate_every is None:
        left_seconds -= EVALUATIONS_PER_RUN * evaluation_seconds
        seconds_with_evaluation = seconds_per_step
    else:
        left_seconds -= evaluation_seconds
        seconds_with_evaluation = seconds_per_step + evaluation_seconds / evaluate_every
    steps = max(int(left_seconds / seconds_with_evaluation), 1)
    because = (
        f"{len(measured)} measured steps took {seconds_per_step:.4f} s each, an evaluation {evaluation_seconds:.2f} s; "
        f"{budget_seconds:.1f} s of the budget were left"
    )
    return "total_steps" if final else "provisional_total_steps", steps, because
