"""What a fine-tuning starts from: the encoder of a checkpoint, or fresh weights of its shape, with a task's head."""

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertsmith.config import FinetuneConfig
from bertsmith.errors import UsageError
from bertsmith.model.config import PLAIN_HEAD
from bertsmith.model.positions import start_positions
from bertsmith.model.pretrained import Pretrained, init_weights
from bertsmith.model.weights import read_config
from bertsmith.runtime import derive_seed
from bertsmith.tasks.base import Task


@dataclass(frozen=True)
class StartingPoint:
    """Where the weights come from."""

    base: Path
    """A model directory."""
    random_weights: bool
    """Take only its shape."""
    position_init: str
    """Of random weights."""
    seed: int
    allow_pickle: bool = False
    known: tuple[str, ...] = ()
    """Labels of a head that learns on: what it says of them is kept, and others come after them."""
    fresh_head: bool = False
    """Whether the head is another one even where the base model's would fit."""

    def model(self, task: Task[Any, Any], labels: tuple[str, ...], config: FinetuneConfig) -> Pretrained:
        """The encoder with a head for these labels; seeded, so that a fresh head is the same again.

        A head that the base model already has is kept only if it was trained for just these labels in this order, or
        learns on.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("head", self.seed))
            base_config = read_config(self.base)
            overrides = {"problem_type": task.problem_type} | _dropouts(config) | _head(task, config)
            if self.random_weights:
                model = task.head(base_config.with_labels(labels).replace(**overrides))
                start_positions(model, self.position_init)
                return model
            model = task.head.from_pretrained(
                self.base, labels=self.known or labels, overrides=overrides, allow_pickle=self.allow_pickle
            )
            if self.known:
                widen(model, labels)
            elif self.fresh_head:
                model.start_fresh()
            elif task.outputs_are_classes and base_config.labels != labels:
                model.forget_labels()
            return model


def widen(model: Pretrained, labels: Sequence[str]) -> None:
    """Give a head outputs for labels after those that it has: its rows stay bit for bit, new ones are drawn afresh."""
    name = next(name for name, _ in model.named_modules() if name in ("classifier", "head.classifier"))
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, len(labels))
    init_weights(new, model.config.initializer_range)
    with torch.no_grad():
        new.weight[: old.out_features] = old.weight
        new.bias[: old.out_features] = old.bias
    model.set_submodule(name, new)
    model.config = model.config.with_labels(tuple(labels))


def with_own_head(task: Task[Any, Any], head: type[nn.Module], config: FinetuneConfig) -> Task[Any, Any]:
    """The task with this head; raises `UsageError` where the recipe describes another one, or the task takes none."""
    for key in ("pooling", "head_layers", "head_activation"):
        if getattr(config, key) is not None:
            raise UsageError(f"finetune.{key} is of the built-in heads; leave it out beside head = {head.__name__}")
    return task.with_head(head)


def head_digest(head: type[nn.Module]) -> dict[str, str | None]:
    """Which head it is: name, and hash of its source where that can be had, so that a changed one begins anew."""
    try:
        source = inspect.getsource(head)
    except (OSError, TypeError):  # typed at a prompt
        return {"name": head.__name__, "source": None}
    return {"name": head.__name__, "source": hashlib.sha256(source.encode()).hexdigest()}


def _dropouts(config: FinetuneConfig) -> dict[str, Any]:
    """Rates that the recipe changes, by their names in a model's config."""
    both = config.dropout
    rates = {
        "hidden_dropout_prob": both if config.hidden_dropout is None else config.hidden_dropout,
        "attention_probs_dropout_prob": both if config.attention_dropout is None else config.attention_dropout,
        "classifier_dropout": config.classifier_dropout,
    }
    return {name: rate for name, rate in rates.items() if rate is not None}


def _head(task: Task[Any, Any], config: FinetuneConfig) -> dict[str, Any]:
    """How the head is made: as the recipe says, else as the base model's is."""
    if not task.reads_whole_texts or task.own_head is not None:
        return PLAIN_HEAD | {"own_head": task.own_head}
    asked = {"head_pooling": config.pooling, "head_layers": config.head_layers, "head_act": config.head_activation}
    return {name: value for name, value in asked.items() if value is not None} | {"own_head": None}
