"""What stands in an example: a span whole, or a pair for next sentence or sentence order, drawn anew each epoch.

For pairs each span is split at a sentence border into A and what follows it.

Next sentence (BERT, arXiv 1810.04805, section 3.1): half of the time B is what follows (label 0); else B is the later
part of another span (label 1), about as long as what follows, so that neither its borders nor its length tell. Most
such partners come from another document; a fifth come from a distant place of the same one, where topic alone does not
tell.

Sentence order (ALBERT, arXiv 1909.11942, section 3.1): half of the time the two parts have changed places (label 1).

No part begins or ends inside a word, but in a word longer than a whole example.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertsmith.examples.draws import Int64, UInt64, below, example_keys, fraction, hash_counters
from bertsmith.examples.spans import Spans

FOLLOWS, RANDOM, NO_PAIR = 0, 1, -100
IN_ORDER, SWAPPED = 0, 1
LABEL_NAMES = {"nsp": ("follows", "random"), "sop": ("in order", "swapped")}
"""What labels 0 and 1 mean, by objective."""
_SAME_DOCUMENT_SHARE = 0.2
_SHORTEST_SPLIT = 16
"""A span of one sentence is split inside it, at a word, if it has so many tokens."""
_SMALLEST_PART = 4
_PARTNER_TRIES = 4
_NO_FIT = 1 << 30

# Counters of the draws made under an example's key; each must be a number of its own.
_DRAW_SPLIT, _DRAW_LABEL, _DRAW_KIND, _DRAW_PARTNER = 0, 1, 2, 100


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
    """0: B follows A, 1: B is from elsewhere, or goes before A; -100: no pair."""
    same_document: npt.NDArray[np.bool_]
    """True where B is from elsewhere in the same document."""

    @property
    def lengths(self) -> Int64:
        """Tokens of each example, special tokens included."""
        return self.a_lengths + self.b_lengths + 2 + (self.b_lengths > 0)

    def take(self, rows: npt.NDArray[np.int64]) -> "Segments":
        return Segments(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def single_segments(spans: Spans, places: Int64, epochs: Int64) -> Segments:
    """Every span whole, without a partner."""
    starts, ends = spans.bounds(places)
    zeros, no_pair = np.zeros_like(places), np.full_like(places, NO_PAIR)
    return Segments(spans.numbers[places], epochs, starts, ends - starts, zeros, zeros, no_pair, zeros.astype(np.bool_))


def draw_orders(spans: Spans, places: Int64, epochs: Int64, *, seed: int) -> Segments:
    """Two neighbouring parts of each span, and whether they have changed places: a function of (epoch, id), `seed`."""
    numbers = spans.numbers[places]
    keys = example_keys("pairs", seed, epochs, numbers)
    starts, ends = spans.bounds(places)
    splits = _split_points(spans, starts, ends, hash_counters(keys, np.array(_DRAW_SPLIT)))
    has_pair = splits < ends
    swapped = has_pair & (fraction(hash_counters(keys, np.array(_DRAW_LABEL))) < 0.5)
    first, second = splits - starts, ends - splits
    return Segments(
        numbers,
        epochs,
        a_starts=np.where(swapped, splits, starts),
        a_lengths=np.where(swapped, second, first),
        b_starts=np.where(swapped, starts, splits),
        b_lengths=np.where(swapped, first, second),
        labels=np.where(has_pair, np.where(swapped, SWAPPED, IN_ORDER), NO_PAIR).astype(np.int64),
        same_document=np.zeros(len(places), dtype=np.bool_),
    )


def draw_pairs(spans: Spans, places: Int64, epochs: Int64, *, seed: int, max_length: int) -> Segments:
    """A, B and label of each (epoch, span): a pure function of these, `seed` and the blocks that are open."""
    numbers = spans.numbers[places]
    keys = example_keys("pairs", seed, epochs, numbers)
    starts, ends = spans.bounds(places)
    splits = _split_points(spans, starts, ends, hash_counters(keys, np.array(_DRAW_SPLIT)))
    a_lengths = splits - starts
    room = max_length - 3 - a_lengths
    has_pair = splits < ends

    wants_random = has_pair & (fraction(hash_counters(keys, np.array(_DRAW_LABEL))) < 0.5)
    first, end = spans.document_spans(places)
    num_far = _count_far(places, first, end)
    num_other = len(spans) - (end - first)
    wants_same = fraction(hash_counters(keys, np.array(_DRAW_KIND))) < _SAME_DOCUMENT_SHARE
    same = wants_random & (num_far > 0) & (wants_same | (num_other == 0))
    other = wants_random & ~same & (num_other > 0)

    b_starts, b_ends = splits.copy(), ends.copy()
    for wanted, is_same in ((same, True), (other, False)):
        rows = np.flatnonzero(wanted)
        b_starts[rows], b_ends[rows] = _draw_partners(
            spans, places[rows], keys[rows], splits[rows], room[rows], first[rows], end[rows], same=is_same
        )
    alone = b_starts == b_ends  # a word that is longer than the room was all there was: what follows stays
    is_random = (same | other) & ~alone
    b_starts, b_ends = np.where(is_random, b_starts, splits), np.where(is_random, b_ends, ends)
    labels = np.where(has_pair, np.where(is_random, RANDOM, FOLLOWS), NO_PAIR).astype(np.int64)
    return Segments(numbers, epochs, starts, a_lengths, b_starts, b_ends - b_starts, labels, same & is_random)


def _draw_partners(
    spans: Spans, places: Int64, keys: UInt64, splits: Int64, room: Int64, first: Int64, end: Int64, *, same: bool
) -> tuple[Int64, Int64]:
    """Token numbers [start, end) of a B from elsewhere, at most `room` long; empty where none was found.

    Some partners are drawn, and of each the two tails nearest in length to what follows `splits`: the best of them all
    is taken. A tail begins where a sentence does, or inside one where the split is; where no tail fits into the room,
    one is cut short before a word.
    """
    wanted = spans.ends[places] - splits
    tries = np.arange(_PARTNER_TRIES)[:, None]
    bits = hash_counters(keys, tries + _DRAW_PARTNER)  # (tries, rows)
    partners = _far_span(bits, places, first, end) if same else _other_span(bits, first, end, len(spans))
    starts, ends = spans.bounds(partners)
    ideal = np.maximum(ends - wanted, starts)
    border = np.searchsorted(spans.sentence_ends, ideal, side="left")
    tails = spans.sentence_ends[np.stack([np.maximum(border - 1, 0), border])]  # (2, tries, rows): longer, shorter
    tails = np.clip(tails, starts, ends)
    inside = np.flatnonzero(spans.sentence_ends[np.searchsorted(spans.sentence_ends, splits)] != splits)
    tails[:, :, inside] = _first_word(spans, ideal[:, inside], ends[:, inside])
    lengths = ends - tails
    misfit = np.where((lengths > 0) & (lengths <= room), np.abs(lengths - wanted), _NO_FIT)
    best = misfit.reshape(2 * _PARTNER_TRIES, len(places)).argmin(axis=0)
    rows = np.arange(len(places))
    b_starts = tails.reshape(2 * _PARTNER_TRIES, len(places))[best, rows]
    b_ends = ends[best % _PARTNER_TRIES, rows]
    tight = np.flatnonzero(misfit.min(axis=(0, 1)) == _NO_FIT)
    b_ends[tight] = _last_word(spans, b_starts[tight], np.minimum(room, b_ends - b_starts - 1)[tight])
    return b_starts, b_ends


def _first_word(spans: Spans, starts: Int64, ends: Int64) -> Int64:
    """The first token of each [start, end) at which a word begins, else end."""
    words, counts = spans.words_within(starts.reshape(-1), ends.reshape(-1))
    found = counts > 0
    first = ends.reshape(-1).copy()
    first[found] = words[(np.cumsum(counts) - counts)[found]]
    return first.reshape(starts.shape)


def _last_word(spans: Spans, starts: Int64, room: Int64) -> Int64:
    """The last token in (start, start + room] at which a word begins, else start."""
    words, counts = spans.words_within(starts + 1, starts + room + 1)
    found = counts > 0
    last = starts.copy()
    last[found] = words[(np.cumsum(counts) - 1)[found]]
    return last


def _count_far(places: Int64, first: Int64, end: Int64) -> Int64:
    """How many spans of the same document are neither a span nor its neighbours."""
    near = np.minimum(end - 1, places + 1) - np.maximum(first, places - 1) + 1
    return np.asarray(end - first - near)


def _far_span(bits: UInt64, places: Int64, first: Int64, end: Int64) -> Int64:
    drawn = first + below(bits, _count_far(places, first, end))
    near_first, near_end = np.maximum(first, places - 1), np.minimum(end, places + 2)
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
    rows = np.flatnonzero((num_borders == 0) & (ends - starts >= _SHORTEST_SPLIT))
    words, counts = spans.words_within(starts[rows] + _SMALLEST_PART, ends[rows] - _SMALLEST_PART + 1)
    before = np.cumsum(counts) - counts
    parted = counts > 0
    rows, counts, before = rows[parted], counts[parted], before[parted]
    splits[rows] = words[before + below(bits[rows], counts)]
    return splits.astype(np.int64)
