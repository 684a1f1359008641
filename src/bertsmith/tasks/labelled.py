"""Labelled text for pre-training: the classification task, as one more objective beside words and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.config import LabelledConfig
from bertsmith.model.config import PLAIN_HEAD
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.model.language import LanguageModel
from bertsmith.model.pretrained import Pretrained
from bertsmith.runtime import Runtime, derive_seed
from bertsmith.tasks.batches import TaskBatch, TrainingBatches
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.evaluate import score_outputs
from bertsmith.tasks.features import Features
from bertsmith.tasks.predict import check_max_length, compute_outputs
from bertsmith.tasks.rows import ClassRow
from bertsmith.tasks.splits import Splits, read_splits
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.labelled import OBJECTIVE
from bertsmith.training.plan import Due

_TASK = Classify()
_SCORES = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class LabelledRows:
    """A labelled file as `training.labelled.LabelledText`."""

    config: LabelledConfig
    tokenizer: Tokenizer
    seed: int
    runtime: Runtime

    @cached_property
    def splits(self) -> Splits:
        """The file's rows; raises `DataError` with file and line."""
        return read_splits(self.config, _TASK, seed=self.seed)

    @property
    def digest(self) -> str:
        return self.splits.training_digest()

    @property
    def num_rows(self) -> int:
        return len(self.splits.train)

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    def classifier(self, model: LanguageModel) -> Pretrained:
        """Raises `UsageError` where rows may be longer than the model's positions."""
        check_max_length(self.config.max_length, model.config, "of this pre-training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("head", self.seed))
            head = BertForSequenceClassification(model.config.replace(**PLAIN_HEAD).with_labels(self.splits.labels))
        head.bert = model.bert
        return head.to(self.runtime.device)

    def batches(self, due: Due) -> list[TaskBatch]:
        return self._training_batches.batch(due.step, due.micro_batch_size)

    def longest(self, num_rows: int) -> TaskBatch:
        return self._training_batches.longest(num_rows)

    def loss_sum(self, classifier: nn.Module, batch: TaskBatch) -> Tensor:
        assert batch.targets is not None, "training rows have labels"
        return _TASK.outputs.losses(_TASK.item_outputs(classifier, batch), batch.targets, None).sum()

    def evaluate(self, classifier: nn.Module) -> tuple[float, Mapping[str, float]]:
        features, pad_id = self._validation, self.tokenizer.pad_id
        outputs = compute_outputs(classifier, features, _TASK, pad_id=pad_id, runtime=self.runtime)
        scored = score_outputs(_TASK, self.splits.validation, features, outputs, self.splits.labels)
        return scored.loss, {f"{OBJECTIVE}_{name}": scored.scores[name] for name in _SCORES}

    def card(self, *, step: int, scores: Mapping[str, float]) -> dict[str, Any]:
        return {
            "format": 1,
            "task": _TASK.name,
            "labels": self.splits.labels,
            "max_length": self.config.max_length,
            "pairs": self.config.pair_column is not None,
            "metric": _TASK.default_metric,
            "step": step,
            "scores": {"validation": {name: scores[f"{OBJECTIVE}_{name}"] for name in _SCORES}},
        }

    @cached_property
    def _training_batches(self) -> TrainingBatches:
        return TrainingBatches(
            self._encode(self.splits.train),
            objective=OBJECTIVE,
            pad_id=self.tokenizer.pad_id,
            batch_size=self.config.batch_size,
            seed=self.seed,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
        )

    @cached_property
    def _validation(self) -> Features:
        return self._encode(self.splits.validation)

    def _encode(self, rows: Sequence[ClassRow]) -> Features:
        labels = self.splits.labels
        return _TASK.encode(rows, self.tokenizer, labels=labels, max_length=self.config.max_length)
