"""What is decided about the sizes of batches while a run goes on: written into the state, told by the loop.

Each function changes the state and returns what there is to tell of it, as a line and as a `decision` event.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from bertsmith.errors import BertsmithError
from bertsmith.training.batch_size import next_size
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Plan
from bertsmith.training.state import State

FitMicroBatch = Callable[[int], tuple[int, str]]


class Decision(NamedTuple):
    """Something that was decided once, and is read back on resume."""

    name: str
    value: int
    because: str

    @property
    def line(self) -> str:
        return f"{self.name.removesuffix('_size').replace('_', '-'):<10} {self.value:,}: {self.because}"


def decide_micro_batch(state: State, plan: Plan, fit: FitMicroBatch | None, ranks: Ranks) -> list[Decision]:
    """At the beginning of a phase: what was asked for, or what fits into memory, on the rank with the least of it."""
    if state.micro_batch_size is not None:
        return []
    told = []
    if plan.batch_size_because:
        told.append(Decision("batch_size", plan.batch_size, plan.batch_size_because))
    state.micro_batch_size = plan.largest_micro_batch
    if fit is not None:
        most = min(plan.largest_micro_batch, math.ceil(plan.first_batch_size / ranks.size))
        state.micro_batch_size, because = min(ranks.gather(fit(most)))
        told.append(Decision("micro_batch_size", state.micro_batch_size, because))
    return told


def halve_micro_batch(state: State) -> Decision:
    """After a step that did not fit into a GPU's memory: the same update is to be computed again in halves.

    Raises `BertsmithError` where it was a single example.
    """
    size = state.due().micro_batch_size
    if size == 1:
        raise BertsmithError(
            f"step {state.step + 1:,} does not fit into the GPU's memory with a single example in a micro-batch; "
            "take a smaller model or a smaller max_length"
        )
    state.micro_batch_size = size // 2
    because = f"out of memory in step {state.step + 1:,} with {size:,}; that step is computed again"
    return Decision("micro_batch_size", size // 2, because)


def grow_batch(state: State, plan: Plan) -> Decision | None:
    """Before an update: larger batches from it on, where the ramp-up or the gradient's noise says so."""
    if state.total_steps is None or (plan.ramp_up is None and plan.growth is None):
        return None  # the steps of a budget are measured with batches of one size
    if state.batch_sizes[-1][0] == state.phase_step:
        return None  # decided before a signal stopped this very step
    size, because = next_size(
        state.phase_step,
        state.batch_size,
        progress=state.progress,
        noise_scale=state.noise.value,
        ramp_up=plan.ramp_up,
        growth=plan.growth,
    )
    if size == state.batch_size:
        return None
    state.grow(size, plan)
    return Decision("batch_size", size, because)
