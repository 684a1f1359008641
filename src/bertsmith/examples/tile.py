"""Documents to spans: runs of whole sentences of one document that fit into an example.

Spans tile the tokens, so that an epoch has each token once and the number of examples is fixed. All documents of a
block are tiled together: how far a span would reach is worked out for every sentence at once, then only the spans
themselves are walked through.
"""

import numpy as np
import numpy.typing as npt

from bertsmith.examples.draws import Int64, UInt64, below, fraction, hash_counters

_DRAW_IS_SHORT, _DRAW_LENGTH = 0, 1 << 40


def cut_long_sentences(sentence_ends: Int64, word_starts: npt.NDArray[np.bool_], *, limit: int) -> tuple[Int64, int]:
    """Ends of all sentences and of the pieces of those longer than `limit` tokens; and how many had to be cut.

    A sentence is cut where the last word begins that leaves a piece within the limit. Only a single word longer than
    the limit is cut inside.
    """
    starts = np.concatenate([[0], sentence_ends[:-1]])
    long = np.flatnonzero(sentence_ends - starts > limit)
    if not len(long):
        return sentence_ends, 0
    words = np.flatnonzero(word_starts)
    cuts: list[int] = []
    for start, end in zip(starts[long].tolist(), sentence_ends[long].tolist(), strict=True):
        while end - start > limit:
            last = int(words[np.searchsorted(words, start + limit, side="right") - 1])
            start = last if last > start else start + limit
            cuts.append(start)
    return np.sort(np.concatenate([sentence_ends, np.array(cuts, dtype=np.int64)])), len(long)


def span_targets(document_keys: UInt64, offsets: Int64, *, limit: int, short_share: float) -> Int64:
    """How long a span that begins `offsets` tokens into its document shall be: `limit`, or now and then shorter.

    As in the BERT paper's code a share of examples is short, so that positions and lengths are not all alike. It is
    drawn here, once, and not each epoch: the spans that follow begin where this one ends, and no token is left out.
    """
    is_short = fraction(hash_counters(document_keys, offsets + _DRAW_IS_SHORT)) < short_share
    shortest = max(1, limit // 8)
    drawn = below(hash_counters(document_keys, offsets + _DRAW_LENGTH), np.array(limit - shortest + 1))
    return np.where(is_short, shortest + drawn, limit)


def pack(piece_ends: Int64, document_ends: Int64, targets: Int64) -> Int64:
    """Join neighbouring pieces of a document to spans; returns the spans' ends.

    A span that begins with piece i takes the pieces that end within `targets[i]` tokens, at least one.
    """
    starts = np.concatenate([[0], piece_ends[:-1]])
    following = np.searchsorted(piece_ends, starts + targets, side="right")
    stops = np.searchsorted(piece_ends, document_ends, side="right")
    pieces_of_document = np.diff(stops, prepend=0)
    following = np.clip(following, np.arange(1, len(piece_ends) + 1), np.repeat(stops, pieces_of_document))
    chain = following.tolist()
    ends = []
    piece = 0
    while piece < len(chain):
        piece = chain[piece]
        ends.append(piece - 1)
    return piece_ends[np.array(ends, dtype=np.int64)]
