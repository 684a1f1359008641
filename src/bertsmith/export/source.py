"""What is exported: a model that answers as a task does, or one that is pre-trained and no more."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.export.check import Checked
from bertsmith.model.encoder import BertModel
from bertsmith.model.int8_files import is_int8
from bertsmith.model.language import BertForPreTraining
from bertsmith.model.onnx_network import is_onnx
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import detect
from bertsmith.tasks.predict import Predictor, check_tokenizer, check_trained, own_card
from bertsmith.tokenizer.encode import Tokenizer

_WITHOUT_TASK: dict[str, type[Pretrained]] = {"BertForPreTraining": BertForPreTraining, "BertModel": BertModel}
"""Classes of directories that no task of ours answers with."""


@dataclass(frozen=True)
class Exported:
    """A directory that was written and checked."""

    directory: Path
    checked: Checked
    megabytes: float
    """Of its weights."""


@dataclass(frozen=True)
class Source:
    """A model in memory, in float32 on the CPU."""

    directory: Path
    network: Pretrained
    tokenizer: Tokenizer
    card: dict[str, Any]
    """Of its bertsmith.json, with the task that it answers as."""
    predictor: Predictor | None
    """None where it is pre-trained and no more."""


def open_source(model: str | Path, *, task: str | None = None) -> Source:
    """The model of a run, a directory or a hub name; `task`: by default what the model says.

    Raises `CheckpointError` where it is not whole, and `UsageError` where it is an export itself.
    """
    directory = resolve_model_dir(model)
    if is_onnx(directory):
        raise UsageError(f"{directory} is an ONNX graph already; give the model that it came from")
    if is_int8(read_config(directory)):
        raise UsageError(
            f"{directory} has layers of 8 bits, which only bertsmith reads; give the model that it came from"
        )
    card = own_card(directory)
    plain = _class_without_task(directory) if task is None and "task" not in card else None
    if plain is not None:
        network, tokenizer = plain.from_pretrained(directory), Tokenizer.load(directory)
        check_trained(network, directory, "head", "give a whole model")
        check_tokenizer(tokenizer, network.config, directory)
        return Source(directory, network, tokenizer, card, None)
    predictor = in_float32(Predictor.load(directory, task=task, runtime=detect(device="cpu", dtype="float32")))
    card |= {"task": predictor.task.name, "options": predictor.task.options, "max_length": predictor.max_length}
    return Source(directory, predictor.model, predictor.tokenizer, card, predictor)


def in_float32(model: Predictor) -> Predictor:
    """The same where it computes in bfloat16 otherwise, so that what is compared differs by nothing but its weights."""
    if model.runtime.dtype == torch.float32:
        return model
    return replace(model, model=model.model.float(), runtime=replace(model.runtime, dtype=torch.float32))


def _class_without_task(directory: Path) -> type[Pretrained] | None:
    names = read_config(directory).extra.get("architectures") or []
    if not isinstance(names, list):
        raise CheckpointError(f"{directory / 'config.json'}: architectures is no list")
    return next((_WITHOUT_TASK[name] for name in names if name in _WITHOUT_TASK), None)
