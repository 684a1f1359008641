from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.examples.draws import hash_counters
from bertsmith.examples.tile import cut_long_sentences, pack, span_targets


@given(
    documents=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=6),
    limit=st.integers(8, 30),
    word_length=st.integers(1, 40),
    short_share=st.floats(0, 1),
)
def test_spans_tile_documents(documents: list[list[int]], limit: int, word_length: int, short_share: float) -> None:
    lengths = [length for document in documents for length in document]
    sentence_ends = np.cumsum(lengths)
    document_ends = np.cumsum([sum(document) for document in documents])
    word_starts = np.arange(sentence_ends[-1]) % word_length == 0
    word_starts[sentence_ends[:-1]] = word_starts[0] = True
    piece_ends, num_cut = cut_long_sentences(sentence_ends, word_starts, limit=limit)
    offsets = np.concatenate([[0], piece_ends[:-1]])
    targets = span_targets(np.zeros(len(offsets), np.uint64), offsets, limit=limit, short_share=short_share)
    ends = pack(piece_ends, document_ends, targets).tolist()
    assert ends[-1] == sentence_ends[-1]
    assert set(document_ends.tolist()) <= set(ends)
    assert all(0 < end - start <= limit for start, end in pairwise([0, *ends]))
    assert num_cut == sum(length > limit for length in lengths)
    borders = {0, *sentence_ends.tolist()}
    long = [(end - length, end) for end, length in zip(sentence_ends.tolist(), lengths, strict=True) if length > limit]
    for end in ends:
        assert end in borders or any(start < end < stop for start, stop in long)
        assert end in borders or word_starts[end] or word_length > limit


def test_spans_are_as_long_as_they_can_be() -> None:
    ends = np.array([5, 9, 12, 20])
    assert pack(ends, np.array([20]), np.full(4, 10)).tolist() == [9, 12, 20]
    assert pack(ends, np.array([9, 20]), np.full(4, 15)).tolist() == [9, 20]


def test_a_short_target_takes_one_sentence_at_least() -> None:
    assert pack(np.array([5, 9, 12, 20]), np.array([20]), np.array([2, 7, 7, 20])).tolist() == [5, 12, 20]


def test_a_long_sentence_is_cut_before_a_word() -> None:
    word_starts = np.zeros(25, dtype=bool)
    word_starts[[0, 7, 8, 13]] = True
    ends, num_cut = cut_long_sentences(np.array([25]), word_starts, limit=10)
    assert (ends.tolist(), num_cut) == ([8, 13, 23, 25], 1)


def test_a_long_word_is_left_whole_where_it_can_be() -> None:
    """A word begins early in the piece and is long: the cut goes before it, not into it."""
    word_starts = np.zeros(14, dtype=bool)
    word_starts[[0, 1, 2]] = True
    assert cut_long_sentences(np.array([14]), word_starts, limit=12)[0].tolist() == [2, 14]


def test_a_tenth_is_short_and_a_pure_function_of_the_place() -> None:
    keys = hash_counters(np.uint64(1), np.arange(50_000))
    offsets = np.arange(50_000) % 977
    targets = span_targets(keys, offsets, limit=125, short_share=0.1)
    assert targets.min() >= 125 // 8
    assert targets.max() == 125
    assert abs((targets < 125).mean() - 0.1) < 0.005
    rows = np.array([40_000, 3])
    assert np.array_equal(span_targets(keys[rows], offsets[rows], limit=125, short_share=0.1), targets[rows])
