"""Features to padded batches: for training in a random order, bucketed by length; for evaluation all of them once.

Losses are sums over targets, so that micro-batches of any size add up to the loss of the whole batch.

Shapes: batch = sequences in a batch, seq = its longest one, items = outputs read in it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bertsmith.runtime import derive_seed
from bertsmith.tasks.features import Features, Ints, cut_share

WINDOW_BATCHES = 50
"""Rows are sorted by length within so many batches: on CoLA in batches of 32, 4 % of the tokens are then padding, where
rows in a random order have 51 %; each epoch still mixes the rows anew."""


@dataclass(frozen=True)
class TaskBatch:
    """Some examples, padded to the longest of their sequences."""

    input_ids: Tensor  # (batch, seq) int64
    attention_mask: Tensor | None  # (batch, seq) int64, 1 = token, 0 = padding; None where nothing is padded
    token_type_ids: Tensor | None  # (batch, seq) int64, 1 in the second text of a pair; None where there is no pair
    items: Tensor  # (items,) int64 positions into the flattened (batch * seq)
    targets: Tensor | None  # (items, ...), or (examples, ...) where items are alternatives: int64, float32 for numbers
    counts: dict[str, int]
    """Objective -> number of targets, by which its summed loss is divided."""
    num_tokens: int
    """Real tokens, padding not counted."""
    truncation_share: float
    """Share of these examples' tokens that were cut off."""
    example_ids: tuple[int, ...]
    """Numbers of the examples: rows of the table, where each is one."""
    item_groups: Tensor | None = None  # (items,) int64 example in this batch, ascending; None: items stand alone
    sequence_examples: Tensor | None = None  # (batch,) int64 example in this batch; None: one sequence each

    @property
    def example_kind(self) -> str:
        return "row"

    def take(self, examples: Sequence[int]) -> Self:
        """These of its examples alone, padded as before; `truncation_share` stays that of all."""
        chosen, seq = torch.as_tensor(examples, dtype=torch.int64), self.input_ids.shape[1]
        owner = torch.arange(len(self.input_ids)) if self.sequence_examples is None else self.sequence_examples
        new_example = torch.full((len(self.example_ids),), -1).index_put((chosen,), torch.arange(len(chosen)))
        sequences = torch.cat([(owner == example).nonzero().flatten() for example in examples])
        place = torch.full((len(owner),), -1).index_put((sequences,), torch.arange(len(sequences)))
        of_sequence = place[self.items // seq]
        is_kept = of_sequence >= 0
        order = of_sequence[is_kept].argsort(stable=True)
        mask = None if self.attention_mask is None else self.attention_mask[sequences]
        types = None if self.token_type_ids is None else self.token_type_ids[sequences]
        targets = self.targets
        if targets is not None:
            targets = targets[is_kept][order] if self.item_groups is None else targets[chosen]
        num_targets = int(is_kept.sum()) if self.item_groups is None else len(chosen)
        groups = None if self.item_groups is None else new_example[self.item_groups[is_kept][order]]
        return replace(
            self,
            input_ids=self.input_ids[sequences],
            attention_mask=mask,
            token_type_ids=types,
            items=(of_sequence * seq + self.items % seq)[is_kept][order],
            targets=targets,
            counts=dict.fromkeys(self.counts, num_targets),
            num_tokens=len(sequences) * seq if mask is None else int(mask.sum()),
            example_ids=tuple(self.example_ids[example] for example in examples),
            item_groups=groups,
            sequence_examples=None if self.sequence_examples is None else new_example[owner[sequences]],
        )

    def to(self, device: torch.device) -> Self:
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def assemble(
    features: Features, examples: Ints, *, objective: str, pad_id: int, also: Sequence[str] = (), least_length: int = 0
) -> TaskBatch:
    """Put `examples` into one batch, padded to the longest of their sequences, or to `least_length` tokens.

    also: objectives besides, of as many targets.
    """
    sequences, example_of_sequence = features.sequences(examples)
    lengths = features.tokens.lengths[sequences]
    seq = max(int(lengths.max()), least_length)
    source, owner = features.tokens.indices(sequences)
    input_ids = np.full((len(sequences), seq), pad_id, dtype=np.int64)
    inside = np.arange(seq) < lengths[:, None]  # (batch, seq): row-major, so it takes the tokens in their order
    input_ids[inside] = features.tokens.values[source]
    item_source, item_owner = features.items.indices(sequences)
    items = item_owner * seq + features.items.values[item_source]
    targets = None
    if features.targets is not None:
        targets = torch.from_numpy(features.targets[examples if features.alternatives else item_source])
    padded = len(owner) < input_ids.size
    types = None
    if features.second_starts is not None:
        starts = features.second_starts[sequences, None]
        types = torch.from_numpy((inside & (np.arange(seq) >= starts)).astype(np.int64))
    return TaskBatch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(inside.astype(np.int64)) if padded else None,
        token_type_ids=types,
        items=torch.from_numpy(items),
        targets=targets,
        counts=dict.fromkeys((objective, *also), len(examples) if features.alternatives else len(items)),
        num_tokens=len(owner),
        truncation_share=cut_share(int(features.cut_tokens[sequences].sum()), len(owner)),
        example_ids=tuple(examples.tolist()),
        item_groups=torch.from_numpy(example_of_sequence[item_owner]) if features.alternatives else None,
        sequence_examples=None if features.starts is None else torch.from_numpy(example_of_sequence),
    )


