"""Vocabularies that grow, shrink, or do not fit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.config import BertConfig

_BY_TOKEN = (
    "embeddings.word_embeddings.weight",
    *(f"cls.predictions.{n}" for n in ("bias", "decoder.weight", "decoder.bias")),
)
"""Weights with a row for each token, under the names of Hugging Face, with or without `bert.`."""


def check_tokenizer_fits(vocab_size: int, config: BertConfig) -> None:
    """Raise `CheckpointError` where a tokenizer of `vocab_size` entries has ids that the model has no embedding for.

    A model with more embeddings than the tokenizer has entries is fine: published checkpoints are padded so.
    """
    if vocab_size > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {vocab_size:,} entries, the model {config.vocab_size:,} embeddings; use the tokenizer "
            f"that belongs to the model, or model.resize_token_embeddings({vocab_size})"
        )


def resized_embedding(old: nn.Embedding, num_embeddings: int, *, std: float) -> nn.Embedding:
    """A copy of `old` with `num_embeddings` rows: the first ones kept, new ones drawn as fresh weights are."""
    if num_embeddings < 1 or (old.padding_idx is not None and num_embeddings <= old.padding_idx):
        raise UsageError(f"{num_embeddings} token embeddings are too few; [PAD] alone is id {old.padding_idx}")
    new = nn.Embedding(
        num_embeddings,
        old.embedding_dim,
        padding_idx=old.padding_idx,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    kept = min(num_embeddings, old.num_embeddings)
    with torch.no_grad():
        nn.init.trunc_normal_(new.weight, std=std, a=-2 * std, b=2 * std)
        new.weight[:kept] = old.weight[:kept]
    new.weight.requires_grad_(old.weight.requires_grad)
    return new


def resized_bias(old: nn.Parameter, size: int) -> nn.Parameter:
    """A copy of `old` (vocab,) with `size` entries: the first ones kept, new ones 0."""
    new = old.detach().new_zeros(size)
    kept = min(size, old.shape[0])
    new[:kept] = old.detach()[:kept]
    return nn.Parameter(new, requires_grad=old.requires_grad)


def resized_decoder(old: nn.Linear, vocab_size: int, *, std: float) -> nn.Linear:
    """A copy of an untied decoder, (vocab, hidden), with `vocab_size` rows: the first ones kept, new ones fresh."""
    new = nn.Linear(old.in_features, vocab_size, bias=False, device=old.weight.device, dtype=old.weight.dtype)
    kept = min(vocab_size, old.out_features)
    with torch.no_grad():
        nn.init.trunc_normal_(new.weight, std=std, a=-2 * std, b=2 * std)
        new.weight[:kept] = old.weight[:kept]
    new.weight.requires_grad_(old.weight.requires_grad)
    return new


def with_new_tokens(tensors: Mapping[str, Tensor], old_ids: Mapping[int, Sequence[int]]) -> dict[str, Tensor]:
    """Weights of a checkpoint whose vocabulary has new tokens: a row of each is the mean of rows that are there.

    tensors: by name, as the checkpoint's files have them; what has no row for each token is returned as it is.
    old_ids: for each new token's id, the ids of the old pieces that stood for it. Word embeddings, and where there are
        such the decoder's weights and biases, (vocab, ...), get rows up to the last new id; old rows do not change.

    The mean is taken in float64 and rounded once to the tensor's dtype.
    """
    grown = dict(tensors)
    for name, old in tensors.items():
        if name.removeprefix("bert.") in _BY_TOKEN and old_ids:
            new = old.new_zeros(max(len(old), max(old_ids) + 1), *old.shape[1:])
            new[: len(old)] = old
            for number, pieces in old_ids.items():
                new[number] = old[list(pieces)].double().mean(dim=0).to(old.dtype)
            grown[name] = new
    return grown
