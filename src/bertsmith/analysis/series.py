"""Lines of a chart: values over steps, with gaps where nothing is known, thinned so that extremes stay."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bertsmith.analysis.folder import step_of
from bertsmith.analysis.markup import number
from bertsmith.analysis.run_log import Floats, Steps

MOST_POINTS = 800
"""Points drawn of one line; more cannot be seen and only make the page heavy."""
Style = Literal["line", "dashed", "faint", "dots"]
"""A line; the same dashed; raw values behind a smoothed line; a line with a dot at each point."""


@dataclass(frozen=True)
class Series:
    """One line of a chart. NaN is a gap. `colour` counts the page's palette from 1."""

    name: str
    steps: Floats
    values: Floats
    colour: int = 1
    style: Style = "line"

    @property
    def known(self) -> Floats:
        """The values without the gaps."""
        return self.values[np.isfinite(self.values)]


def line_of(steps: Steps, values: str | Floats, *, name: str, colour: int = 1, style: Style = "line") -> Series:
    """A field of the step lines, or values made of such; where lines could not be read there is a gap."""
    given = steps.column(values) if isinstance(values, str) else values
    if not np.isfinite(given).any():
        return Series(name, np.empty(0), np.empty(0), colour, style)
    x, y = steps.step, given
    inside = steps.gaps[(steps.gaps >= x[0]) & (steps.gaps < x[-1])]
    if len(inside):
        at = np.searchsorted(x, inside, side="right")
        x, y = np.insert(x, at, inside + 0.5), np.insert(y, at, np.nan)
    return Series(name, x, y, colour, style)


def series(
    events: Sequence[Mapping[str, Any]],
    value: Callable[[Mapping[str, Any]], object],
    *,
    name: str,
    colour: int = 1,
    style: Style = "line",
) -> Series:
    """Values of events over their steps; a gap where one is no finite number. Of two at a step the later counts."""
    points = {step_of(event): number(value(event)) for event in events}
    steps = sorted(points)
    values = [np.nan if (y := points[step]) is None else y for step in steps]
    return Series(name, np.array(steps, dtype=float), np.array(values, dtype=float), colour, style)


def thin(steps: Floats, values: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """About `most` of the points: first and last, of each stretch its lowest and its highest, and a gap of each."""
    if len(values) <= most:
        return steps, values
    edges = _edges(1, len(values) - 1, max(1, (most - 2) // 2))
    kept = {0, len(values) - 1}
    for begin, end in itertools.pairwise(edges):
        stretch = values[begin:end]
        gaps = np.isnan(stretch)
        if gaps.any():
            kept.add(begin + int(gaps.argmax()))
        if not gaps.all():
            kept |= {begin + int(np.nanargmin(stretch)), begin + int(np.nanargmax(stretch))}
    order = np.array(sorted(kept))
    return steps[order], values[order]


def means(steps: Floats, values: Floats, most: int = MOST_POINTS // 2) -> tuple[Floats, Floats]:
    """The mean step and value of each of at most `most` stretches of equally many lines, to smooth further."""
    if len(values) <= most:
        return steps, values
    edges = np.array(_edges(0, len(values), most))
    known = np.isfinite(values)
    counts = np.add.reduceat(known, edges[:-1], dtype=float)
    sums = np.add.reduceat(np.where(known, values, 0.0), edges[:-1])
    of_values = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return np.add.reduceat(steps, edges[:-1]) / np.diff(edges), of_values


def _edges(begin: int, end: int, stretches: int) -> list[int]:
    return [begin + i * (end - begin) // stretches for i in range(stretches + 1)]


def smooth(line: Series) -> Series:
    """The mean over a window of a thirtieth of the line around each point: it does not lag behind as a running one.

    The window is cut at the end; at the start, where a loss falls steeply, it is kept even on both sides. Gaps stay.
    """
    size = len(line.values)
    known = np.isfinite(line.values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, line.values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    at = np.arange(size)
    before = np.minimum(size // 60, at)
    after = np.minimum(before, size - 1 - at)
    total, count = sums[at + after + 1] - sums[at - before], counts[at + after + 1] - counts[at - before]
    means = np.divide(total, count, out=np.full(size, np.nan), where=known & (count > 0))
    return replace(line, values=means, style="line")


def noisy(line: Series) -> list[Series]:
    """A line with its raw values behind it, where there are enough of them to need that."""
    if len(line.known) < 60:
        return [line]
    return [replace(line, style="faint"), smooth(line)]
