"""Byte-pair merging over counted words: which pieces WordPiece training finds, in the order in which it finds them.

Sennrich et al., 2016, arXiv:1508.07909, with the `##` of BERT: of all pairs of neighbouring pieces the most frequent is
joined to one piece, again and again. What is found is what `tokenizers`' trainer finds for the same words and alphabet,
ties and all; it takes words with their counts instead of text, so a corpus costs what its different words cost.

All words lie end to end in arrays, as one chain of pieces each; joining a pair is a few operations on all its places.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int32]

_NONE = np.int32(-1)


def learn_merges(words: Mapping[str, int], alphabet: Sequence[str], *, size: int, min_count: int) -> list[str]:
    """Pieces longer than a character, in the order in which they were joined.

    alphabet: single characters, with `##` where they go on with a word; every character of `words` must be there.
    size: stop at so many tokens, the alphabet included. min_count: stop when no pair is seen so often.
    A tie goes to the pair whose first piece, then whose second, came earlier in the alphabet or was joined earlier.
    """
    tokens = list(alphabet)
    numbers = {token: number for number, token in enumerate(tokens)}
    chains = _Chains(words, numbers)
    while len(tokens) < size:
        pair, count = chains.most_frequent()
        if count < max(1, min_count):
            break
        first, second = divmod(pair, _PAIR)
        joined = tokens[first] + tokens[second].removeprefix("##")
        number = numbers.setdefault(joined, len(tokens))  # two ways may lead to one piece: ab + c, a + bc
        if number == len(tokens):
            tokens.append(joined)
        chains.join(first, second, number)
    return tokens[len(alphabet) :]


_PAIR = 1 << 32
"""A pair of tokens as one number: the first times this, plus the second."""


class _Chains:
    """Words as chains of tokens, how often each pair of neighbours occurs, and where."""

    def __init__(self, words: Mapping[str, int], numbers: Mapping[str, int]):
        ordered = sorted(words.items())
        lengths = np.array([len(word) for word, _ in ordered], dtype=np.int64)
        self.token = np.fromiter(
            (
                numbers[character if place == 0 else f"##{character}"]
                for word, _ in ordered
                for place, character in enumerate(word)
            ),
            dtype=np.int32,
            count=int(lengths.sum()),
        )
        """(places,) number of the token that begins there; -1 where one goes on."""
        self.weight = np.repeat(np.array([count for _, count in ordered], dtype=np.int64), lengths)
        """(places,) how often the word occurs."""
        places = np.arange(len(self.token), dtype=np.int32)
        self.next, self.previous = places + np.int32(1), places - np.int32(1)
        ends = np.cumsum(lengths)
        self.next[ends - 1] = _NONE
        self.previous[ends - lengths] = _NONE
        self.counts: dict[int, int] = {}
        self.places: dict[int, list[Places]] = {}
        """Of each pair, at least all places where it begins: some no longer do."""
        self.heap: list[tuple[int, int]] = []
        self._appear(places[self.next != _NONE])

    def most_frequent(self) -> tuple[int, int]:
        """The pair that occurs most often and its count; (0, 0) where none is left."""
        while self.heap:
            negative, pair = self.heap[0]
            count = self.counts.get(pair, 0)
            if count == -negative:
                return pair, count
            heapq.heappop(self.heap)
            if count:  # it has become rarer since
                heapq.heappush(self.heap, (-count, pair))
        return 0, 0

    def join(self, first: int, second: int, joined: int) -> None:
        """Put the token `joined` wherever `second` follows `first`."""
        at = self._begins(first, second)
        right = self.next[at]
        left, after = self.previous[at], self.next[right]
        # A border between two joined pairs is the right one of one and the left one of the other: once is enough.
        self._disappear(np.union1d(left[left != _NONE], right[after != _NONE]))
        self.token[at] = joined
        self.token[right] = _NONE
        self.next[at] = after
        self.previous[after[after != _NONE]] = at[after != _NONE]
        left, after = self.previous[at], self.next[at]
        self._appear(np.union1d(left[left != _NONE], at[after != _NONE]))

    def _begins(self, first: int, second: int) -> Places:
        """Places, in order, where the pair begins; it is forgotten with that."""
        pair = first * _PAIR + second
        del self.counts[pair]
        at: Places = np.unique(np.concatenate(self.places.pop(pair)))
        at = at[self.token[at] == first]
        follower = self.next[at]
        at = at[(follower != _NONE) & (self.token[follower] == second)]
        if first != second:
            return at
        # In a a a the pair is there twice, but can be joined once: of each run, every second place from its start.
        starts = np.flatnonzero(np.concatenate(([True], at[1:] != self.next[at[:-1]]))) if len(at) else at
        in_run = np.arange(len(at)) - np.repeat(starts, np.diff(np.append(starts, len(at))))
        every_second: Places = at[in_run % 2 == 0]
        return every_second

    def _disappear(self, at: Places) -> None:
        for pair, count, _ in self._grouped(at):
            left = self.counts.get(pair, 0) - count
            if left > 0:
                self.counts[pair] = left
            elif pair in self.counts:
                del self.counts[pair], self.places[pair]

    def _appear(self, at: Places) -> None:
        for pair, count, where in self._grouped(at):
            total = self.counts[pair] = self.counts.get(pair, 0) + count
            self.places.setdefault(pair, []).append(where.copy())  # a view would keep the whole array alive
            heapq.heappush(self.heap, (-total, pair))

    def _grouped(self, at: Places) -> Iterator[tuple[int, int, Places]]:
        """Each different pair that begins at the places `at`, how often it occurs there, and its places."""
        if not len(at):
            return
        pairs = self.token[at].astype(np.int64) * _PAIR + self.token[self.next[at]]
        order = np.argsort(pairs, kind="stable")
        pairs, at = pairs[order], at[order]
        starts = np.flatnonzero(np.concatenate(([True], pairs[1:] != pairs[:-1])))
        counts = np.add.reduceat(self.weight[at], starts)
        borders = [*starts.tolist(), len(at)]
        for pair, count, start, end in zip(pairs[starts].tolist(), counts.tolist(), borders, borders[1:], strict=False):
            yield pair, count, at[start:end]
