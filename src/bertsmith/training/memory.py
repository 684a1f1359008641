"""How much memory training takes, by formula."""

from dataclasses import asdict, dataclass
from typing import Literal

from bertsmith.model.config import BertConfig
from bertsmith.training.losses import BLOCK_LOGITS

FORMULA = (
    "weights 4 P, gradients 4 P', optimizer 8 P' (SGD: 4 P'), activations T [ L (c h + 2 b i + d) + b (h + 2 m h) ], "
    "vocabulary 4 h V + b min(m T V, 2^25) + 16 MB"
)
"""In bytes: P numbers in the network, P' that train, T tokens of a micro-batch with padding, b bytes of the dtype of
matrix products, c = 32 in float32 and 24 in 16 bits, m masked tokens per token; d = 2 h + (2 b + 1) a n with dropout
(a heads, n tokens of an example), else b a n in 16 bits and 0 in float32; on a GPU, where attention is fused, without
the terms in n."""

_OPTIMIZER_BYTES = {"adamw": 8, "adam": 8, "lamb": 8, "sgd": 4}
_PARTS_OF_LOGITS_BYTES = 16_000_000


@dataclass(frozen=True)
class Memory:
    """Bytes at the widest point of a step: the end of the forward pass."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    vocabulary: int
    """The gradient of the vocabulary's matrix, made with the loss, and the logits that exist at a time."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def memory(
    config: BertConfig,
    *,
    parameters: int,
    trained: int,
    rows: int,
    length: int,
    masks: float,
    dtype_bytes: int,
    optimizer: Literal["adamw", "adam", "lamb", "sgd"] = "adamw",
    checkpointing: bool = False,
    on_gpu: bool = False,
) -> Memory:
    """Bytes that a step with micro-batches of `rows` x `length` holds, by `FORMULA`, besides PyTorch itself (0.3 GB).

    Counted from what autograd keeps in eager mode; compiled code keeps less. With activation checkpointing a layer
    keeps its input (4 h), and one layer at a time the rest. Frozen lowest layers, which keep nothing, are counted.
    """
    h, layers = config.hidden_size, config.num_hidden_layers
    tokens = rows * length
    per_token = _layer_bytes(config, length=length, dtype_bytes=dtype_bytes, on_gpu=on_gpu)
    kept = 4 * h * layers + per_token if checkpointing else per_token * layers
    ends = dtype_bytes * h + (h if config.hidden_dropout_prob else 0)  # embeddings, and what goes into the head
    casts = 2 * (4 * h**2 + 2 * h * config.intermediate_size) * layers if dtype_bytes < 4 else 0
    return Memory(
        weights=4 * parameters,
        gradients=4 * trained,
        optimizer=_OPTIMIZER_BYTES[optimizer] * trained,
        activations=round(tokens * (kept + ends) + tokens * dtype_bytes * h + 4 * dtype_bytes * masks * h) + casts,
        vocabulary=_vocabulary_bytes(config, masks=masks, dtype_bytes=dtype_bytes) if masks else 0,
    )


def _layer_bytes(config: BertConfig, *, length: int, dtype_bytes: int, on_gpu: bool) -> int:
    """A token's share of what a layer keeps for the backward pass."""
    h, found = config.hidden_size, 0
    found += (32 if dtype_bytes == 4 else 24) * h + 2 * dtype_bytes * config.intermediate_size
    if config.hidden_dropout_prob:
        found += 2 * h
    scores = 0 if on_gpu else max(config.heads, default=0) * length
    if config.attention_probs_dropout_prob:
        found += (2 * dtype_bytes + 1) * scores
    elif dtype_bytes < 4:
        found += dtype_bytes * scores
    return found


def _vocabulary_bytes(config: BertConfig, *, masks: float, dtype_bytes: int) -> int:
    logits = min(masks * config.vocab_size, BLOCK_LOGITS)
    return 4 * config.hidden_size * config.vocab_size + round(dtype_bytes * logits) + _PARTS_OF_LOGITS_BYTES
