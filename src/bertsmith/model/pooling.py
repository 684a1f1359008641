"""From the states of a text's tokens to one vector (Reimers & Gurevych 2019, arXiv:1908.10084, section 3)."""

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "max"]


def pooled(hidden: Tensor, attention_mask: Tensor | None, how: Pooling) -> Tensor:
    """(batch, seq, width) to (batch, width): the mean over all tokens ([CLS] and [SEP] too, as sentence-transformers
    has it), the state of [CLS], or the largest of each dimension. `attention_mask` (batch, seq), 1 = token.
    """
    if how == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(1) if how == "mean" else hidden.amax(1)
    if how == "max":
        return hidden.masked_fill(attention_mask[..., None] == 0, -torch.inf).amax(1)
    mask = attention_mask[..., None].to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)
