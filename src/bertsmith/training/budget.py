"""How a wall-clock budget becomes a number of steps: once enough are measured, and again as the budget is spent."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import EVALUATIONS_PER_RUN, Plan
from bertsmith.training.sizes import Decision
from bertsmith.training.state import State

MARKS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 15 / 16, 31 / 32)
"""Shares of the budget at which the steps are counted again, since a machine may have become faster or slower. Closer
together near the end, where what is left to be wrong about has become small."""

_WARMUP_STEPS = 3  # not measured: compilation, caches, first allocations
_PROVISIONAL_STEPS = 5
_MEASURED_STEPS = 50
_LEAST_TIMED_STEPS = 5
_SHARE_FOR_MEASURING = 0.2
_DISK_BYTES_PER_SECOND = 200e6


@dataclass
class Stopwatch:
    """Seconds of each step of this process."""

    step_seconds: list[float] = field(default_factory=list)

    def add_step(self, seconds: float, state: State) -> None:
        """Note it, and count it in the state, which later counts go by; not the first ones of a process."""
        self.step_seconds.append(seconds)
        if len(self.step_seconds) > _WARMUP_STEPS:
            state.timed_steps += 1
            state.timed_seconds += seconds


def decide_total_steps(
    state: State, plan: Plan, stopwatch: Stopwatch, *, elapsed_seconds: float, checkpoint_bytes: int, ranks: Ranks
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
        step_seconds=stopwatch.step_seconds,
        evaluation_seconds=state.evaluation_seconds,
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
        state.budget_marks = sum(mark <= spent_seconds / plan.budget_seconds for mark in MARKS)
        state.timed_steps, state.timed_seconds = 0, 0.0
    return Decision(name, value, because)


def count_again(
    state: State, plan: Plan, *, elapsed_seconds: float, checkpoint_bytes: int, ranks: Ranks
) -> Decision | None:
    """At a mark of the budget: the number of steps by those since the last count; None where none is reached.

    A mark is reached when that share of the budget is spent or that share of the schedule is over, so that a count that
    was far too low is found out before the run has ended. With too few steps measured it waits for more.
    """
    assert plan.budget_seconds is not None, "without one nothing is counted"
    if state.budget_marks == len(MARKS):
        return None
    spent_seconds = elapsed_seconds - state.first_elapsed_seconds
    share = max(spent_seconds / plan.budget_seconds, state.progress)
    marks = sum(mark <= share for mark in MARKS)
    found = None
    if marks > state.budget_marks and state.timed_steps >= _LEAST_TIMED_STEPS:
        assert state.total_steps is not None, "counted before"
        left_seconds = plan.budget_seconds - spent_seconds
        seconds_per_step = state.timed_seconds / state.timed_steps
        steps = _steps_that_fit(
            left_seconds,
            seconds_per_step=seconds_per_step,
            evaluation_seconds=state.evaluation_seconds,
            evaluate_every=plan.evaluate_every or -(-(state.total_steps - state.first_step) // EVALUATIONS_PER_RUN),
            checkpoint_bytes=checkpoint_bytes,
            checkpoint_every_seconds=plan.checkpoint_every_seconds,
        )
        because = f"the last {state.timed_steps} steps took"
        found = marks, steps, _reason(because, seconds_per_step, state.evaluation_seconds, left_seconds)
    found = ranks.from_first(found)
    if found is None:
        return None
    state.budget_marks, steps, because = found
    state.end_at(state.step + steps, plan)
    state.timed_steps, state.timed_seconds = 0, 0.0
    assert state.total_steps is not None, "it was counted"
    return Decision("total_steps", state.total_steps, because)


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
    warm-up goes by; after 50 (or a fifth of the budget, if that is less) there is one to go by. Time for evaluations
    and checkpoints to come is set aside.
    """
    measured = step_seconds[_WARMUP_STEPS:] or step_seconds[-1:]
    enough = len(measured) >= _MEASURED_STEPS and len(step_seconds) > _WARMUP_STEPS
    short = spent_seconds >= _SHARE_FOR_MEASURING * (spent_seconds + budget_seconds)
    final = enough or short
    if not final and len(step_seconds) != _WARMUP_STEPS + _PROVISIONAL_STEPS:
        return None
    seconds_per_step = statistics.fmean(measured)
    steps = _steps_that_fit(
        budget_seconds,
        seconds_per_step=seconds_per_step,
        evaluation_seconds=evaluation_seconds,
        evaluate_every=evaluate_every,
        checkpoint_bytes=checkpoint_bytes,
        checkpoint_every_seconds=checkpoint_every_seconds,
    )
    because = _reason(f"{len(measured)} measured steps took", seconds_per_step, evaluation_seconds, budget_seconds)
    return "total_steps" if final else "provisional_total_steps", steps, because


def _steps_that_fit(
    left_seconds: float,
    *,
    seconds_per_step: float,
    evaluation_seconds: float,
    evaluate_every: int | None,
    checkpoint_bytes: int,
    checkpoint_every_seconds: float,
) -> int:
    """At least one. `evaluate_every`: None at the beginning, where all evaluations of the run are to come."""
    checkpoint_seconds = checkpoint_bytes / _DISK_BYTES_PER_SECOND
    left_seconds = (left_seconds - checkpoint_seconds) / (1 + checkpoint_seconds / checkpoint_every_seconds)
    if evaluate_every is None:
        left_seconds -= EVALUATIONS_PER_RUN * evaluation_seconds
        seconds_with_evaluation = seconds_per_step
    else:
        left_seconds -= evaluation_seconds
        seconds_with_evaluation = seconds_per_step + evaluation_seconds / evaluate_every
    return max(int(left_seconds / seconds_with_evaluation), 1)


def _reason(steps_took: str, seconds_per_step: float, evaluation_seconds: float, left_seconds: float) -> str:
    return (
        f"{steps_took} {seconds_per_step:.4f} s each, an evaluation {evaluation_seconds:.2f} s; "
        f"{left_seconds:.1f} s of the budget were left"
    )
