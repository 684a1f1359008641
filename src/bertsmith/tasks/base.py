"""What every task is made of: features laid end to end, batches bucketed by length, and the `Task` protocol.

A row of a table becomes token ids and *items*, the token positions at which the model gives an answer: a sentence to
classify has one item, a sentence to tag has one for each word (its first piece). Losses are sums over items, so that
micro-batches of any size add up to the loss of the whole batch.

Shapes: batch = rows in a batch, seq = its longest row, items = answers in the batch, labels = classes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.model.pretrained import Pretrained
from bertsmith.runtime import derive_seed
from bertsmith.tokenizer.encode import Tokenizer

RowT = TypeVar("RowT")
AnswerT = TypeVar("AnswerT")
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Labels = tuple[str, ...]

WINDOW_BATCHES = 50
"""Rows are sorted by length within so many batches: on CoLA in batches of 32, 4 % of the tokens are then padding, where
rows in a random order have 51 %; each epoch still mixes the rows anew."""


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length laid end to end: row `i` is `values[starts[i]:starts[i + 1]]`."""

    values: npt.NDArray[np.int32]
    starts: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        values = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=int(starts[-1]))
        return cls(values, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Ints:
        return np.diff(self.starts)

    def indices(self, rows: Ints) -> tuple[Ints, Ints]:
        """Where the values of `rows` stand in `values`, and to which of `rows` (0, 1, ...) each belongs."""
        lengths = self.lengths[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        before = np.cumsum(lengths) - lengths
        return np.arange(len(owner)) - before[owner] + self.starts[rows][owner], owner


@dataclass(frozen=True)
class Features:
    """A table as the model reads it, tokenised once."""

    tokens: Ragged
    """Token ids of each row, [CLS] and [SEP] included, cut at the longest length allowed."""
    items: Ragged
    """Token positions, within its row, at which each row's answers are read."""
    targets: Ints | Floats | None
    """(all items,) label id, or number, of each item, in the order of `items`; None where rows have no labels."""
    cut_tokens: Ints
    """(rows,) Tokens that each row lost because it was longer than allowed."""
    second_starts: Ints | None = None
    """(rows,) Token position at which the second text of a pair begins, or the row's end; None where no row is a pair.
    """
    lost_items: int = 0
    """Items that stood in the part cut off: a tagger cannot answer for these words."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def truncation_share(self) -> float:
        """Share of all tokens that were cut off."""
        return _cut_share(int(self.cut_tokens.sum()), len(self.tokens.values))


@dataclass(frozen=True)
class TaskBatch:
    """Some rows, padded to the longest of them."""

    input_ids: Tensor  # (batch, seq) int64
    attention_mask: Tensor | None  # (batch, seq) int64, 1 = token, 0 = padding; None where nothing is padded
    token_type_ids: Tensor | None  # (batch, seq) int64, 1 in the second text of a pair; None where there is no pair
    items: Tensor  # (items,) int64 positions into the flattened (batch * seq)
    targets: Tensor | None  # (items,) int64, or float32 where numbers are learned
    counts: dict[str, int]
    """Objective -> number of items, by which its summed loss is divided."""
    num_tokens: int
    """Real tokens, padding not counted."""
    truncation_share: float
    """Share of these rows' tokens that were cut off."""
    example_ids: tuple[int, ...]
    """Row numbers in the table."""

    @property
    def example_kind(self) -> str:
        return "row"

    def take(self, rows: Sequence[int]) -> "TaskBatch":
        """These of its rows alone, padded as before; `truncation_share` stays that of all."""
        chosen, seq = torch.as_tensor(rows, dtype=torch.int64), self.input_ids.shape[1]
        place = torch.full((len(self.input_ids),), -1).index_put((chosen,), torch.arange(len(rows)))
        of_row = place[self.items // seq]
        is_kept = of_row >= 0
        mask = None if self.attention_mask is None else self.attention_mask[chosen]
        types = None if self.token_type_ids is None else self.token_type_ids[chosen]
        return replace(
            self,
            input_ids=self.input_ids[chosen],
            attention_mask=mask,
            token_type_ids=types,
            items=(of_row * seq + self.items % seq)[is_kept],
            targets=None if self.targets is None else self.targets[is_kept],
            counts=dict.fromkeys(self.counts, int(is_kept.sum())),
            num_tokens=len(rows) * seq if mask is None else int(mask.sum()),
            example_ids=tuple(self.example_ids[row] for row in rows),
        )

    def to(self, device: torch.device) -> "TaskBatch":
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Columns:
    """Where a table keeps what a task reads; names, or numbers from 0."""

    text: str | int = "text"
    label: str | int = "label"
    pair: str | int | None = None
    """The second text of each row, where rows are pairs."""
    header: bool = True
    """False: the first line of a .tsv or .csv is a row."""
    label_names: str | Path | None = None
    """A file with a name a line: label `i` of the table is its line i (from 0)."""


class Task(Protocol[RowT, AnswerT]):
    """One kind of problem: row -> features -> head -> loss -> answer -> scores.

    Fine-tuning, evaluation and prediction know nothing else about a task.
    """

    name: str
    default_metric: str
    """Score that chooses the best checkpoint; larger is better."""
    metrics: tuple[str, ...]
    smaller_is_better: frozenset[str]
    """Those of the metrics that are better when smaller."""
    problem_type: str | None
    """What the config of such a model says it solves; None: it says nothing, or a usual classification."""

    @property
    def head(self) -> type[Pretrained]:
        """The class that answers: an encoder with this task's head."""

    def labels_in(self, rows: Sequence[RowT], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        """Names of the head's outputs, from training rows or as declared; `DataError` where nothing can be learned."""

    def check(self, rows: Sequence[RowT], labels: Sequence[str], *, where: str | Path | None) -> None:
        """Raise `DataError` at the first row with a label that is not among `labels`."""

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[RowT]:
        """Rows of a file, DataFrame, Arrow table or list; `DataError` with file and line where it is not right."""

    def encode(
        self, rows: Sequence[RowT], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        """Rows to features of at most `max_length` tokens; with `labels`, label names become their index."""

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """What the head says at each item: (items, labels)."""

    def item_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each item: (items, labels) and (items,) -> (items,)."""

    def decode(self, rows: Sequence[RowT], outputs: Floats, starts: Ints, labels: Sequence[str]) -> list[AnswerT]:
        """One answer a row; `outputs` is (all items, labels), and row `i` has outputs[starts[i]:starts[i + 1]]."""

    def answer_of(self, row: RowT, prediction: Any) -> AnswerT:
        """The answer of a simple model, which gives a label, a label for each word, or a number."""

    def score(self, rows: Sequence[RowT], answers: Sequence[AnswerT], labels: Sequence[str]) -> dict[str, float]:
        """Metric -> score of answers against the rows' own labels."""

    def interval(
        self, rows: Sequence[RowT], answers: Sequence[AnswerT], labels: Sequence[str], metric: str, *, seed: int
    ) -> tuple[float, float]:
        """95 % bootstrap interval of one score."""

    def record(self, number: int, row: RowT, answer: AnswerT) -> dict[str, Any]:
        """One line of predictions-SPLIT.jsonl (docs/metrics.md); `number` is the row's, from 0."""

    def labels_of(self, row: RowT) -> Labels:
        """The classes a row came with: one for a text, one a word for a sentence, none where it has none."""

    def predictions_of(self, answer: AnswerT) -> Labels:
        """The classes of an answer, as many."""

    def text_of(self, row: RowT) -> str:
        """The row as a person reads it."""

    def told(self, row: RowT, answer: AnswerT) -> tuple[str, str]:
        """The row's label and the answer as a person reads them."""


def item_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(outputs)[target] of each item, in float32 at least: (items, labels) and (items,) -> (items,)."""
    precise = outputs.float() if outputs.dtype == torch.bfloat16 else outputs
    return F.cross_entropy(precise, targets, reduction="none")


def assemble(features: Features, rows: Ints, *, objective: str, pad_id: int) -> TaskBatch:
    """Put `rows` into one batch, padded to the longest of them."""
    lengths = features.tokens.lengths[rows]
    seq = int(lengths.max())
    source, owner = features.tokens.indices(rows)
    input_ids = np.full((len(rows), seq), pad_id, dtype=np.int64)
    inside = np.arange(seq) < lengths[:, None]  # (batch, seq): row-major, so it takes the tokens in their order
    input_ids[inside] = features.tokens.values[source]
    item_source, item_owner = features.items.indices(rows)
    items = item_owner * seq + features.items.values[item_source]
    targets = None if features.targets is None else torch.from_numpy(features.targets[item_source])
    padded = len(owner) < input_ids.size
    types = None
    if features.second_starts is not None:
        types = torch.from_numpy((inside & (np.arange(seq) >= features.second_starts[rows, None])).astype(np.int64))
    return TaskBatch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(inside.astype(np.int64)) if padded else None,
        token_type_ids=types,
        items=torch.from_numpy(items),
        targets=targets,
        counts={objective: len(items)},
        num_tokens=len(owner),
        truncation_share=_cut_share(int(features.cut_tokens[rows].sum()), len(owner)),
        example_ids=tuple(rows.tolist()),
    )


class TrainingBatches:
    """Batches of an endless series of epochs: `batch(step)` is a pure function of (seed, step).

    Each epoch's order is new. Within windows of `WINDOW_BATCHES` batches rows are sorted by length, so that a batch
    holds rows of nearly one length; then the batches themselves are put in a random order. The last, smaller batch of
    an epoch is kept.
    """

    def __init__(
        self,
        features: Features,
        *,
        objective: str,
        pad_id: int,
        batch_size: int,
        micro_batch_size: int | None = None,
        seed: int,
        window_batches: int = WINDOW_BATCHES,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.features = features
        self.objective = objective
        self.pad_id = pad_id
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size or batch_size
        self.seed = seed
        self.window_batches = window_batches
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = -(-len(features) // batch_size)
        self._epoch = -1
        self._batches: list[Ints] = []

    def batch(self, step: int, micro_batch_size: int | None = None) -> list[TaskBatch]:
        """This rank's micro-batches of update `step`, counted from 0, of the size given here or else at the beginning;
        none where there are fewer rows than ranks.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self.epoch_batches(epoch)
        rows = self._batches[number][self.rank :: self.world_size]
        size = micro_batch_size or self.micro_batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [assemble(self.features, part, objective=self.objective, pad_id=self.pad_id) for part in parts]

    def longest(self, num_rows: int) -> TaskBatch:
        """So many of the longest rows, the longest of all again where there are not as many."""
        rows = np.argsort(-self.features.tokens.lengths, kind="stable")[:num_rows]
        rows = np.concatenate([rows, np.repeat(rows[:1], num_rows - len(rows))])
        return assemble(self.features, rows, objective=self.objective, pad_id=self.pad_id)

    def epoch_batches(self, epoch: int) -> list[Ints]:
        """Row numbers of each batch of an epoch, every row once."""
        lengths = self.features.tokens.lengths
        order = shuffled(len(lengths), derive_seed("rows", self.seed, epoch))
        window = self.batch_size * self.window_batches
        for start in range(0, len(order), window):
            part = order[start : start + window]
            order[start : start + window] = part[np.argsort(lengths[part], kind="stable")]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [batches[number] for number in shuffled(len(batches), derive_seed("batches", self.seed, epoch))]


def evaluation_batches(
    features: Features, *, objective: str, pad_id: int, batch_tokens: int
) -> Iterator[tuple[Ints, TaskBatch]]:
    """All rows once, longest first, in batches of at most `batch_tokens` tokens, padding included.

    The longest come first so that memory runs out at once or not at all.
    """
    order = np.argsort(-features.tokens.lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(features.tokens.lengths[order[start]])
        rows = order[start : start + max(1, batch_tokens // longest)]
        yield rows, assemble(features, rows, objective=objective, pad_id=pad_id)
        start += len(rows)


def shuffled(count: int, seed: int) -> Ints:
    """0..count-1 in an order that depends on the seed alone: raw PCG64 output is the same in every numpy release."""
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def _cut_share(cut: int, kept: int) -> float:
    return cut / max(1, cut + kept)
