"""Structured pruning: heads, feed-forward neurons and whole layers, cut out of the tensors.

What is left is an ordinary, smaller network, that needs no mask and no special kernel. Layers, and feed-forward widths
that are the same in every layer, are what a Hugging Face config can say; heads that differ in number from layer to
layer are not (`BertConfig.layer_heads`), and `transformers` cannot read such a directory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bertsmith.compress.importance import Importance
from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import Encoder
from bertsmith.model.pretrained import Pretrained

WIDTH_MULTIPLE = 8
"""Feed-forward widths are a multiple of it, since matrix products are fastest there."""


@dataclass(frozen=True)
class Cut:
    """What is kept, by the numbers that it has in the whole model, ascending."""

    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    """Of each kept layer."""
    neurons: tuple[tuple[int, ...], ...]
    """Of each kept layer; as many in all."""

    def config(self, whole: BertConfig) -> BertConfig:
        """The smaller model's."""
        heads = tuple(len(kept) for kept in self.heads)
        plain = all(number == whole.num_attention_heads for number in heads)
        return whole.replace(
            num_hidden_layers=len(self.layers),
            intermediate_size=len(self.neurons[0]),
            layer_heads=None if plain else heads,
        )


def choose_cut(
    config: BertConfig, importance: Importance, *, layers: int | None = None, heads: float = 1.0, neurons: float = 1.0
) -> Cut:
    """Keep what the loss hangs on most.

    Args:
        layers: how many; all where None.
        heads: share of the kept layers' heads, the most important of all layers together, each layer's importances
            divided by their norm (Molchanov et al. 2017, section 2.2), at least one a layer.
        neurons: share of each layer's feed-forward neurons, rounded to a multiple of `WIDTH_MULTIPLE`.

    Raises `UsageError` for a number that cannot be, or where everything would be kept.
    """
    depth = config.num_hidden_layers
    if layers is not None and not 1 <= layers <= depth:
        raise UsageError(f"layers = {layers}: the model has {depth}; keep from 1 to {depth}")
    for name, share in (("heads", heads), ("neurons", neurons)):
        if not 0 < share <= 1:
            raise UsageError(f"{name} = {share:g} is no share to keep; give a number above 0, up to 1")
    kept = _largest(importance.layers, depth if layers is None else layers)
    blocks = max(1, round(neurons * config.intermediate_size / WIDTH_MULTIPLE))
    width = min(config.intermediate_size, blocks * WIDTH_MULTIPLE)
    cut = Cut(
        layers=kept,
        heads=_heads([importance.heads[layer] for layer in kept], heads),
        neurons=tuple(_largest(importance.neurons[layer], width) for layer in kept),
    )
    if cut.config(config) == config:
        raise UsageError("this keeps all of the model; give fewer layers, or a smaller share of heads or neurons")
    return cut


def pruned(model: Pretrained, cut: Cut) -> Pretrained:
    """A new model of the same class with what the cut keeps; in evaluation mode."""
    config = cut.config(model.config)
    smaller = type(model)(config)
    name = next(name for name, module in model.named_modules() if isinstance(module, Encoder))
    prefix = f"{name}.layer."
    old = model.state_dict()
    tensors = {key: tensor for key, tensor in old.items() if not key.startswith(prefix)}
    for new, layer in enumerate(cut.layers):
        for key in [key for key in old if key.startswith(f"{prefix}{layer}.")]:
            part = key.removeprefix(f"{prefix}{layer}.")
            heads = _widened(cut.heads[new], config.head_size)
            tensors[f"{prefix}{new}.{part}"] = _kept(part, old[key], heads, torch.tensor(cut.neurons[new]))
    smaller.load_state_dict(tensors)
    return smaller.eval()


def _kept(part: str, tensor: Tensor, heads: Tensor, neurons: Tensor) -> Tensor:
    """What stays of one of a layer's tensors."""
    if part.startswith(("attention.self.query.", "attention.self.key.", "attention.self.value.")):
        return tensor[heads]
    if part == "attention.output.dense.weight":
        return tensor[:, heads]
    if part.startswith("intermediate.dense."):
        return tensor[neurons]
    return tensor[:, neurons] if part == "output.dense.weight" else tensor


def _widened(heads: Sequence[int], head_size: int) -> Tensor:
    """(heads * head,) where these heads' values stand."""
    return (torch.tensor(heads)[:, None] * head_size + torch.arange(head_size)).flatten()


def _largest(values: Tensor, count: int) -> tuple[int, ...]:
    """Ascending numbers of the largest values; of equal ones the first."""
    return tuple(sorted(values.argsort(descending=True, stable=True)[:count].tolist()))


def _heads(importances: Sequence[Tensor], share: float) -> tuple[tuple[int, ...], ...]:
    """Of each layer, those that are kept."""
    best = [_largest(values, 1)[0] for values in importances]
    normed = [values / values.norm().clamp_min(torch.finfo(values.dtype).tiny) for values in importances]
    order = sorted(
        ((layer, head) for layer, values in enumerate(normed) for head in range(len(values))),
        key=lambda place: (place[1] != best[place[0]], -float(normed[place[0]][place[1]])),
    )
    kept = set(order[: max(len(best), round(share * len(order)))])
    return tuple(
        tuple(head for head in range(len(values)) if (layer, head) in kept) for layer, values in enumerate(importances)
    )
