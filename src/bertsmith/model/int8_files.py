"""Directories of networks with 8-bit layers: int8 and scales in model.safetensors, ranges in config.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from bertsmith.errors import CheckpointError
from bertsmith.model.config import INT8, BertConfig
from bertsmith.model.encoder import BertModel, Embeddings, encoder_of
from bertsmith.model.int8 import PRODUCTS, Int8Embedding, Int8Layer, Int8Linear, LayerRanges, Range, quantized_rows
from bertsmith.model.language import LanguageModel
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import WORD_EMBEDDINGS, checkpoint_of, read_config, read_tensors, save_tensors

SCALE = "weight_scale"


_MATRICES = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)
_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


PretrainedT = TypeVar("PretrainedT", bound=Pretrained)


def save_int8(network: Pretrained, ranges: Mapping[int, LayerRanges], directory: Path) -> None:
    """Write a network with the layers of `ranges` in int8, and the word embeddings, where no decoder is tied to them.

    The directory is Hugging Face's but for the weights, and `quantization_config` in its config.json says so.
    """
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    matrices = [f"{_layer_of(network, number)}{name}.weight" for number in ranges for name in _MATRICES]
    matrices += [] if isinstance(network, LanguageModel) else [f"{_base_of(network)}{WORD_EMBEDDINGS}"]
    for name in matrices:
        state[name], scale = quantized_rows(state[name])
        state[f"{name.removesuffix('weight')}{SCALE}"] = scale
    facts = {
        "quant_method": INT8,
        "embeddings": not isinstance(network, LanguageModel),
        "layers": {str(number): [[one.scale, one.zero_point] for one in found] for number, found in ranges.items()},
    }
    config = network.config.to_dict() | {"architectures": [network.architecture], "quantization_config": facts}
    save_tensors({name: tensor.cpu().contiguous() for name, tensor in state.items()}, config, directory)


def is_int8(config: BertConfig) -> bool:
    """Whether a directory with this config holds such a network."""
    facts = config.extra.get("quantization_config")
    return isinstance(facts, Mapping) and facts.get("quant_method") == INT8


def load_int8(directory: Path, head: type[PretrainedT]) -> PretrainedT:
    """A network that `save_int8` wrote, of class `head`, on the CPU and in evaluation mode.

    Raises `CheckpointError` naming what is missing, or is not as it should be.
    """
    config = read_config(directory)
    stored = Stored(directory, read_tensors(directory))
    checkpoint_of(directory, stored.tensors).check(config)
    ranges = _ranges_in(config, directory)
    with torch.device("meta"):
        network = head(config)
    layers = {
        number: stored.layer(_layer_of(network, number), config, number, found) for number, found in ranges.items()
    }
    table = None
    if config.extra["quantization_config"].get("embeddings"):
        table = stored.embedding(f"{_base_of(network)}{WORD_EMBEDDINGS}", config)
    stack, embeddings = encoder_of(network).layer, _embeddings_of(network)
    for number, layer in layers.items():
        stack[number] = layer
    if table is not None:
        embeddings.word_embeddings = table  # type: ignore[assignment]  # called as an embedding is
    stored.fill(network)
    return network.eval()


@dataclass
class Stored:
    """The tensors of a directory, each taken once, with its shape and type checked."""

    directory: Path
    tensors: dict[str, Tensor]

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        found = self.tensors.pop(name, None)
        if found is None:
            raise CheckpointError(f"{self.directory}: {name} is missing; the file is not whole")
        if tuple(found.shape) != shape or found.dtype != dtype:
            is_so = f"{tuple(found.shape)} of {found.dtype}"
            raise CheckpointError(f"{self.directory}: {name} is {is_so}; config.json asks for {shape} of {dtype}")
        if dtype == torch.float32 and not torch.isfinite(found).all():
            raise CheckpointError(f"{self.directory}: {name} holds numbers that are none")
        return found

    def matrix(self, name: str, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return self.take(f"{name}.weight", (rows, columns), torch.int8), self.take(f"{name}.{SCALE}", (rows,))

    def embedding(self, name: str, config: BertConfig) -> Int8Embedding:
        return Int8Embedding(*self.matrix(name.removesuffix(".weight"), config.vocab_size, config.hidden_size))

    def layer(self, prefix: str, config: BertConfig, number: int, ranges: LayerRanges) -> Int8Layer:
        hidden, inner, width = config.hidden_size, config.intermediate_size, config.heads[number] * config.head_size
        shapes = dict(
            zip(_MATRICES, (*[(width, hidden)] * 3, (hidden, width), (inner, hidden), (hidden, inner)), strict=True)
        )
        parts = [
            (*self.matrix(prefix + name, *shape), self.take(f"{prefix}{name}.bias", shape[:1]))
            for name, shape in shapes.items()
        ]
        weight, scale, bias = (torch.cat(some) for some in zip(*parts[:3], strict=True))
        of_input = dict(zip(PRODUCTS, ranges, strict=True))
        products = {
            "qkv": Int8Linear(weight, scale, bias, of_input["qkv"]),
            "out": Int8Linear(*parts[3], of_input["out"]),
            "up": Int8Linear(*parts[4], of_input["up"], activation=config.hidden_act, gives=of_input["down"]),
            "down": Int8Linear(*parts[5], of_input["down"]),
        }
        return Int8Layer(
            products,
            (self._norm(prefix + _NORMS[0], config), self._norm(prefix + _NORMS[1], config)),
            config.heads[number],
        )

    def _norm(self, name: str, config: BertConfig) -> nn.LayerNorm:
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        with torch.no_grad():
            norm.weight.copy_(self.take(f"{name}.weight", (config.hidden_size,)))
            norm.bias.copy_(self.take(f"{name}.bias", (config.hidden_size,)))
        return norm

    def fill(self, network: nn.Module) -> None:
        """All weights of the network that have no numbers yet."""
        for name, parameter in list(network.named_parameters()):
            if parameter.device.type == "meta":
                owner = network.get_submodule(name.rpartition(".")[0])
                found = nn.Parameter(self.take(name, tuple(parameter.shape)), requires_grad=False)
                setattr(owner, name.rpartition(".")[2], found)


def _ranges_in(config: BertConfig, directory: Path) -> dict[int, LayerRanges]:
    found = {}
    try:
        for key, values in config.extra["quantization_config"]["layers"].items():
            ranges = tuple(Range(float(scale), int(zero_point)) for scale, zero_point in values)
            if not 0 <= int(key) < config.num_hidden_layers or len(ranges) != len(PRODUCTS):
                raise ValueError(f"layer {key}")
            if not all(0 < one.scale < math.inf and 0 <= one.zero_point <= 255 for one in ranges):
                raise ValueError(f"ranges of layer {key}")
            found[int(key)] = ranges
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{directory / 'config.json'}: quantization_config is not as bertsmith writes it ({error})"
        ) from error
    return found


def _base_of(network: nn.Module) -> str:
    """What stands before `embeddings` and `encoder` in the names of the network's weights."""
    return (
        next(name for name, module in network.named_modules() if isinstance(module, BertModel)) + "."
        if not isinstance(network, BertModel)
        else ""
    )


def _layer_of(network: nn.Module, number: int) -> str:
    return f"{_base_of(network)}encoder.layer.{number}."


def _embeddings_of(network: nn.Module) -> Embeddings:
    return next(module for module in network.modules() if isinstance(module, Embeddings))
