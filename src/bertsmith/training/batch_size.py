"""How large a batch is: chosen once, ramped up, or grown as the gradient's noise asks for it.

A change takes effect before a step whose number within the phase is a multiple of `STEPS_BETWEEN_CHANGES`: examples are
drawn for so many batches at a time, so every example still comes once in an epoch. The loop keeps all changes in its
state. Which examples a step reads follows from them alone.

The learning rate stays what its schedule says when a batch grows. With Adam the step's length hardly depends on the
noise in the gradient, and more examples with the same rate do what a falling rate does (Smith et al. 2018,
arXiv:1711.00489).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bertsmith.examples.batches import GROUP_BATCHES

STEPS_BETWEEN_CHANGES = GROUP_BATCHES
_STEPS_BETWEEN_CHECKS = 4 * STEPS_BETWEEN_CHANGES


@dataclass(frozen=True)
class Place:
    """Where a step's batch begins among the examples of a phase."""

    batch_size: int
    first_position: int
    """Of the first batch of this size; positions count examples from 0 through all epochs."""
    number: int
    """Batches of this size before it."""

    @property
    def position(self) -> int:
        """Examples of the phase before it."""
        return self.first_position + self.number * self.batch_size


def place_of(step: int, changes: Sequence[Sequence[int]]) -> Place:
    """The place of a phase's step, counted from 0; `changes` are (step, batch size) in order, the first at step 0."""
    position = 0
    for (begin, size), (end, _) in zip(changes, [*changes[1:], (step + 1, 0)], strict=True):
        if end > step:
            return Place(size, position, step - begin)
        position += (end - begin) * size
    raise AssertionError("the last size goes on for ever")


@dataclass(frozen=True)
class RampUp:
    """From `first` examples to `last` in steps of `first`, evenly over the first `share` of the phase."""

    first: int
    last: int
    share: float

    def size(self, progress: float) -> int:
        """Examples in a batch once `progress`, 0 to 1, of the phase is behind us."""
        if progress >= self.share:
            return self.last
        exact = self.first + (self.last - self.first) * max(progress, 0.0) / self.share
        return min(self.first * int(exact / self.first), self.last)


@dataclass(frozen=True)
class Growth:
    """Doubles the batch while the gradient noise scale is greater than it; never beyond `most`."""

    most: int

    def size(self, size: int, noise_scale: float | None) -> int:
        """The next size; `noise_scale` is None while it is not known."""
        if noise_scale is None or noise_scale <= size or 2 * size > self.most:
            return size
        return 2 * size


def next_size(
    step: int, size: int, *, progress: float, noise_scale: float | None, ramp_up: RampUp | None, growth: Growth | None
) -> tuple[int, str]:
    """Examples in the batches from `step` of the phase on, and why.

    A pure function, so that a resumed run decides alike. Growth begins where a ramp ends.
    """
    if step % STEPS_BETWEEN_CHANGES:
        return size, ""
    if ramp_up is not None and size < ramp_up.last:
        return max(size, ramp_up.size(progress)), f"ramp-up at {progress:.1%} of the phase"
    if growth is not None and step % _STEPS_BETWEEN_CHECKS == 0:
        scale = "beyond measure" if noise_scale in (None, math.inf) else f"about {noise_scale:,.0f}"
        return growth.size(size, noise_scale), f"the gradient noise scale is {scale}, more than the batch of {size:,}"
    return size, ""


def equal_parts(batch_size: int, most: int) -> int:
    """The largest micro-batch of at most `most` examples that cuts a batch into equal parts, or into nearly equal ones
    where that would take more than twice as many.
    """
    fewest = math.ceil(batch_size / min(most, batch_size))
    for parts in range(fewest, 2 * fewest + 1):
        if batch_size % parts == 0:
            return batch_size // parts
    return math.ceil(batch_size / fewest)
