"""Encoder layers whose products are of 8-bit integers: a quarter of the size, and quicker where the CPU has VNNI.

Weights are int8, symmetric, with a scale for each output (row); what comes into a product is uint8 with one scale and
zero point, fixed beforehand from sample texts, so that an answer never hangs on the texts beside it in a batch (Jacob
et al. 2018, arXiv:1712.05877, sections 2.1 and 2.3). Sums are int32. Query, key and value are one product, and the
activation is part of the product before it. Attention itself, LayerNorm, and heads stay in float32.

The products are oneDNN's, by the operators that PyTorch's own compiler uses for quantized models. Where the CPU or the
build has none, weights are turned back into float32: the answers are nearly the same, and no quicker.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.errors import UsageError
from bertsmith.model.encoder import ACTIVATION_FUNCTIONS
from bertsmith.runtime import cpu_has_int8

FUSED_ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
"""Those that oneDNN computes within the product before them, and what it calls them and their form."""
PRODUCTS = ("qkv", "out", "up", "down")
"""Of a layer, in the order in which they are computed."""


@functools.cache
def has_fast_int8() -> bool:
    """Whether this CPU multiplies 8-bit integers in hardware and this PyTorch has the operators for it."""
    has_operators = hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(has_operators) and cpu_has_int8()


@dataclass(frozen=True)
class Range:
    """What uint8 stands for: value = scale (number - zero_point)."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, low: float, high: float) -> "Range":
        """Of values from `low` to `high`, with 0 among them, which must be exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255, 1e-12)
        return cls(scale, round(-low / scale))

    def to_uint8(self, x: Tensor) -> Tensor:
        """Rounded, halves up, and cut off where it is out of range; float32 in."""
        return torch.add(self.zero_point + 0.5, x, alpha=1 / self.scale).clamp_(0, 255.5).to(torch.uint8)

    def to_float(self, x: Tensor) -> Tensor:
        return (x.float() - self.zero_point) * self.scale


LayerRanges = tuple[Range, ...]
"""Of what comes into each of `PRODUCTS`."""


def quantized_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) -> int8 of the same shape, and the scale of each row, (rows,)."""
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class Int8Linear(nn.Module):
    """x Wᵀ + b of uint8 and int8, and an activation after it.

    `weight` (out, in) int8; `scale` (out,), `bias` (out,) float32; `given`: the range of what comes in; `gives`: the
    range that the result is rounded to, or None for float32.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        given: Range,
        *,
        activation: str | None = None,
        gives: Range | None = None,
    ):
        super().__init__()
        self.given, self.gives, self.activation = given, gives, activation
        self.out_features = len(weight)
        self.is_fast = has_fast_int8()
        self.scale, self.bias = scale, bias
        self.zero_points = torch.zeros(len(weight), dtype=torch.int64)
        if self.is_fast:
            self.packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
        else:
            self.packed = weight.float() * scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) uint8 -> (..., out) float32, or uint8 where it `gives` a range."""
        after, form = FUSED_ACTIVATIONS.get(self.activation or "", ("none", ""))
        is_whole = self.is_fast and (self.activation is None or after != "none")
        if is_whole and self.gives is not None:
            return self._product(x, after, form, self.gives.scale, self.gives.zero_point, torch.uint8)
        if is_whole:
            return self._product(x, after, form, 1.0, 0, torch.float32)
        if self.is_fast:
            y = self._product(x, "none", "", 1.0, 0, torch.float32)
        else:
            y = F.linear(self.given.to_float(x), self.packed, self.bias)
        y = y if self.activation is None else ACTIVATION_FUNCTIONS[self.activation](y)
        return y if self.gives is None else self.gives.to_uint8(y)

    def _product(self, x: Tensor, after: str, form: str, scale: float, zero_point: int, dtype: torch.dtype) -> Tensor:
        given = (x, self.given.scale, self.given.zero_point, self.packed, self.scale, self.zero_points, self.bias)
        found: Tensor = torch.ops.onednn.qlinear_pointwise(*given, scale, zero_point, dtype, after, [], form)
        return found


class Int8Layer(nn.Module):
    """`Layer`, for answers alone."""

    def __init__(self, products: Mapping[str, Int8Linear], norms: tuple[nn.LayerNorm, nn.LayerNorm], num_heads: int):
        super().__init__()
        self.qkv, self.out, self.up, self.down = (products[name] for name in PRODUCTS)
        self.attention_norm, self.output_norm = norms
        self.num_heads = num_heads

    def forward(self, hidden: Tensor, bias: Tensor | None, *, want_attention: bool) -> tuple[Tensor, Tensor | None]:
        """As `Layer.forward`. Raises `UsageError` where attention is wanted, which it does not keep."""
        if want_attention:
            raise UsageError("a model of 8-bit integers keeps no attention; ask the model that it was made from")
        batch, seq, _ = hidden.shape
        qkv = self.qkv(self.qkv.given.to_uint8(hidden)).view(batch, seq, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, seq, head) each
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        context = context.transpose(1, 2).flatten(2)  # (batch, seq, heads * head)
        hidden = self.attention_norm(self.out(self.out.given.to_uint8(context)) + hidden)
        inner = self.up(self.up.given.to_uint8(hidden))  # (batch, seq, inner) uint8
        hidden = self.output_norm(self.down(inner) + hidden)
        return hidden, None


class Int8Embedding(nn.Module):
    """A table of vectors, each of int8 with a scale of its own. `weight` (words, hidden), `scale` (words,)."""

    def __init__(self, weight: Tensor, scale: Tensor):
        super().__init__()
        self.weight, self.scale = weight, scale

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, seq) -> (batch, seq, hidden) float32"""
        return self.weight[ids].float() * self.scale[ids][..., None]
