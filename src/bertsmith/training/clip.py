"""Clipping: no update goes further than `clip` allows, which is given or picked from the first gradients' sizes.

The size of a gradient is its norm (`clip_by` "norm") or the largest of its absolute numbers ("value").
"""

import statistics
from typing import Literal

import torch
from torch import Tensor

from bertsmith.training.state import State

RECORDED_UPDATES = 100
PERCENTILE = 90
LIMIT_WHILE_RECORDING = 1.0

Decision = tuple[float, str]


def clip_gradients(
    gradients: list[Tensor],
    *,
    size: float,
    clip: float | Literal["auto"],
    by: Literal["norm", "value"],
    state: State,
) -> tuple[bool, Decision | None]:
    """Clip finite `gradients` in place; True where there was something to clip, and a decision taken by this update.

        norm     g = g * min(1, clip / |g|), of all gradients together (Pascanu et al. 2013, arXiv:1211.5063)
        value    g = min(max(g, -clip), clip), each number by itself

    With `clip` "auto" the sizes of the first 100 updates of a phase are recorded in `state`, before clipping, and
    clipped at 1 meanwhile; then their 90th percentile is the limit for good. So nine in ten of them would have passed,
    whatever the scale of this loss (percentiles of the norm: Seetharaman et al. 2020, arXiv:2007.14469).

    Args:
        size: of all gradients together, over all ranks.
    """
    limit = _limit(clip, state)
    decision = _record(size, state) if clip == "auto" and state.clip is None else None
    if size <= limit:
        return False, decision
    if by == "norm":
        torch._foreach_mul_(gradients, limit / size)
    else:
        torch._foreach_clamp_max_(gradients, limit)
        torch._foreach_clamp_min_(gradients, -limit)
    return True, decision


def _limit(clip: float | Literal["auto"], state: State) -> float:
    if clip != "auto":
        return clip
    return LIMIT_WHILE_RECORDING if state.clip is None else state.clip


def _record(size: float, state: State) -> Decision | None:
    """Note a size; with the last one wanted, decide."""
    state.clip_sizes.append(size)
    if len(state.clip_sizes) < RECORDED_UPDATES:
        return None
    smallest, middle, largest = min(state.clip_sizes), statistics.median(state.clip_sizes), max(state.clip_sizes)
    state.clip = statistics.quantiles(state.clip_sizes, n=100, method="inclusive")[PERCENTILE - 1]
    state.clip_sizes = []
    return state.clip, (
        f"the {PERCENTILE}th percentile of the first {RECORDED_UPDATES} gradients, "
        f"{smallest:.3g} to {largest:.3g} with median {middle:.3g}"
    )
