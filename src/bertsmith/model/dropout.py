"""Dropout whose random bits cost little on a CPU.

PyTorch draws one 64-bit random number per element, one after another, which takes up to a sixth of a small BERT's
training step. Sixteen bits decide as well: one 64-bit draw serves four elements. Elsewhere PyTorch's own is used.
"""

import torch
from torch import Tensor, nn
from torch import library as operators
from torch.nn import functional as F

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zero each element with probability p in training, and scale the others so that the mean stays (Srivastava 2014).

    On a CPU p is rounded to a multiple of 2^-16, and the scale is that of the rounded p. Draws come from PyTorch's
    default generator; where p is 0 none is drawn.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped_levels = round(self.p * _LEVELS)
        keep = random_levels(x) >= dropped_levels - _LEVELS // 2
        return torch.where(keep, x * (_LEVELS / (_LEVELS - dropped_levels)), 0.0)

    def extra_repr(self) -> str:
        return f"p={self.p}"


@operators.custom_op("bertsmith::random_levels", mutates_args=(), tags=[torch.Tag.nondeterministic_seeded])
def random_levels(x: Tensor) -> Tensor:
    """int16 of x's shape, uniform over all 2^16 values; one operator, so that compiled code draws the same numbers."""
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[: x.numel()].view(x.shape)


@random_levels.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.int16)
