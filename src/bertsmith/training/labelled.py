"""Labelled text as an objective of pre-training: cross-entropy of a classifier on [CLS], on the same encoder.

What a label is, is known further down (tasks); here is only what pre-training asks of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from bertsmith.model.language import LanguageModel
from bertsmith.model.pretrained import Pretrained
from bertsmith.training.plan import Due

OBJECTIVE = "label"


class LabelledText(Protocol):
    """Rows with labels: `tasks.labelled` makes one from a file."""

    @property
    def digest(self) -> str:
        """Hash of the rows and labels that the weights depend on."""

    @property
    def num_rows(self) -> int:
        """To train on."""

    @property
    def batch_size(self) -> int:
        """Rows in an update."""

    def classifier(self, model: LanguageModel) -> Pretrained:
        """A fresh head on the encoder of `model` itself, not on a copy."""

    def batches(self, due: Due) -> Sequence[Any]:
        """Micro-batches of an update, whose counts name the objective; a pure function of what is due."""

    def longest(self, num_rows: int) -> Any:
        """A micro-batch of so many of the longest rows, to measure memory with."""

    def loss_sum(self, classifier: nn.Module, batch: Any) -> Tensor:
        """Over the rows of a micro-batch."""

    def evaluate(self, classifier: nn.Module) -> tuple[float, Mapping[str, float]]:
        """Mean loss and scores on held-out rows."""

    def card(self, *, step: int, scores: Mapping[str, float]) -> Mapping[str, Any]:
        """The bertsmith.json of the classifier, with what `evaluate` last found."""


class WithClassifier(nn.Module):
    """A language model and a classifier on the same encoder, to be trained and saved as one."""

    def __init__(self, language: LanguageModel, classifier: Pretrained):
        super().__init__()
        self.language, self.classifier = language, classifier