class TrainingBatches:
    """Batches of an endless series of epochs: `batch(step)` is a pure function of (seed, step).

    Each epoch's order is new. Within windows of `WINDOW_BATCHES` batches examples are sorted by length, so that a
    batch holds those of nearly one length; then the batches themselves are put in a random order. The last, smaller
    batch of an epoch is kept. `redraw(batch, epoch)` gives a micro-batch as it is in that epoch.
    """

    def __init__(
        self,
        features: Features,
        *,
        objective: str,
        also: Sequence[str] = (),
        redraw: Callable[[TaskBatch, int], TaskBatch] = lambda batch, _: batch,
        pad_id: int,
        batch_size: int,
        micro_batch_size: int | None = None,
        seed: int,
        window_batches: int = WINDOW_BATCHES,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.features = features
        self.objective, self.also = objective, also
        self.redraw = redraw
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
        none where there are fewer examples than ranks.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self.epoch_batches(epoch)
        mine = self._batches[number][self.rank :: self.world_size]
        size = micro_batch_size or self.micro_batch_size
        parts = [mine[start : start + size] for start in range(0, len(mine), size)]
        return [self._assemble(part, epoch=epoch) for part in parts]

    def longest(self, num_rows: int) -> TaskBatch:
        """A batch that takes as much memory as any of so many examples: those of the most sequences (choices), padded
        to the longest of all; the first of them again where there are not as many.
        """
        lengths, widths = self.features.lengths, self.features.widths
        examples = np.lexsort((-lengths, -widths))[:num_rows]
        examples = np.concatenate([examples, np.repeat(examples[:1], num_rows - len(examples))])
        return self._assemble(examples, epoch=0, least_length=int(lengths.max()))

    def _assemble(self, examples: Ints, *, epoch: int, least_length: int = 0) -> TaskBatch:
        batch = assemble(
            self.features,
            examples,
            objective=self.objective,
            also=self.also,
            pad_id=self.pad_id,
            least_length=least_length,
        )
        return self.redraw(batch, epoch)

    def distinct_tokens(self, steps: int) -> float:
        """Mean number of different tokens in each of the first updates."""
        counts = []
        for step in range(min(steps, self.steps_per_epoch)):
            ids = [part.input_ids.flatten() for part in self.batch(step)]
            counts.append(len(torch.unique(torch.cat(ids))) if ids else 0)
        return sum(counts) / len(counts)

    def epoch_batches(self, epoch: int) -> list[Ints]:
        """Numbers of the examples of each batch of an epoch, every one once."""
        lengths = self.features.lengths
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
    """(numbers of examples, batch): each once, longest first, in batches of at most `batch_tokens` tokens, padding
    included, or of one example.

    The longest come first so that memory runs out at once or not at all.
    """
    order = np.argsort(-features.lengths, kind="stable")
    widths = features.widths
    start = 0
    while start < len(order):
        longest = int(features.lengths[order[start]])
        room = max(1, batch_tokens // longest)
        most = np.searchsorted(np.cumsum(widths[order[start : start + room]]), room, side="right")
        examples = order[start : start + max(1, int(most))]
        yield examples, assemble(features, examples, objective=objective, pad_id=pad_id)
        start += len(examples)


def shuffled(count: int, seed: int) -> Ints:
    """0..count-1 in an order that depends on the seed alone: raw PCG64 output is the same in every numpy release."""
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
