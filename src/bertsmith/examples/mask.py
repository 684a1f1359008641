"""Masked language model: which tokens are hidden, and behind what. All examples of a batch at once.

Of an example's n tokens that may be masked, the budget is max(1, round(share n)).

    token   exactly so many, each with the same chance (BERT, arXiv 1810.04805, section 3.1)
    word    whole words in random order, each that still fits into the budget (BERT's whole word masking; for Chinese
            arXiv 1906.08101); where none fits, the first one all the same
    span    runs of whole words whose number is drawn from a geometric distribution with p = 0.2, at most 10, each from
            a random word on and cut to the words that fit (SpanBERT, arXiv 1907.10529, section 3.1); at least one word

Of what is chosen 80 % become `[MASK]`, 10 % a random token and 10 % stay: token by token, as BERT does also for whole
words; in spans all tokens alike, as SpanBERT does. The choice is a pure function of an example's key and what stands
where in it, whatever batch the example is in.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bertsmith.examples.draws import Int64, UInt64, below, fraction, hash_counters

MaskBy = Literal["token", "word", "span"]
Flags = npt.NDArray[np.bool_]

_MASK_UNTIL, _RANDOM_UNTIL = 0.8, 0.9
_DRAW_CHOICE, _DRAW_TREATMENT, _DRAW_REPLACEMENT, _DRAW_SPAN_LENGTH = 0, 1 << 16, 2 << 16, 3 << 16
_SPAN_P, _LONGEST_SPAN = 0.2, 10
_LAST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def budgets(maskable_counts: Int64, share: float) -> Int64:
    """How many tokens are masked of so many that may be: rounded half up, at least 1 of at least 1."""
    rounded = np.floor(maskable_counts * share + 0.5).astype(np.int64)
    return np.asarray(np.minimum(np.maximum(rounded, 1), maskable_counts))


def mask_tokens(
    input_ids: Int64,
    maskable: Flags,
    keys: UInt64,
    *,
    share: float,
    mask_id: int,
    replacements: Int64,
    by: MaskBy = "token",
    word_starts: Flags | None = None,
) -> tuple[Int64, Flags]:
    """Hide tokens; returns the new ids and which were chosen, both (batch, seq).

    `maskable` (batch, seq) is False for special tokens and padding; `keys` (batch,) is one key per example;
    `replacements` are the ids that may stand in for a token. `word_starts` (batch, seq), for words and spans, is True
    where a word begins, and where something does that is no word, such as [SEP].
    """
    budget = budgets(maskable.sum(axis=1), share)
    if by == "token":
        chosen = _random_tokens(maskable, keys, budget)
        rows, columns = np.nonzero(chosen)
        units = columns
    else:
        assert word_starts is not None, f"masking by {by} needs word_starts"
        words = _Words.of(maskable, word_starts)
        order = words.shuffled(keys)
        picked = words.whole(order, budget) if by == "word" else words.runs(order, budget, keys)
        chosen = maskable & (words.spread(picked) > 0)
        rows, columns = np.nonzero(chosen)
        # A run is known by the word it began with, counted from 1.
        units = columns if by == "word" else words.spread(picked)[rows, columns]
    hidden = input_ids.copy()
    treatment = fraction(hash_counters(keys[rows], units + _DRAW_TREATMENT))
    drawn = below(hash_counters(keys[rows], columns + _DRAW_REPLACEMENT), np.array(len(replacements)))
    hidden[rows, columns] = np.where(
        treatment < _MASK_UNTIL,
        mask_id,
        np.where(treatment < _RANDOM_UNTIL, replacements[drawn], input_ids[rows, columns]),
    )
    return hidden, chosen


def _random_tokens(maskable: Flags, keys: UInt64, budget: Int64) -> Flags:
    positions = np.arange(maskable.shape[1], dtype=np.uint64)
    bits = hash_counters(keys[:, None], positions + np.uint64(_DRAW_CHOICE))  # (batch, seq)
    # The position in the low bits makes all values of a row different, so that the budget is met exactly.
    bits = np.where(maskable, (bits >> np.uint64(17) << np.uint64(16)) | positions, _LAST)
    last = np.take_along_axis(np.sort(bits, axis=1), np.maximum(budget - 1, 0)[:, None], axis=1)
    return np.asarray(maskable & (bits <= last))


@dataclass(frozen=True)
class _Words:
    """The words of each example of a batch, as a (batch, words) table filled up with words of no tokens."""

    number: Int64
    """(batch, seq) the word that each token is of, counted from 0 in its row."""
    costs: Int64
    """(batch, words) how many tokens of it may be masked; 0 for special tokens and where a row has no more words."""

    @classmethod
    def of(cls, maskable: Flags, word_starts: Flags) -> "_Words":
        number = np.maximum(np.cumsum(word_starts, axis=1) - 1, 0)
        num_rows, num_words = len(number), int(number.max()) + 1
        flat = (number + num_words * np.arange(num_rows)[:, None])[maskable]
        return cls(number, np.bincount(flat, minlength=num_rows * num_words).reshape(num_rows, num_words))

    def shuffled(self, keys: UInt64) -> Int64:
        """(batch, words) the words of each row in random order, those that cost nothing last."""
        numbers = np.arange(self.costs.shape[1], dtype=np.uint64)
        bits = hash_counters(keys[:, None], numbers + np.uint64(_DRAW_CHOICE))
        bits = np.where(self.costs > 0, (bits >> np.uint64(17) << np.uint64(16)) | numbers, _LAST)
        return np.argsort(bits, axis=1)

    def spread(self, per_word: Int64) -> Int64:
        """(batch, words) -> (batch, seq)"""
        return np.take_along_axis(per_word, self.number, axis=1)

    def whole(self, order: Int64, budget: Int64) -> Int64:
        """(batch, words) 1 for the words that are taken: in order, each that fits into what is left of the budget.

        A round takes words up to the first that does not fit, and sets aside all that never will: two or three rounds.
        """
        costs = np.take_along_axis(self.costs, order, axis=1)
        taken = np.zeros_like(costs)
        left, waiting = budget.copy(), costs > 0
        while True:
            waiting &= costs <= left[:, None]
            if not waiting.any():
                break
            now = waiting & (np.cumsum(np.where(waiting, costs, 0), axis=1) <= left[:, None])
            taken[now] = 1
            waiting &= ~now
            left -= np.where(now, costs, 0).sum(axis=1)
        taken[:, 0] |= (left == budget) & (costs[:, 0] > 0)
        words = np.zeros_like(taken)
        np.put_along_axis(words, order, taken, axis=1)
        return words

    def runs(self, order: Int64, budget: Int64, keys: UInt64) -> Int64:
        """(batch, words) 0, or for words of a run that is taken the run's first word, counted from 1."""
        rows = np.arange(len(order))
        picked = np.zeros_like(self.costs)
        costs = np.pad(self.costs, ((0, 0), (0, _LONGEST_SPAN)))
        lengths = _span_lengths(hash_counters(keys[:, None], np.arange(order.shape[1]) + _DRAW_SPAN_LENGTH))
        left = budget.copy()
        none_fits = np.where(self.costs > 0, self.costs, self.number.size).min(axis=1) > budget
        for turn in range(order.shape[1]):
            first = order[:, turn]
            if not ((left > 0) & (self.costs[rows, first] > 0)).any():
                break
            run = first[:, None] + np.arange(_LONGEST_SPAN)  # (batch, longest)
            cost = np.take_along_axis(costs, run, axis=1)
            goes_on = (cost > 0) & (np.arange(_LONGEST_SPAN) < lengths[:, turn, None])
            goes_on &= np.cumsum(cost, axis=1) <= left[:, None]
            if turn == 0:
                goes_on[:, 0] |= none_fits & (cost[:, 0] > 0)
            goes_on = np.logical_and.accumulate(goes_on, axis=1)
            left -= np.where(goes_on, cost, 0).sum(axis=1)
            row, column = np.nonzero(goes_on)
            word = run[row, column]
            picked[row, word] = first[row] + 1
            costs[row, word] = 0  # taken: neither a beginning nor a continuation of another run
        return picked


def _span_lengths(bits: UInt64) -> Int64:
    """Words in a span: geometric, P(n) proportional to p (1 - p)^(n - 1) for n = 1 ... 10."""
    shares = _SPAN_P * (1 - _SPAN_P) ** np.arange(_LONGEST_SPAN)
    return np.searchsorted(np.cumsum(shares) / shares.sum(), fraction(bits), side="right") + 1
