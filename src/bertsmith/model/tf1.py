"""Checkpoints of Google's own BERT code (TensorFlow 1): its names and layouts, turned into those of Hugging Face.

A kernel is (inputs, outputs) there and (outputs, inputs) here; LayerNorm's `gamma` and `beta` are `weight` and `bias`.
What an optimizer kept is left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bertsmith.errors import CheckpointError
from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import BertModel
from bertsmith.model.heads import BertForQuestionAnswering, BertForSequenceClassification
from bertsmith.model.language import BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.tensor_bundle import TensorBundle
from bertsmith.model.weights import Checkpoint

_OPTIMIZER = re.compile(
    r"(^|/)(adam_m|adam_v|Adam|Adam_1|Momentum|LAMB\w*|AdamWeightDecayOptimizer\w*)(/|$)"
    r"|^(global_step|beta1_power|beta2_power|loss_scale\w*|good_steps)$|^(signal_early_stopping|current_loss_scale)\b"
)
_OWN_NAMES = {
    "bert/embeddings/word_embeddings": "embeddings.word_embeddings.weight",
    "bert/embeddings/position_embeddings": "embeddings.position_embeddings.weight",
    "bert/embeddings/token_type_embeddings": "embeddings.token_type_embeddings.weight",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
}
"""Those that follow no rule; the last four are of run_squad.py and run_classifier.py."""
_LAST = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


@dataclass(frozen=True)
class Imported:
    """A network with a checkpoint's weights, and how many variables were an optimizer's."""

    network: Pretrained
    left_out: int
    unknown: tuple[str, ...]
    """Variables that are neither a BERT's nor an optimizer's."""


def read_tf1(prefix: Path, config: BertConfig) -> Imported:
    """The network of PREFIX.index, with whatever heads are in it.

    Raises `CheckpointError` where it is damaged, is no BERT, or has other shapes than `config`.
    """
    bundle = TensorBundle(prefix)
    names = dict(_named(bundle))
    tensors: dict[str, Tensor] = {}
    for own, name in names.items():
        tensor = bundle.read(name)
        if name.endswith("/kernel"):
            if tensor.dim() != 2:
                raise CheckpointError(f"{bundle.index}: {name} has shape {tuple(tensor.shape)}; expected a matrix")
            tensor = tensor.T.contiguous()
        tensors[own] = tensor
    checkpoint = Checkpoint(bundle.index, tensors)
    checkpoint.check(config)
    head = _head(tensors)
    if head is BertForSequenceClassification:
        config = config.replace(num_labels=len(tensors["classifier.bias"].view(-1)))
    with torch.device("meta"):  # no time spent on numbers that the checkpoint replaces
        network = head(checkpoint.settle_tying(config)).eval()
    network.to_empty(device="cpu").start_fresh()
    report = checkpoint.load_into(network)
    if report.fresh:
        raise CheckpointError(
            f"{bundle.index} lacks {', '.join(report.fresh[:3])} of a {head.__name__}, or has another shape; "
            "it is not a whole BERT, or bert_config.json is another model's"
        )
    unknown = tuple(sorted(_unknown(bundle, names)))
    return Imported(network, len(bundle.entries) - len(names) - len(unknown), (*unknown, *report.unexpected))


def _named(bundle: TensorBundle) -> Iterator[tuple[str, str]]:
    """(our name, theirs) of every variable that is a weight of a BERT."""
    for name in sorted(bundle.entries):
        if _OPTIMIZER.search(name) is None and (own := _own_name(name)) is not None:
            yield own, name


def _own_name(name: str) -> str | None:
    if name in _OWN_NAMES:
        return _OWN_NAMES[name]
    *path, last = name.split("/")
    if path[:1] not in (["bert"], ["cls"]) or last not in _LAST:
        return None
    parts = [re.sub(r"^layer_(\d{1,9})$", r"layer.\1", part) for part in path]
    return ".".join([*(parts[1:] if parts[0] == "bert" else parts), _LAST[last]])


def _unknown(bundle: TensorBundle, names: Mapping[str, str]) -> list[str]:
    """Variables that are neither a BERT's nor an optimizer's."""
    ours = set(names.values())
    return [name for name in bundle.entries if name not in ours and _OPTIMIZER.search(name) is None]


def _head(tensors: Mapping[str, Tensor]) -> type[Pretrained]:
    """By the weights that only it has."""
    words, pairs = "cls.predictions.bias" in tensors, "cls.seq_relationship.weight" in tensors
    if words:
        return BertForPreTraining if pairs else BertForMaskedLM
    if pairs:
        return BertForNextSentencePrediction
    if "qa_outputs.weight" in tensors:
        return BertForQuestionAnswering
    return BertForSequenceClassification if "classifier.bias" in tensors else BertModel
