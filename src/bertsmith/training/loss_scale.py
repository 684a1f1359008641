"""Loss scaling, without which float16 gradients vanish below 6e-8 (Micikevicius et al. 2018, arXiv:1710.03740).

The loss is multiplied by a power of two before the backward pass and the gradient divided by it afterwards, which
changes no digit unless a number overflows: then the update is skipped and the scale halved. After 2,000 updates in a
row without overflow it is doubled. Scale and count are in `State`, so that a resumed run goes on with them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bertsmith.training.state import State

FIRST_SCALE = 2.0**16
UPDATES_BEFORE_GROWTH = 2_000


def scale_of(state: State, dtype: torch.dtype) -> float:
    """By which to multiply the loss of the next update; 1 where `dtype`, of matrix products, is not float16."""
    if dtype != torch.float16:
        return 1.0
    if state.loss_scale is None:
        state.loss_scale = FIRST_SCALE
    return state.loss_scale


def unscale(gradients: Sequence[Tensor], scale: float) -> None:
    """Divide gradients in place by the scale that their loss had."""
    if scale != 1.0 and gradients:
        torch._foreach_mul_(list(gradients), 1.0 / scale)


def grow(state: State) -> None:
    """After an update that was applied."""
    if state.loss_scale is None:
        return
    state.updates_at_loss_scale += 1
    if state.updates_at_loss_scale == UPDATES_BEFORE_GROWTH:
        state.loss_scale *= 2.0
        state.updates_at_loss_scale = 0


def shrink(state: State) -> bool:
    """After an update whose numbers were not finite; True where the scale may have been the cause, and was halved."""
    if state.loss_scale is None or state.loss_scale <= 1.0:
        return False
    state.loss_scale /= 2.0
    state.updates_at_loss_scale = 0
    return True
