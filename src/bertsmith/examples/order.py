"""The order of examples: which stands at each position of the endless run of epochs, as a pure function of the seed.

Each epoch shuffles the blocks of the split; as many neighbours in that order as hold `window_tokens` are a window, and
its spans are shuffled among themselves. So only the blocks of a window need be open at a time, whatever the corpus
holds, and any position is found at once: by its epoch, among the windows' sizes, through a keyed shuffle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bertsmith.examples.blocks import Index
from bertsmith.examples.draws import Int64, shuffled
from bertsmith.runtime import derive_seed


@dataclass(frozen=True)
class Visit:
    """What some of the positions asked for find in one window of one epoch."""

    epoch: int
    blocks: tuple[int, ...]
    """Numbers of the window's blocks, ascending."""
    rows: Int64
    """Which of the positions asked for."""
    places: Int64
    """The span at each, counted from 0 through the window's blocks."""


@dataclass(frozen=True)
class _Epoch:
    windows: tuple[tuple[int, ...], ...]
    ends: Int64
    """(windows,) position after each window's last span."""


class Order:
    """The order of one split under one seed."""

    def __init__(self, index: Index, *, window_tokens: int, seed: int):
        self.index, self.window_tokens, self.seed = index, window_tokens, seed
        self._epoch = lru_cache(maxsize=4)(self._windows)

    def visits(self, positions: Int64) -> Iterator[Visit]:
        """The window, and the span in it, at each position; positions of one window come together."""
        epochs, within = np.divmod(positions, self.index.num_spans)
        for epoch in np.unique(epochs).tolist():
            of_epoch = np.flatnonzero(epochs == epoch)
            found = self._epoch(epoch)
            window = np.searchsorted(found.ends, within[of_epoch], side="right")
            for number in np.unique(window).tolist():
                rows = of_epoch[window == number]
                start = int(found.ends[number - 1]) if number else 0
                key = derive_seed("order", self.seed, epoch, number)
                places = shuffled(within[rows] - start, int(found.ends[number]) - start, key)
                yield Visit(epoch, found.windows[number], rows, places)

    def _windows(self, epoch: int) -> _Epoch:
        num_blocks = len(self.index.spans)
        blocks = shuffled(np.arange(num_blocks), num_blocks, derive_seed("blocks", self.seed, epoch))
        tokens = self.index.tokens[blocks]
        window = (np.cumsum(tokens) - tokens) // self.window_tokens
        borders = np.flatnonzero(np.diff(window)) + 1
        sizes = [int(self.index.spans[part].sum()) for part in np.split(blocks, borders)]
        windows = tuple(tuple(sorted(part.tolist())) for part in np.split(blocks, borders))
        return _Epoch(windows, np.cumsum(sizes))
