"""How much a model's loss hangs on each head, feed-forward neuron and layer.

    I(part) = mean over rows of | sum over tokens of h · dL/dh |

with h what the part adds: a neuron's activation, a head's values, a layer's output less its input. To first order that
is by how much the loss changes when the part is left out (Molchanov et al. 2017, arXiv:1611.06440, eq. 7; of heads
Michel et al. 2019, arXiv:1905.10650, eq. 2).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.model.encoder import Layer, encoder_of
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TaskBatch


@dataclass(frozen=True)
class Importance:
    """Of each part of a model; a list has a tensor a layer."""

    layers: Tensor  # (layers,)
    heads: list[Tensor]  # (heads of the layer,)
    neurons: list[Tensor]  # (inner,)
    rows: int
    """Sequences over which it is the mean."""


def measure_importance(model: Pretrained, task: Task[Any, Any], batches: Iterable[TaskBatch]) -> Importance:
    """Read labelled batches, forward and backward, without dropout; weights, their gradients and the mode stay as they
    are.
    """
    layers = list(encoder_of(model).layer)
    taken = [_Taken() for _ in layers]
    hooks = [hook for layer, parts in zip(layers, taken, strict=True) for hook in parts.listen(layer)]
    was_training, rows = model.training, 0
    model.eval()
    try:
        for batch in batches:
            loss = task.loss_sum(model, batch)
            states = [state for parts in taken for state in parts.now.values()]
            gradients = iter(torch.autograd.grad(loss, states))
            for parts in taken:
                parts.count(gradients)
            rows += len(batch.input_ids)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    if not rows:
        raise ValueError("no rows to measure importance by")
    return Importance(
        layers=torch.stack([parts.sums["layer"].squeeze(0) for parts in taken]) / rows if taken else torch.zeros(0),
        heads=[parts.sums["heads"] / rows for parts in taken],
        neurons=[parts.sums["neurons"] / rows for parts in taken],
        rows=rows,
    )


class _Taken:
    """What one layer's parts say in the batch that is read, and their importance so far."""

    def __init__(self) -> None:
        self.now: dict[str, Tensor] = {}
        self.before: Tensor | None = None
        self.sums: dict[str, Tensor] = {}
        self._num_heads = 0

    def listen(self, layer: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        assert isinstance(layer, Layer)
        self._num_heads = layer.attention.self.num_heads
        return [
            layer.attention.self.register_forward_hook(partial(self._on_output, "heads")),
            layer.intermediate.register_forward_hook(partial(self._on_output, "neurons")),
            layer.register_forward_hook(partial(self._on_output, "layer")),
        ]

    def count(self, gradients: Iterator[Tensor]) -> None:
        """Add the importance of the batch that was read; `gradients`: of `now`, in its order."""
        for (name, state), gradient in zip(self.now.items(), gradients, strict=False):
            added = state.detach()
            if name == "layer":
                assert self.before is not None
                added = added - self.before
            by_row = (added * gradient).float().sum(1)  # (batch, width), over tokens
            parts = {"heads": self._num_heads, "layer": 1}.get(name, by_row.shape[-1])
            found = by_row.view(len(by_row), parts, -1).sum(-1).abs().sum(0).cpu()  # (parts,), over rows
            self.sums[name] = self.sums[name] + found if name in self.sums else found
        self.now = {}

    def _on_output(self, name: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        self.now[name] = state
        if name == "layer":
            self.before = inputs[0].detach()
