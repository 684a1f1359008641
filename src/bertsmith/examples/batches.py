"""Batches for pre-training as pure functions of (seed, step): nothing to save, nothing to replay on resume.

Positions 0, 1, 2, ... run through the epochs; a keyed shuffle says which span stands at which position of its epoch.
Sixteen batches' worth of positions are taken together, sorted by length and cut into batches, which are then
shuffled, so that a batch has little padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertsmith.artifact import open_artifact
from bertsmith.errors import ArtifactError, DataError, UsageError
from bertsmith.examples.draws import Int64, example_keys, shuffled
from bertsmith.examples.mask import budgets, mask_tokens
from bertsmith.examples.pairs import NO_PAIR, Segments, draw_pairs, single_segments
from bertsmith.examples.shards import KIND, Spans, open_spans
from bertsmith.runtime import derive_seed
from bertsmith.tokenizer.encode import Tokenizer

EVALUATION_MASK_SHARE = 0.15
_WINDOW_BATCHES = 16
_EVALUATION_SEED = 0


@dataclass(frozen=True)
class PretrainBatch:
    """One micro-batch of examples, masked."""

    input_ids: Tensor
    """(batch, seq) int64."""
    attention_mask: Tensor
    """(batch, seq) int64: 1 for tokens, 0 for padding."""
    token_type_ids: Tensor
    """(batch, seq) int64: 0 for [CLS] A [SEP], 1 for B [SEP]."""
    masked_positions: Tensor
    """(masks,) int64 into the flattened (batch * seq); filled up with 0 to a count given by the shape alone."""
    masked_labels: Tensor
    """(masks,) int64: the hidden token; -100 where filled up."""
    next_sentence_label: Tensor
    """(batch,) int64: 0 = B follows A, 1 = B is from elsewhere, -100 = no pair."""
    same_document_negative: Tensor
    """(batch,) bool: B is from elsewhere in the same document."""
    counts: dict[str, int]
    """Items each objective's loss is summed over: {"mlm": masked tokens, "nsp": labelled pairs}."""
    num_tokens: int
    """Tokens without padding."""
    example_ids: tuple[int, ...]

    def to(self, device: torch.device | str) -> "PretrainBatch":
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class PretrainData:
    """One split of an examples artifact as batches.

    `pad_to`: batches are padded to a multiple of so many tokens; with `static_shapes`, all to the examples' longest,
    so that a compiled step sees one shape. The number of masked positions follows from the shape alone.
    """

    def __init__(
        self,
        examples_dir: Path,
        *,
        split: str,
        tokenizer: Tokenizer,
        objectives: Sequence[str] = ("mlm", "nsp"),
        mask_share: float = 0.15,
        seed: int,
        pad_to: int = 8,
        static_shapes: bool = False,
    ):
        artifact = open_artifact(examples_dir, KIND, verify=False)
        vocab_size = artifact.counts["vocab_size"]
        if vocab_size != tokenizer.vocab_size:
            raise ArtifactError(
                f"{examples_dir} was made with a vocabulary of {vocab_size}, the tokenizer given has "
                f"{tokenizer.vocab_size}; build the examples again with this tokenizer"
            )
        self.spans: Spans = open_spans(artifact, split)
        if not len(self.spans):
            raise DataError(
                f"the {split} split has no examples; add text or raise corpus.validation_share", path=examples_dir
            )
        self.max_length = int(artifact.config["max_length"])
        self.tokenizer, self.objectives, self.mask_share, self.seed = tokenizer, tuple(objectives), mask_share, seed
        self.pad_to, self.static_shapes = pad_to, static_shapes
        self._replacements: Int64 = np.flatnonzero(~tokenizer.never_drawn)
        self._window: tuple[tuple[int, int], list[Segments]] | None = None

    @property
    def num_examples(self) -> int:
        """Examples in an epoch."""
        return len(self.spans)

    def batch(
        self, step: int, batch_size: int, micro_batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> list[PretrainBatch]:
        """This rank's micro-batches of the global batch of update `step`, counted from 0."""
        if world_size > batch_size:
            raise UsageError(f"batch_size {batch_size} is less than the number of processes {world_size}; raise it")
        window, number = divmod(step, _WINDOW_BATCHES)
        rows = self._batches_of_window(window, batch_size)[number]
        # Every world_size-th example: all ranks get equally long ones, since the batch is sorted by length.
        mine = rows.take(np.arange(rank, batch_size, world_size))
        parts = range(0, len(mine.ids), micro_batch_size)
        return [
            self._assemble(mine.take(np.arange(start, min(start + micro_batch_size, len(mine.ids)))), self.seed)
            for start in parts
        ]

    def evaluation_batches(self, num_examples: int, batch_size: int) -> Iterator[PretrainBatch]:
        """The same examples, pairs and masks (15 %) each time and for every seed."""
        count = min(num_examples, len(self.spans))
        ids = shuffled(np.arange(count), len(self.spans), derive_seed("evaluation", _EVALUATION_SEED))
        rows = self._segments(ids, np.zeros_like(ids), _EVALUATION_SEED)
        rows = rows.take(np.argsort(rows.lengths, kind="stable"))
        for start in range(0, count, batch_size):
            part = rows.take(np.arange(start, min(start + batch_size, count)))
            yield self._assemble(part, _EVALUATION_SEED, mask_share=EVALUATION_MASK_SHARE)

    def _batches_of_window(self, window: int, batch_size: int) -> list[Segments]:
        """Examples of each batch of a window; the latest window is kept, since its batches are asked for in turn."""
        if self._window is None or self._window[0] != (window, batch_size):
            size = _WINDOW_BATCHES * batch_size
            ids, epochs = self._examples_at(np.arange(window * size, (window + 1) * size))
            rows = self._segments(ids, epochs, self.seed)
            by_length = np.argsort(rows.lengths, kind="stable")
            order = shuffled(np.arange(_WINDOW_BATCHES), _WINDOW_BATCHES, derive_seed("window", self.seed, window))
            batches = [rows.take(by_length[number * batch_size : (number + 1) * batch_size]) for number in order]
            self._window = ((window, batch_size), batches)
        return self._window[1]

    def _examples_at(self, positions: npt.NDArray[np.int64]) -> tuple[Int64, Int64]:
        """Span id and epoch at each position of the endless order."""
        epochs, within = np.divmod(positions, len(self.spans))
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            ids[rows] = shuffled(within[rows], len(self.spans), derive_seed("order", self.seed, int(epoch)))
        return ids, epochs

    def _segments(self, ids: Int64, epochs: Int64, seed: int) -> Segments:
        if "nsp" in self.objectives:
            return draw_pairs(self.spans, ids, epochs, seed=seed, max_length=self.max_length)
        return single_segments(self.spans, ids, epochs)

    def _assemble(self, rows: Segments, seed: int, *, mask_share: float | None = None) -> PretrainBatch:
        share = self.mask_share if mask_share is None else mask_share
        num_rows = len(rows.ids)
        longest = self.max_length if self.static_shapes else int(rows.lengths.max())
        length = min(-(-longest // self.pad_to) * self.pad_to, max(longest, self.max_length))
        input_ids = np.full((num_rows, length), self.tokenizer.pad_id, dtype=np.int64)
        positions = np.arange(length)
        a_ends = rows.a_lengths + 2  # [CLS] A [SEP]
        for row in range(num_rows):
            a_length, b_length, a_end = int(rows.a_lengths[row]), int(rows.b_lengths[row]), int(a_ends[row])
            line = input_ids[row]
            line[0] = self.tokenizer.cls_id
            line[1 : a_end - 1] = self.spans.tokens(int(rows.a_starts[row]), a_length)
            line[a_end - 1] = self.tokenizer.sep_id
            if b_length:
                line[a_end : a_end + b_length] = self.spans.tokens(int(rows.b_starts[row]), b_length)
                line[a_end + b_length] = self.tokenizer.sep_id
        real = positions < rows.lengths[:, None]  # (batch, seq)
        token_types = real & (positions >= a_ends[:, None])

        hidden, masked, labels = input_ids, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        num_masked = 0
        if "mlm" in self.objectives:
            keys = example_keys("mask", seed, rows.epochs, rows.ids)
            maskable = real & ~self.tokenizer.never_drawn[input_ids]
            hidden, chosen = mask_tokens(
                input_ids,
                maskable,
                keys,
                share=share,
                mask_id=self.tokenizer.mask_id,
                replacements=self._replacements,
            )
            found = np.flatnonzero(chosen)
            num_masked = len(found)
            slots = num_rows * int(budgets(np.array([length - 2]), share)[0])
            masked, labels = np.zeros(slots, dtype=np.int64), np.full(slots, -100, dtype=np.int64)
            masked[:num_masked], labels[:num_masked] = found, input_ids.reshape(-1)[found]
        counts = {"mlm": num_masked, "nsp": int((rows.labels != NO_PAIR).sum())}
        return PretrainBatch(
            input_ids=torch.from_numpy(hidden),
            attention_mask=torch.from_numpy(real.astype(np.int64)),
            token_type_ids=torch.from_numpy(token_types.astype(np.int64)),
            masked_positions=torch.from_numpy(masked),
            masked_labels=torch.from_numpy(labels),
            next_sentence_label=torch.from_numpy(rows.labels),
            same_document_negative=torch.from_numpy(rows.same_document),
            counts={name: counts[name] for name in self.objectives},
            num_tokens=int(rows.lengths.sum()),
            example_ids=tuple(rows.ids.tolist()),
        )
