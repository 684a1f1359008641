"""Batches for pre-training as pure functions of (seed, step): nothing to save, nothing to replay on resume.

Positions 0, 1, 2, ... run through the epochs; `order` says which span stands at which. Sixteen batches' worth of
positions are taken together, sorted by length and cut into batches, which are then shuffled, so that a batch has
little padding. Their tokens are read together too; what is done for a batch is done for all its rows at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bertsmith.artifact import open_artifact
from bertsmith.errors import ArtifactError, DataError, UsageError
from bertsmith.examples.assemble import Masking, PretrainBatch, Rows, assemble, joined
from bertsmith.examples.draws import Int64, shuffled
from bertsmith.examples.mask import MaskBy
from bertsmith.examples.order import Order, Visit
from bertsmith.examples.pairs import Segments, draw_orders, draw_pairs, single_segments
from bertsmith.examples.shards import KIND
from bertsmith.examples.spans import Spans, open_index, open_spans
from bertsmith.runtime import derive_seed
from bertsmith.tokenizer.encode import Tokenizer

EVALUATION_MASK_SHARE = 0.15
WINDOW_TOKENS = 64_000_000
GROUP_BATCHES = 16
"""Batches whose examples are sorted by length together."""
_EVALUATION_SEED = 0
_OPEN_WINDOWS = 2


class PretrainData:
    """One split of an examples artifact as batches.

    `objectives` say what an example is: a pair for "nsp" or "sop", a single span without them. `pad_to`: batches are
    padded to a multiple of so many tokens; with `static_shapes`, all to the examples' longest, so that a compiled step
    sees one shape. The number of masked positions follows from the shape alone.
    """

    def __init__(
        self,
        examples_dir: Path,
        *,
        split: str,
        tokenizer: Tokenizer,
        objectives: Sequence[str] = ("mlm", "nsp"),
        mask_share: float = 0.15,
        mask_by: MaskBy = "token",
        window_tokens: int = WINDOW_TOKENS,
        seed: int,
        pad_to: int = 8,
        static_shapes: bool = False,
    ):
        self._artifact = open_artifact(examples_dir, KIND, verify=False)
        vocab_size = self._artifact.counts["vocab_size"]
        if vocab_size != tokenizer.vocab_size:
            raise ArtifactError(
                f"{examples_dir} was made with a vocabulary of {vocab_size}, the tokenizer given has "
                f"{tokenizer.vocab_size}; build the examples again with this tokenizer"
            )
        self.split, self.index = split, open_index(self._artifact, split)
        if not self.index.num_spans:
            raise DataError(
                f"the {split} split has no examples; add text or raise corpus.validation_share", path=examples_dir
            )
        self.max_length = int(self._artifact.config["max_length"])
        self.tokenizer, self.objectives, self.seed = tokenizer, tuple(objectives), seed
        self.pad_to, self.static_shapes = pad_to, static_shapes
        self._masking = Masking.of(tokenizer, by=mask_by, share=mask_share if "mlm" in objectives else None)
        self._order = Order(self.index, window_tokens=window_tokens, seed=seed)
        self._evaluation_order = Order(self.index, window_tokens=window_tokens, seed=_EVALUATION_SEED)
        self._open: dict[tuple[int, ...], Spans] = {}
        self._group: tuple[tuple[int, ...], list[Rows]] | None = None

    @property
    def num_examples(self) -> int:
        """Examples in an epoch."""
        return self.index.num_spans

    @property
    def mask_share(self) -> float | None:
        """Share of tokens to guess; None where none are hidden."""
        return self._masking.share

    @property
    def pair_objective(self) -> str | None:
        """What is asked about pairs: "nsp" or "sop"; None where examples are single spans."""
        return next((name for name in ("nsp", "sop") if name in self.objectives), None)

    def batch(
        self,
        step: int,
        batch_size: int,
        micro_batch_size: int,
        *,
        mask_share: float | None = None,
        first_position: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> list[PretrainBatch]:
        """This rank's micro-batches of the global batch of update `step`, counted from 0; `mask_share` goes before the
        one that the data was made with, and is not more.

        Where batches become larger on the way, `step` counts those of this size, and `first_position` is where they
        begin. No example is left out or read twice if there was a multiple of `GROUP_BATCHES` of each size before.
        """
        if world_size > batch_size:
            raise UsageError(f"batch_size {batch_size} is less than the number of processes {world_size}; raise it")
        group, number = divmod(step, GROUP_BATCHES)
        mine = self._batches_of_group(group, batch_size, first_position, rank, world_size)[number]
        masking = self._masking if mask_share is None else self._masking.with_share(mask_share)
        if self.static_shapes:
            masking = replace(masking, most=self.mask_share or 0.0)
        return [
            self._assemble(mine.take(np.arange(start, min(start + micro_batch_size, len(mine)))), masking)
            for start in range(0, len(mine), micro_batch_size)
        ]

    def at(self, positions: Sequence[int]) -> PretrainBatch:
        """The examples at these positions of the order (epoch e begins at e * num_examples), in one batch."""
        return self._assemble(self.rows(positions), self._masking)

    def rows(self, positions: Sequence[int]) -> Rows:
        """What `at` makes its batch of, with the beginnings of words."""
        return self._rows(self._order, np.array(positions, dtype=np.int64))

    def evaluation_batches(self, num_examples: int, batch_size: int) -> Iterator[PretrainBatch]:
        """The same examples, pairs and masks (15 %) each time and for every seed."""
        rows = self._rows(self._evaluation_order, np.arange(min(num_examples, self.num_examples)))
        rows = rows.take(np.argsort(rows.segments.lengths, kind="stable"))
        masking = self._masking.with_share(EVALUATION_MASK_SHARE)
        for start in range(0, len(rows), batch_size):
            part = rows.take(np.arange(start, min(start + batch_size, len(rows))))
            yield self._assemble(part, masking, seed=_EVALUATION_SEED)

    def _batches_of_group(
        self, group: int, batch_size: int, first_position: int, rank: int, world_size: int
    ) -> list[Rows]:
        """This rank's rows of each batch of a group; the latest is kept, since its batches are asked for in turn."""
        key = (group, batch_size, first_position, rank, world_size)
        if self._group is None or self._group[0] != key:
            size = GROUP_BATCHES * batch_size
            first = first_position + group * size
            drawn = self._draw(self._order, np.arange(first, first + size))
            lengths = np.empty(size, dtype=np.int64)
            for visit, _, segments in drawn:
                lengths[visit.rows] = segments.lengths
            by_length = np.argsort(lengths, kind="stable").reshape(GROUP_BATCHES, batch_size)
            order = shuffled(np.arange(GROUP_BATCHES), GROUP_BATCHES, derive_seed("window", self.seed, group))
            # Every world_size-th example: all ranks get equally long ones, since the batch is sorted by length.
            mine = by_length[order, rank::world_size]  # (batches, rows of this rank)
            rows = _read(drawn, mine.reshape(-1), size)
            parts = np.arange(mine.size).reshape(mine.shape)
            self._group = (key, [rows.take(part) for part in parts])
        return self._group[1]

    def _rows(self, order: Order, positions: Int64) -> Rows:
        return _read(self._draw(order, positions), np.arange(len(positions)), len(positions))

    def _draw(self, order: Order, positions: Int64) -> list[tuple[Visit, Spans, Segments]]:
        drawn = []
        for visit in order.visits(positions):
            spans = self._spans(visit.blocks)
            epochs = np.full_like(visit.places, visit.epoch)
            drawn.append((visit, spans, self._segments(spans, visit.places, epochs, order.seed)))
        return drawn

    def _segments(self, spans: Spans, places: Int64, epochs: Int64, seed: int) -> Segments:
        if self.pair_objective == "nsp":
            return draw_pairs(spans, places, epochs, seed=seed, max_length=self.max_length)
        if self.pair_objective == "sop":
            return draw_orders(spans, places, epochs, seed=seed)
        return single_segments(spans, places, epochs)

    def _spans(self, blocks: tuple[int, ...]) -> Spans:
        """The window of these blocks; the last ones used stay open."""
        spans = self._open.pop(blocks, None)
        self._open[blocks] = open_spans(self._artifact, self.split, blocks) if spans is None else spans
        while len(self._open) > _OPEN_WINDOWS:
            del self._open[next(iter(self._open))]
        return self._open[blocks]

    def _assemble(self, rows: Rows, masking: Masking, *, seed: int | None = None) -> PretrainBatch:
        longest = self.max_length if self.static_shapes else int(rows.segments.lengths.max())
        length = min(-(-longest // self.pad_to) * self.pad_to, max(longest, self.max_length))
        return assemble(
            rows,
            self.tokenizer,
            masking,
            length=length,
            seed=self.seed if seed is None else seed,
            objectives=self.objectives,
        )


def _read(drawn: list[tuple[Visit, Spans, Segments]], wanted: Int64, size: int) -> Rows:
    """The `wanted` of `size` rows, in that order, with their tokens."""
    place = np.full(size, -1)
    place[wanted] = np.arange(len(wanted))
    parts, places = [], []
    for visit, spans, segments in drawn:
        chosen = np.flatnonzero(place[visit.rows] >= 0)
        parts.append(Rows.read(spans, segments.take(chosen)))
        places.append(place[visit.rows[chosen]])
    return joined(parts).take(np.argsort(np.concatenate(places)))
