"""Networks of fewer bits that PyTorch runs: 8-bit layers with ranges measured on sample rows, and bfloat16."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bertsmith.model.encoder import encoder_of
from bertsmith.model.int8 import PRODUCTS, LayerRanges, Range
from bertsmith.model.int8_files import save_int8
from bertsmith.model.weights import read_card, save_tensors, write_card
from bertsmith.tasks.features import Features
from bertsmith.tasks.predict import PRECISION, Predictor

_INPUTS = dict(
    zip(PRODUCTS, ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"), strict=True)
)
"""Whose input is that of the product."""


@dataclass(frozen=True)
class TorchQuantizer:
    """Writes a model with some layers in int8."""

    whole: Predictor
    ranges: dict[int, LayerRanges]
    name = "torch"
    in_words = "by oneDNN in PyTorch; ranges of activations fixed by training rows"

    @classmethod
    def calibrated(cls, whole: Predictor, features: Features) -> "TorchQuantizer":
        """The smallest and the largest value that comes into each product while the network reads these rows."""
        seen: dict[tuple[int, str], tuple[float, float]] = {}

        def watch(key: tuple[int, str], layer: nn.Module, name: str) -> torch.utils.hooks.RemovableHandle:
            def on_input(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                low, high = torch.aminmax(inputs[0])
                least, most = seen.get(key, (0.0, 0.0))
                seen[key] = min(least, float(low)), max(most, float(high))

            return layer.get_submodule(name).register_forward_pre_hook(on_input)

        layers = list(encoder_of(whole.model).layer)
        hooks = [watch((n, part), layer, name) for n, layer in enumerate(layers) for part, name in _INPUTS.items()]
        try:
            whole.outputs(features)
        finally:
            for hook in hooks:
                hook.remove()
        ranges = {n: tuple(Range.of(*seen[n, part]) for part in PRODUCTS) for n in range(len(layers))}
        return cls(whole, ranges)

    def write(self, directory: Path, layers: frozenset[int]) -> None:
        save_int8(self.whole.model, {n: self.ranges[n] for n in sorted(layers)}, directory)
        write_beside(self.whole, directory)


def write_bfloat16(whole: Predictor, directory: Path) -> None:
    """The same network with its weights rounded to bfloat16; a half of the size."""
    network = whole.model
    tensors = {name: tensor.detach().bfloat16().contiguous() for name, tensor in network.state_dict().items()}
    facts = network.config.to_dict() | {"architectures": [network.architecture], "torch_dtype": "bfloat16"}
    save_tensors(tensors, facts, directory)
    write_beside(whole, directory)
    write_card(directory, read_card(directory) | {PRECISION: "bfloat16"})


def write_beside(whole: Predictor, directory: Path) -> None:
    """Tokenizer and bertsmith.json, without the scores of the model that it was made from."""
    whole.tokenizer.save(directory)
    card = {"task": whole.task.name, "options": whole.task.options} | read_card(whole.directory) | {"scores": {}}
    write_card(directory, card)
