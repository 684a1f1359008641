"""What the tasks have in common that predict words of a vocabulary: plain texts, losses, and scores.

An item's outputs are as many as the vocabulary has words. Training and scoring go through them in blocks, and of each
item only its loss and its likeliest words are kept; whole they are only where two readings are compared (R-Drop).
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.errors import DataError, UsageError
from bertsmith.model.heads import at_least_float32
from bertsmith.model.language import LanguageModel, PreTrainingOutputs
from bertsmith.tasks.base import Columns, Labels, Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.features import Features, Floats, Ints
from bertsmith.tasks.losses import ONE_OF_CLASSES, Shape
from bertsmith.tasks.resampling import Statistic, additive
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.tables import read_plain_rows
from bertsmith.tasks.texts import row_text
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.losses import BLOCK_LOGITS, masked_token_loss_sum

AnswerT = TypeVar("AnswerT")
PlainRow = TextRow[None]
OUTPUT = "word"
"""What config.json calls the outputs, which are too many to have names there."""
LOSS, PERPLEXITY, ACCURACY = "loss", "perplexity", "accuracy"
_LARGEST_LOSS = 700.0  # whose exponential is still a number


@dataclass(frozen=True)
class WordFeatures(Features):
    """Texts in parts that fit; items are the tokens at which a word is predicted."""

    tokenizer: Tokenizer = field(kw_only=True)

    def item_starts(self, num_rows: int) -> list[int]:
        """(rows + 1,) Where each row's items begin."""
        owner = self.row_of_example[self.item_groups]
        starts: list[int] = np.searchsorted(owner, np.arange(num_rows + 1)).tolist()
        return starts


@dataclass(frozen=True, slots=True)
class Tally:
    """What a row adds to the scores."""

    loss: float
    """Sum over its words of -log p, in nats."""
    words: int
    right: int
    """Words that are the likeliest."""


class WordTask(Task[PlainRow, AnswerT]):
    """Text -> words. Loss: cross-entropy over the vocabulary, mean over all words of a batch."""

    default_metric = LOSS
    metrics = (LOSS, PERPLEXITY, ACCURACY)
    smaller_is_better = frozenset({LOSS, PERPLEXITY})
    outputs = ONE_OF_CLASSES
    outputs_are_classes = False
    own_labels = (OUTPUT,)
    top: ClassVar[int]
    """How many of an item's likeliest words are kept."""

    @abstractmethod
    def tally(self, answer: AnswerT) -> Tally:
        """Of an answer to a row whose words are known."""

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[PlainRow]:  # noqa: ARG002
        columns.without_pairs("here each text is read by itself")
        if columns.label_names is not None:
            raise UsageError("label_names is for classes; here the words of the texts are learned")
        return read_plain_rows(source, text_column=columns.text, header=columns.header)

    def row(self, given: object, line: int) -> PlainRow | None:
        return TextRow(given, None, line) if isinstance(given, str) else None

    def labels_in(
        self,
        rows: Sequence[PlainRow],  # noqa: ARG002
        *,
        where: str | Path | None,  # noqa: ARG002
        declared: Sequence[str],
    ) -> Labels:
        if declared:
            raise UsageError("labels is for classes; here the words of the texts are learned")
        return self.own_labels

    def text_of(self, row: PlainRow) -> str:
        return row_text(row)

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """(items, vocab)"""
        return torch.cat(list(_logits(model, batch)))

    def loss_sum(self, model: nn.Module, batch: TaskBatch, shape: Shape | None = None) -> Tensor:  # noqa: ARG002
        """No shape is left to change it: it is for labels."""
        assert isinstance(model, LanguageModel), "the task's head"
        assert batch.targets is not None, "training rows have words to learn"
        return masked_token_loss_sum(_states(model, batch), model.decoder_weight, model.decoder_bias, batch.targets)

    def item_results(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """(items, 1 + 2 top) -log p of the target (0 without targets); log p of the likeliest words; their ids."""
        targets = torch.zeros_like(batch.items) if batch.targets is None else batch.targets
        parts, done = [], 0
        for block in _logits(model, batch):
            logits = at_least_float32(block)
            truth = targets[done : done + len(logits)]
            done += len(logits)
            total = logits.logsumexp(-1, keepdim=True)
            best = logits.topk(min(self.top, logits.shape[1]))
            loss = total - logits.gather(1, truth[:, None])
            loss = loss if batch.targets is not None else torch.zeros_like(loss)
            parts.append(torch.cat([loss, best.values - total, best.indices.to(loss.dtype)], dim=1))
        return torch.cat(parts)

    def losses_of(self, results: Floats, features: Features) -> npt.NDArray[np.float64]:  # noqa: ARG002
        return results[:, 0].astype(np.float64)

    def answer_of(self, row: PlainRow, prediction: AnswerT) -> AnswerT:  # noqa: ARG002
        return prediction

    def score(self, rows: Sequence[PlainRow], answers: Sequence[AnswerT], labels: Sequence[str]) -> dict[str, float]:  # noqa: ARG002
        """Of all words together, whatever row they stand in."""
        total = self._counts(answers).sum(axis=0)
        return {metric: float(_score(total[None], metric)[0]) for metric in self.metrics}

    def statistics(
        self,
        rows: Sequence[PlainRow],  # noqa: ARG002
        answers: Sequence[AnswerT],
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, Statistic]:
        """Rows count, and the words of a text with it: they hang together."""
        counts = self._counts(answers)
        return {metric: additive(counts, partial(_score, metric=metric)) for metric in self.metrics}

    def _counts(self, answers: Sequence[AnswerT]) -> npt.NDArray[np.float64]:
        """(rows, 3) loss, words, right."""
        found = [self.tally(answer) for answer in answers]
        return np.array([(one.loss, one.words, one.right) for one in found], dtype=np.float64).reshape(-1, 3)


def likeliest(results: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(items, top) probabilities and ids of each item's likeliest words."""
    top = (results.shape[1] - 1) // 2
    return np.exp(results[:, 1 : 1 + top].astype(np.float64)), results[:, 1 + top :].astype(np.int64)


def check_has_words(items: Ints | Sequence[int]) -> None:
    """Raise `DataError` where there is nothing to predict."""
    if not len(items):
        raise DataError("no text has a word that the tokenizer keeps; check the file and the column")


def perplexity(loss: float) -> float:
    """exp of a mean loss."""
    return math.exp(min(loss, _LARGEST_LOSS))


def _score(totals: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """(some, 3) loss, words, right -> (some,)"""
    words = np.maximum(totals[:, 1], 1)
    if metric == ACCURACY:
        return np.asarray(totals[:, 2] / words)
    loss = totals[:, 0] / words
    return loss if metric == LOSS else np.exp(np.minimum(loss, _LARGEST_LOSS))


def _logits(model: nn.Module, batch: TaskBatch) -> Iterator[Tensor]:
    """(some items, vocab) each, in order; a network that is a graph gives those of all tokens at once."""
    if not isinstance(model, LanguageModel):
        found = model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        whole: Tensor = found.prediction_logits if isinstance(found, PreTrainingOutputs) else found.logits
        yield whole.flatten(0, 1)[batch.items]
        return
    weight = model.decoder_weight
    for block in torch.split(_states(model, batch), max(1, BLOCK_LOGITS // len(weight))):
        yield F.linear(block, weight, model.decoder_bias)


def _states(model: LanguageModel, batch: TaskBatch) -> Tensor:
    """(items, hidden) what goes into the product with the vocabulary."""
    return model.masked_states(batch.input_ids, batch.items, batch.attention_mask, batch.token_type_ids).hidden
