"""Sentence pairs for next-sentence prediction, drawn anew each epoch.

Each span is split at a sentence border into A and what follows it. Half of the time B is what follows (label 0); else
B is the later part of another span (label 1), so that a B always begins where a B would begin and ends where a span
ends, whichever its label. Most such partners come from another document; a fifth come from a distant place of the
same one, where topic alone does not tell (compare "sentence order prediction" in ALBERT, arXiv 1909.11942). The task
itself is that of BERT, arXiv 1810.04805, section 3.1.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertsmith.examples.draws import Int64, UInt64, below, example_keys, fraction, hash_counters
from bertsmith.examples.shards import Spans

FOLLOWS, RANDOM, NO_PAIR = 0, 1, -100
_SAME_DOCUMENT_SHARE = 0.2
_SHORTEST_SPLIT = 16
"""A span of one sentence is split inside it, at a word, if it has so many tokens."""
_SMALLEST_PART = 4
_PARTNER_TRIES = 4

# Counters of the draws made under an example's key; each must be a number of its own.
_DRAW_SPLIT, _DRAW_LABEL, _DRAW_KIND, _DRAW_SAME, _DRAW_PARTNER, _DRAW_PARTNER_SPLIT = 0, 1, 2, 3, 100, 200


@dataclass(frozen=True)
class Segments:
    """Which tokens make up each example: `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` where b_lengths is 0."""

    ids: Int64
    epochs: Int64
    a_starts: Int64
    a_lengths: Int64
    b_starts: Int64
    b_lengths: Int64
    labels: Int64
    """0: B follows A, 1: B is from elsewhere, -100: no pair."""
    same_document: npt.NDArray[np.bool_]
    """True where B is from elsewhere in the same document."""

    @property
    def lengths(self) -> Int64:
        """Tokens of each example, special tokens included."""
        return self.a_lengths + self.b_lengths + 2 + (self.b_lengths > 0)

    def take(self, rows: npt.NDArray[np.int64]) -> "Segments":
        return Segments(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def single_segments(spans: Spans, ids: Int64, epochs: Int64) -> Segments:
    """Every span whole, without a partner."""
    starts, ends = spans.bounds(ids)
    zeros = np.zeros_like(ids)
    return Segments(
        ids, epochs, starts, ends - starts, zeros, zeros, np.full_like(ids, NO_PAIR), np.zeros(len(ids), dtype=bool)
    )


def draw_pairs(spans: Spans, ids: Int64, epochs: Int64, *, seed: int, max_length: int) -> Segments:
    """A, B and label of each (epoch, span id): a pure function of these and `seed`."""
    keys = example_keys("pairs", seed, epochs, ids)
    starts, ends = spans.bounds(ids)
    splits = _split_points(spans, starts, ends, hash_counters(keys, np.array(_DRAW_SPLIT)))
    a_lengths = splits - starts
    room = max_length - 3 - a_lengths
    has_pair = splits < ends

    wants_random = has_pair & (fraction(hash_counters(keys, np.array(_DRAW_LABEL))) < 0.5)
    first, end = spans.document_spans(ids)
    num_far = _count_far(ids, first, end)
    num_other = len(spans) - (end - first)
    wants_same = fraction(hash_counters(keys, np.array(_DRAW_KIND))) < _SAME_DOCUMENT_SHARE
    same = wants_random & (num_far > 0) & (wants_same | (num_other == 0))
    other = wants_random & ~same & (num_other > 0)

    b_starts, b_ends = splits.copy(), ends.copy()
    for rows, is_same in ((np.flatnonzero(same), True), (np.flatnonzero(other), False)):
        if len(rows):
            b_starts[rows], b_ends[rows] = _draw_partners(
                spans, ids[rows], keys[rows], room[rows], first[rows], end[rows], same_document=is_same
            )
    labels = np.where(has_pair, np.where(same | other, RANDOM, FOLLOWS), NO_PAIR).astype(np.int64)
    return Segments(ids, epochs, starts, a_lengths, b_starts, b_ends - b_starts, labels, same)


def _draw_partners(
    spans: Spans, ids: Int64, keys: UInt64, room: Int64, first: Int64, end: Int64, *, same_document: bool
) -> tuple[Int64, Int64]:
    """Token numbers [start, end) of a B from elsewhere, at most `room` long.

    A partner is drawn again, a few times, until a tail of it fits whole; only then is one cut short at its end.
    """
    b_starts, b_ends = np.zeros_like(ids), np.zeros_like(ids)
    left = np.arange(len(ids))
    for attempt in range(_PARTNER_TRIES):
        bits = hash_counters(keys[left], np.array(_DRAW_PARTNER + attempt))
        if same_document:
            partners = _far_span(bits, ids[left], first[left], end[left])
        else:
            partners = _other_span(bits, first[left], end[left], len(spans))
        starts, ends = spans.bounds(partners)
        split_bits = hash_counters(keys[left], np.array(_DRAW_PARTNER_SPLIT + attempt))
        splits = _split_points(spans, starts, ends, split_bits)
        splits = np.where(splits < ends, splits, starts)
        later = _border_from(spans, np.maximum(splits, ends - room[left]))
        tails = np.where(ends - splits <= room[left], splits, later)
        fits = tails < ends
        b_starts[left], b_ends[left] = np.where(fits, tails, splits), np.where(fits, ends, splits + room[left])
        left = left[~fits]
        if not len(left):
            break
    return b_starts, b_ends


def _count_far(ids: Int64, first: Int64, end: Int64) -> Int64:
    """How many spans of the same document are neither a span nor its neighbours."""
    near = np.minimum(end - 1, ids + 1) - np.maximum(first, ids - 1) + 1
    return np.asarray(end - first - near)


def _far_span(bits: UInt64, ids: Int64, first: Int64, end: Int64) -> Int64:
    drawn = first + below(bits, _count_far(ids, first, end))
    near_first, near_end = np.maximum(first, ids - 1), np.minimum(end, ids + 2)
    return np.where(drawn < near_first, drawn, drawn + near_end - near_first)


def _other_span(bits: UInt64, first: Int64, end: Int64, total: int) -> Int64:
    drawn = below(bits, total - (end - first))
    return np.where(drawn < first, drawn, drawn + end - first)


def _split_points(spans: Spans, starts: Int64, ends: Int64, bits: UInt64) -> Int64:
    """Where each span [start, end) is parted: a sentence border inside it, else a word; `end` where neither will do."""
    low = np.searchsorted(spans.sentence_ends, starts, side="right")
    num_borders = np.searchsorted(spans.sentence_ends, ends, side="left") - low
    chosen = low + below(bits, np.maximum(num_borders, 1))
    splits = np.where(num_borders > 0, spans.sentence_ends[np.minimum(chosen, len(spans.sentence_ends) - 1)], ends)
    for row in np.flatnonzero((num_borders == 0) & (ends - starts >= _SHORTEST_SPLIT)):
        start, length = int(starts[row]), int(ends[row] - starts[row])
        inner = spans.starts_word(start, length)[_SMALLEST_PART : length - _SMALLEST_PART + 1]
        words = np.flatnonzero(inner)
        if len(words):
            splits[row] = start + _SMALLEST_PART + words[int(bits[row]) % len(words)]
    return splits.astype(np.int64)


def _border_from(spans: Spans, tokens: Int64) -> Int64:
    """The first sentence border at or after each token number."""
    index = np.searchsorted(spans.sentence_ends, tokens, side="left")
    return spans.sentence_ends[np.minimum(index, len(spans.sentence_ends) - 1)]
