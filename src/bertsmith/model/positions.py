"""A start for the position embeddings from which a network finds a word's neighbours sooner."""

import torch
from torch import Tensor

from bertsmith.model.encoder import Embeddings
from bertsmith.model.pretrained import Pretrained

_SLOWEST = 100.0
"""Tokens per radian of the longest wave: it turns once in 628 tokens, and no input has more than 512. (Vaswani et al.
have 10,000, for sentences of any length.)"""
_TIMES_THE_WORDS = 2.0
"""Amplitude over the standard deviation of fresh word embeddings: once is too faint, four times drowns the words
(bench/results/2026-11-21-short-pretraining.jsonl)."""


def sinusoids(num_positions: int, hidden_size: int) -> Tensor:
    """(num_positions, hidden_size): sine and cosine waves from 2 pi tokens long on, each a little longer.

    PE(p, i) = sin(p / w_i) in the first half of the columns and cos(p / w_i) in the second, w_i rising geometrically
    from 1: section 3.5 of Vaswani et al., 2017, arXiv:1706.03762, in another order of columns. A shift by k tokens is
    the same rotation wherever it begins, so that one matrix can learn "the word before".
    """
    half = (hidden_size + 1) // 2
    waves = _SLOWEST ** (torch.arange(half) / half)  # (half,) tokens per radian
    angles = torch.arange(num_positions)[:, None] / waves  # (num_positions, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :hidden_size]


def start_positions(model: Pretrained, how: str) -> None:
    """Of a fresh network: leave the position embeddings "random", or put `sinusoids` there, to be learned on from."""
    if how == "sinusoids":
        for module in model.modules():
            if isinstance(module, Embeddings):
                table = module.position_embeddings.weight
                with torch.no_grad():
                    table.copy_(_TIMES_THE_WORDS * model.config.initializer_range * sinusoids(*table.shape))
