"""Some blocks of a split, opened together: where spans, sentences and documents end, and the tokens, still mapped.

Tokens and spans are numbered through the whole split, whichever blocks are open, so that an example keeps its number.
Within what is open a span also has a place, 0 to len(spans) - 1, by which partners are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertsmith.artifact import Artifact
from bertsmith.errors import ArtifactError
from bertsmith.examples.blocks import Block, Index, map_block, ranges, read_index
from bertsmith.examples.draws import Int64
from bertsmith.examples.shards import SPLITS


@dataclass(frozen=True)
class Spans:
    """Spans of the open blocks, in the order of their numbers."""

    blocks: tuple[Block, ...]
    block_starts: Int64
    """(blocks,) token number of each block's first token."""
    numbers: Int64
    """(spans,) number of each span within the split: the example's id."""
    starts: Int64
    """(spans,) token number of each span's first token."""
    ends: Int64
    document: Int64
    """(spans,) each span's document, counted from 0 within what is open."""
    document_spans_end: Int64
    """(documents,) place after each document's last span."""
    sentence_ends: Int64

    def __len__(self) -> int:
        return len(self.ends)

    def bounds(self, places: Int64) -> tuple[Int64, Int64]:
        """Token numbers [start, end) of spans."""
        return self.starts[places], self.ends[places]

    def document_spans(self, places: Int64) -> tuple[Int64, Int64]:
        """Places [first, end) of the spans of each span's document."""
        document = self.document[places]
        first = np.where(document > 0, self.document_spans_end[document - 1], 0)
        return first, self.document_spans_end[document]

    def read(self, starts: Int64, lengths: Int64) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """(tokens,) ids and word starts of ranges of tokens, one after the other; no range leaves its block."""
        total = int(lengths.sum())
        ids, word_starts = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.bool_)
        block = np.searchsorted(self.block_starts, starts, side="right") - 1
        places = np.cumsum(lengths) - lengths
        for number in np.unique(block):
            rows = np.flatnonzero(block == number)
            local = ranges(starts[rows] - self.block_starts[number], lengths[rows])
            to = ranges(places[rows], lengths[rows])
            ids[to] = self.blocks[number].tokens[local]
            word_starts[to] = self.blocks[number].starts_word(local)
        return ids, word_starts

    def words_within(self, starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
        """Tokens in each [start, end) at which a word begins, one range after the other; and how many in each."""
        lengths = np.maximum(ends - starts, 0)
        tokens = ranges(starts, lengths)
        _, is_start = self.read(starts, lengths)
        row = np.repeat(np.arange(len(starts)), lengths)
        return tokens[is_start], np.bincount(row[is_start], minlength=len(starts))


def open_index(artifact: Artifact, split: str) -> Index:
    """Raises `ArtifactError` for a split that was not built."""
    if split not in SPLITS:
        raise ArtifactError(f"{artifact.path} has no split {split!r}; it has {', '.join(SPLITS)}")
    return read_index(artifact.path, split)


def open_spans(artifact: Artifact, split: str, numbers: Sequence[int] | None = None) -> Spans:
    """Open the blocks of these numbers, ascending; by default all."""
    index = open_index(artifact, split)
    chosen = np.arange(len(index.spans)) if numbers is None else np.array(numbers, dtype=np.int64)
    blocks = tuple(map_block(artifact.path, split, int(number)) for number in chosen)
    tokens_before, spans_before = _before(index.tokens)[chosen], _before(index.spans)[chosen]
    documents_before = _before(index.documents[chosen])
    ends = _shifted([block.span_ends for block in blocks], tokens_before)
    starts = [np.concatenate([[start], end[:-1]]) for end, start in zip(ends, tokens_before, strict=True)]
    document = _joined(_shifted([block.span_documents for block in blocks], documents_before))
    return Spans(
        blocks=blocks,
        block_starts=tokens_before,
        numbers=_joined([before + np.arange(len(end)) for end, before in zip(ends, spans_before, strict=True)]),
        starts=_joined(starts),
        ends=_joined(ends),
        document=document,
        document_spans_end=np.searchsorted(document, np.arange(index.documents[chosen].sum()), side="right"),
        sentence_ends=_joined(_shifted([block.sentence_ends for block in blocks], tokens_before)),
    )


def _before(counts: Int64) -> Int64:
    return np.asarray(np.cumsum(counts) - counts)


def _shifted(parts: list[npt.NDArray[np.int32]], by: Int64) -> list[Int64]:
    return [part.astype(np.int64) + amount for part, amount in zip(parts, by, strict=True)]


def _joined(parts: list[Int64]) -> Int64:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
