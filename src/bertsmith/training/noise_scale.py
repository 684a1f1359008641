"""The gradient noise scale: how many examples there must be in a batch before another one says little that is new.

    B_simple = tr(Sigma) / |G|^2

with G the true gradient and Sigma the covariance of single examples' gradients (McCandlish, Kaplan, Amodei et al. 2018,
arXiv:1812.06162, eq. 2.9). Below it, doubling the batch nearly halves the steps; far above it, it saves next to none.

Appendix A.1: the expected square of the norm of a gradient over B examples is |G|^2 + tr(Sigma) / B. Two batch sizes
are two equations for the two unknowns. The two are at hand where a batch is accumulated: its first micro-batch and the
whole. So an update costs one more norm of the gradient (a read of as many floats as there are parameters) and no
memory. Both unknowns are averaged over updates, each by itself, before they are divided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DECAY = 0.99
_UPDATES_BEFORE_AN_ESTIMATE = 20


@dataclass
class NoiseScale:
    """Running averages of |G|^2 and tr(Sigma), without a bias towards their start; plain JSON."""

    squared_norm: float = 0.0
    trace: float = 0.0
    updates: int = 0

    def add(self, *, small: float, small_norm: float, large: float, large_norm: float) -> None:
        """Count an update: `large_norm` is of the mean gradient of `large` examples, `small_norm` of the mean gradient
        of `small` of them; `small` < `large`.
        """
        small_square, large_square = small_norm**2, large_norm**2
        squared_norm = (large * large_square - small * small_square) / (large - small)
        trace = (small_square - large_square) / (1 / small - 1 / large)
        self.updates += 1
        share = max(1 - _DECAY, 1 / self.updates)  # a plain mean at first, so that nothing has to be unbiased later
        self.squared_norm += share * (squared_norm - self.squared_norm)
        self.trace += share * (trace - self.trace)

    def add_parts(self, first_share: float, first_norm: float, *, batch_size: int, norm: float) -> None:
        """Count an update: `first_norm` is of what the first micro-batch, `first_share` of the batch, added to the
        gradient, `norm` of the whole gradient. What is not finite is not counted.
        """
        small_norm = first_norm / first_share
        if math.isfinite(small_norm):
            small = first_share * batch_size
            self.add(small=small, small_norm=small_norm, large=batch_size, large_norm=norm)

    @property
    def value(self) -> float | None:
        """In examples; None while too little is measured, infinite where the true gradient drowns in the noise."""
        if self.updates < _UPDATES_BEFORE_AN_ESTIMATE:
            return None
        if self.squared_norm <= 0:
            return math.inf
        return max(self.trace, 0.0) / self.squared_norm


def rotated(count: int, step: int) -> list[int]:
    """0 to count - 1, beginning elsewhere in each step, so that every place in a batch comes first in turn.

    Batches are cut in order of length: the same place always would stand for short examples alone.
    """
    first = step % max(count, 1)
    return [*range(first, count), *range(first)]


def first_share(counts: Sequence[Mapping[str, int]], totals: Mapping[str, int]) -> float | None:
    """What share of a batch the first micro-batch is: of the items of each objective, averaged over objectives.

    `counts` are those of this rank's micro-batches, `totals` of the whole batch. None where the first one is all there
    is, where some have other objectives than others, or where nothing is labelled.
    """
    first = counts[0] if counts else {}
    unlike = any(each.keys() != first.keys() for each in counts)
    if not first or unlike or not all(totals[name] for name in first):
        return None
    share = sum(first[name] / totals[name] for name in first) / len(first)
    return share if 0 < share < 1 else None
