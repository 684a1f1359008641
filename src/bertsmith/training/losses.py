"""Pre-training losses as sums over items; the loop divides by the counts of the global batch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
BLOCK_LOGITS = 1 << 25
"""Logits held at a time in the autocast dtype: 64 MB in bfloat16. Few large products cost a CPU far less than many."""
_PART_LOGITS = 1 << 21
"""Of those, at a time in float32: 8 MB, which stay in a CPU's cache."""


def next_sentence_loss_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropy of (batch, 2) logits over pairs whose label is not -100."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(precise, labels, ignore_index=IGNORED, reduction="sum")


def next_sentence_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of pairs whose label has the greater of the (batch, 2) logits; a label of -100 is never right."""
    return (logits.argmax(dim=-1) == labels).sum()


def masked_token_loss_sum(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """The first of `masked_token_sums`."""
    return masked_token_sums(hidden, weight, bias, labels)[0]


def masked_token_sums(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy of softmax(hidden weight^T + bias) over items whose label is not -100, and how many of
    them are right: no word has a greater logit than the label.

        L       = sum_i  logsumexp_v z_iv - z_i,y_i          z = h W^T + b
        dL/dz   = softmax(z) - onehot(y)                     0 in rows that are ignored
        dL/dh   = dL/dz W     dL/dW = dL/dz^T h     dL/db = sum_i dL/dz_i

    The gradient is computed together with the loss and takes the logits' place, so that no more than a block of them
    exists, forward or backward. Matrix products run in the autocast dtype, the softmax and all sums in float32.

    Args:
        hidden: (masks, hidden) transformed states at the masked positions.
        weight: (vocab, hidden), bias: (vocab,) of the decoder.
        labels: (masks,) token ids, -100 where there is none.
    """
    sums: tuple[Tensor, Tensor] = _MaskedTokenSums.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    return sums


class _MaskedTokenSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        precise = torch.promote_types(weight.dtype, torch.float32)
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        wants_any = any(ctx.needs_input_grad)
        with torch.autocast(device, enabled=False):
            narrow_weight = weight.to(dtype)
            loss = torch.zeros((), dtype=precise, device=hidden.device)
            right = torch.zeros((), dtype=torch.int64, device=hidden.device)
            hidden_gradient = torch.empty_like(hidden) if wants_hidden else None
            weight_gradient: Tensor | None = None
            bias_gradient = torch.zeros_like(bias) if wants_bias else None
            size = max(1, BLOCK_LOGITS // len(weight))
            for start in range(0, len(hidden), size):
                block = slice(start, start + size)
                h = hidden[block].to(dtype)  # (block, hidden)
                logits = h @ narrow_weight.t()  # (block, vocab)
                loss_of_block, right_of_block = _softmax_(
                    logits, bias.to(precise), labels[block], bias_gradient=bias_gradient, wants_gradient=wants_any
                )
                loss += loss_of_block
                right += right_of_block
                if hidden_gradient is not None:
                    hidden_gradient[block] = logits @ narrow_weight
                if wants_weight:
                    product = logits.t() @ h
                    weight_gradient = product if weight_gradient is None else weight_gradient.to(weight.dtype) + product
            if wants_weight and weight_gradient is None:
                weight_gradient = torch.zeros_like(weight)
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.dtypes = (hidden.dtype, weight.dtype, bias.dtype)  # a single block's product is still in the narrow one
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden_gradient, weight_gradient, bias_gradient = (
            None if gradient is None else gradient.to(dtype, copy=True).mul_(upstream[0].to(dtype))
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return hidden_gradient, weight_gradient, bias_gradient, None


def _softmax_(
    logits: Tensor, bias: Tensor, labels: Tensor, *, bias_gradient: Tensor | None, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Sum of the losses and number of right answers of a block of `logits` (items, vocab), still without `bias`.

    Where it is wanted, their gradient takes their place, and its sum over items is added to `bias_gradient`.
    """
    loss = torch.zeros((), dtype=bias.dtype, device=bias.device)
    right = torch.zeros((), dtype=torch.int64, device=bias.device)
    counted = labels != IGNORED
    target = torch.where(counted, labels, 0)[:, None]
    counted = counted[:, None]
    size = max(1, _PART_LOGITS // logits.shape[1])
    for start in range(0, len(logits), size):
        part = slice(start, start + size)
        z = logits[part].to(bias.dtype).add_(bias)  # (part, vocab)
        greatest = z.amax(dim=1, keepdim=True)
        aside = greatest - z.gather(1, target[part])  # (part, 1) how far the truth is from the likeliest word
        shares = z.sub_(greatest).exp_()  # one pass of exponentials gives both the sum and the softmax
        total = shares.sum(dim=1, keepdim=True)
        loss += ((total.log() + aside) * counted[part]).sum()
        right += ((aside == 0) & counted[part]).sum()
        if not wants_gradient:
            continue
        gradient = shares.mul_(counted[part] / total)
        gradient.scatter_add_(1, target[part], -counted[part].to(bias.dtype))
        if bias_gradient is not None:
            bias_gradient += gradient.sum(dim=0)
        logits[part] = gradient
    return loss, right
