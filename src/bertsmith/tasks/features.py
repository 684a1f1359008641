"""A table as the model reads it: token ids laid end to end, and where in them the answers are read.

A row of a table becomes one *example* or, as windows of a long text, several; an example is one sequence of tokens or,
where choices are compared, several. Each sequence has *items*, the token positions at which the model gives outputs: a
sentence to classify has one item, a sentence to tag has one for each word (its first piece).

Most tasks have a target for each item. Where the items of an example are alternatives (choices of a question, tokens at
which an answer may start), the example has one target for all of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length laid end to end: row `i` is `values[starts[i]:starts[i + 1]]`."""

    values: npt.NDArray[np.int32]
    starts: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        values = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=int(starts[-1]))
        return cls(values, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Ints:
        return np.diff(self.starts)

    def indices(self, rows: Ints) -> tuple[Ints, Ints]:
        """Where the values of `rows` stand in `values`, and to which of `rows` (0, 1, ...) each belongs."""
        lengths = self.lengths[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        before = np.cumsum(lengths) - lengths
        return np.arange(len(owner)) - before[owner] + self.starts[rows][owner], owner


@dataclass(frozen=True)
class Features:
    """A table, tokenised once."""

    tokens: Ragged
    """Token ids of each sequence, [CLS] and [SEP] included, cut at the longest length allowed."""
    items: Ragged
    """Token positions, within its sequence, at which each sequence's outputs are read."""
    targets: Ints | Floats | None
    """(all items, ...) what is to be learned at each item, in the order of `items`, or, where they are alternatives,
    (examples, ...) for each example; None where rows have no labels."""
    cut_tokens: Ints
    """(sequences,) Tokens that each sequence lost because it was longer than allowed."""
    second_starts: Ints | None = None
    """(sequences,) Token position at which the second text of a pair begins, or the sequence's end; None where there is
    no pair."""
    lost_items: int = 0
    """Items that stood in the part cut off: a tagger cannot answer for these words."""
    alternatives: bool = False
    """Whether an example's items are alternatives, of which one is right."""
    starts: Ints | None = None
    """(examples + 1,) Where each example's sequences begin, where an example has several; None: one each."""
    pooled: bool = False
    """Whether an example's sequences are windows of one text, of which the head's outputs become one."""
    rows: Ints | None = None
    """(examples,) Number of the row that each is of, ascending; None: one a row."""

    def __len__(self) -> int:
        """Examples."""
        return len(self.tokens) if self.starts is None else len(self.starts) - 1

    @cached_property
    def lengths(self) -> Ints:
        """(examples,) Tokens of each example's longest sequence."""
        longest = self.tokens.lengths
        return longest if self.starts is None else np.maximum.reduceat(longest, self.starts[:-1])

    @property
    def are_windows(self) -> bool:
        """Whether sequences are windows of longer texts, whose number hangs on the longest length allowed."""
        return self.rows is not None or self.pooled

    @property
    def widths(self) -> Ints:
        """(examples,) Sequences of each."""
        return np.ones(len(self), dtype=np.int64) if self.starts is None else np.diff(self.starts)

    @property
    def row_of_example(self) -> Ints:
        return np.arange(len(self)) if self.rows is None else self.rows

    @cached_property
    def item_groups(self) -> Ints:
        """(all items,) The example that each item is of."""
        return np.repeat(self._example_of_sequence, self.items.lengths)

    @property
    def row_of_target(self) -> Ints:
        """(targets,) The row that each target is of."""
        return self.row_of_example[np.arange(len(self)) if self.alternatives else self.item_groups]

    def sequences(self, examples: Ints) -> tuple[Ints, Ints]:
        """The sequences of some examples, in order, and to which of `examples` (0, 1, ...) each belongs."""
        if self.starts is None:
            return examples, np.arange(len(examples))
        return Ragged(np.arange(len(self.tokens), dtype=np.int32), self.starts).indices(examples)

    @property
    def truncation_share(self) -> float:
        """Share of all tokens that were cut off."""
        return cut_share(int(self.cut_tokens.sum()), len(self.tokens.values))

    @property
    def _example_of_sequence(self) -> Ints:
        if self.starts is None:
            return np.arange(len(self.tokens))
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


def cut_share(cut: int, kept: int) -> float:
    return cut / max(1, cut + kept)
