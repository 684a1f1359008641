"""How far chance may have moved a score: rows drawn anew, and two models' answers exchanged.

A score is told here as a function of how often each row counts (`Statistic`). Rows that add the same to it are of one
kind, and only kinds are counted: drawing as many rows as there are, with replacement, and counting their kinds, is one
draw from a multinomial. So thousands of resamples of thousands of rows take moments.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertsmith.runtime import derive_seed

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Score = Callable[[npt.NDArray[np.number]], Floats]

_CELLS = 4_000_000
"""Numbers held at once while resampling; more resamples or rows only take more rounds."""
_TINY = 1e-12
"""Differences that are equal but for rounding are equal."""


@dataclass(frozen=True)
class Statistic:
    """A score of rows, as a function of how often each of them counts."""

    kind_of_row: Counts
    """(rows,) Numbers from 0 on, each of which some row has."""
    at: Callable[[Counts], Floats]
    """(draws, kinds) how often each kind counts -> (draws,) the score."""
    of_sums: bool = True
    """Whether it is a function of sums over rows; others take many times as long."""

    @property
    def value(self) -> float:
        """Of all rows, each once."""
        return float(self.at(np.bincount(self.kind_of_row)[None])[0])


def additive(parts: npt.NDArray[np.number], score: Score) -> Statistic:
    """A score of sums over rows: `parts` is (rows, ...), what each row adds, and `score` (..., ...) -> (...)."""
    kinds, kind_of_row = np.unique(parts, axis=0, return_inverse=True)
    return additive_kinds(kinds, kind_of_row.reshape(-1), score)


def additive_kinds(kinds: npt.NDArray[np.number], kind_of_row: Counts, score: Score) -> Statistic:
    """The same where kinds are known: `kinds` is (kinds, ...), what a row of each adds."""
    exact = kinds.astype(np.float64)  # whole numbers stay exact, and float products are fast ones
    return Statistic(kind_of_row, lambda counts: score(np.tensordot(counts.astype(np.float64), exact, 1)))


def mean(values: Floats) -> Statistic:
    """The mean of `values`, (rows,)."""
    parts = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)

    def score(sums: npt.NDArray[np.number]) -> Floats:
        return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)

    return additive(parts, score)


def of_all_rows(rows: int, score: Callable[[Counts], Floats]) -> Statistic:
    """A score that is no function of sums, such as one of ranks: each row is its own kind."""
    return Statistic(np.arange(rows), score, of_sums=False)


def interval(statistic: Statistic, *, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979): as many rows as there are, drawn anew, `resamples` times."""
    times = np.bincount(statistic.kind_of_row)
    return middle(np.concatenate([statistic.at(draws) for draws in resampled(times, seed=seed, resamples=resamples)]))


def middle(scores: Floats) -> tuple[float, float]:
    """The bounds between which 95 % of the scores lie."""
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def resampled(times: Counts, *, seed: int, resamples: int) -> Iterator[Counts]:
    """Yield (some resamples, kinds) counts of drawing as many rows as there are, with replacement; `times`: (kinds,)
    rows of each kind.
    """
    generator = np.random.Generator(np.random.PCG64(derive_seed("bootstrap", seed)))
    kinds, rows = len(times), int(times.sum())
    few_kinds = 8 * kinds < rows  # a draw from the multinomial costs by kind, drawing rows by row but an eighth as much
    kind_of_row = np.repeat(np.arange(kinds), times)
    for size in _rounds(kinds if few_kinds else rows, resamples):
        if few_kinds:
            yield generator.multinomial(rows, times / rows, size=size)
        else:
            drawn = kind_of_row[generator.integers(0, rows, size=(size, rows))] + kinds * np.arange(size)[:, None]
            yield np.bincount(drawn.reshape(-1), minlength=size * kinds).reshape(size, kinds)


@dataclass(frozen=True)
class Difference:
    """What one model scores above another on the same rows."""

    first: float
    second: float
    difference: float
    """first - second."""
    low: float
    high: float
    """Bounds of its 95 % paired bootstrap interval."""
    bootstrap_p: float
    """Two-sided: how often a resample's difference is as far from the one found as that is from 0."""
    randomization_p: float | None
    """Two-sided: how often exchanging the models' answers on half of the rows makes a difference as large; None where
    one side has more runs than the other."""
    resamples: int


def compare(
    first: Sequence[Statistic], second: Sequence[Statistic], pooled: Sequence[Statistic], *, seed: int, resamples: int
) -> Difference:
    """Paired tests of two models on the same rows, each of one run or several (seeds), whose mean score counts.

    Paired bootstrap (Efron & Tibshirani 1993, chapters 13 and 16; Berg-Kirkpatrick et al. 2012): all runs are scored
    on the same drawn rows, and where a model has several runs, they are drawn anew too. Approximate randomization
    (Noreen 1989; Dror et al. 2018): on each row, with probability 1/2, the models' answers change places.
    Both p values are (1 + resamples as extreme) / (1 + resamples).

    Args:
        first, second: a statistic a run, all over the same rows.
        pooled: for each pair of runs the statistic over the rows of the first and then those of the second; empty
            where the models have not as many runs.
        resamples: for scores that are not of sums a tenth of them.
    """
    resamples = resamples if first[0].of_sums else max(1, resamples // 10)
    found = [float(np.mean([one.value for one in side])) for side in (first, second)]
    difference = found[0] - found[1]
    drawn = _bootstrap(first, second, seed=seed, resamples=resamples)
    low, high = middle(drawn)
    exchanged = _exchange(pooled, seed=seed, resamples=resamples) if pooled else None
    return Difference(
        first=found[0],
        second=found[1],
        difference=difference,
        low=low,
        high=high,
        bootstrap_p=_p(drawn - difference, difference),
        randomization_p=None if exchanged is None else _p(exchanged, difference),
        resamples=resamples,
    )


def _p(under_the_null: Floats, difference: float) -> float:
    extreme = int((np.abs(under_the_null) >= abs(difference) - _TINY).sum())
    return (1 + extreme) / (1 + len(under_the_null))


def _bootstrap(first: Sequence[Statistic], second: Sequence[Statistic], *, seed: int, resamples: int) -> Floats:
    """(resamples,) differences."""
    runs = [*first, *second]
    joint, times = _joint([run.kind_of_row for run in runs])
    parts = [
        np.stack([run.at(_counts(draws, joint[:, number])) for number, run in enumerate(runs)], axis=1)
        for draws in resampled(times, seed=seed, resamples=resamples)
    ]
    scores = np.concatenate(parts)  # (resamples, runs)
    generator = np.random.Generator(np.random.PCG64(derive_seed("bootstrap of runs", seed)))
    means = []
    for side in (scores[:, : len(first)], scores[:, len(first) :]):
        chosen = generator.integers(0, side.shape[1], size=side.shape)
        means.append(np.take_along_axis(side, chosen, axis=1).mean(axis=1))
    difference: Floats = means[0] - means[1]
    return difference


def _exchange(pooled: Sequence[Statistic], *, seed: int, resamples: int) -> Floats:
    """(resamples,) differences after the answers to each row changed places or not, those of all pairs together."""
    halves = [np.split(pool.kind_of_row, 2) for pool in pooled]
    joint, times = _joint([half for pair in halves for half in pair])
    by_row = 8 * len(times) > len(halves[0][0])  # then a bit for each row is less work
    if by_row:
        joint, times = np.stack([half for pair in halves for half in pair], axis=1), np.ones(1, dtype=np.int64)
    generator = np.random.Generator(np.random.PCG64(derive_seed("randomization", seed)))
    found = []
    for size in _rounds(2 * len(joint), resamples):
        shape = (size, len(joint))
        there = generator.integers(0, 2, size=shape) if by_row else generator.binomial(times, 0.5, size=shape)
        differences = []
        for number, pool in enumerate(pooled):
            whole = np.bincount(pool.kind_of_row)
            one, other = joint[:, 2 * number], joint[:, 2 * number + 1]
            ours = _counts(times - there, one, len(whole)) + _counts(there, other, len(whole))
            differences.append(pool.at(ours) - pool.at(whole - ours))
        found.append(np.mean(differences, axis=0))
    return np.concatenate(found)


def _joint(columns: Sequence[Counts]) -> tuple[Counts, Counts]:
    """The (kinds, columns) combinations that rows have, and how many rows have each."""
    joint, times = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    return joint, times


def _counts(draws: Counts, kinds: Counts, most: int | None = None) -> Counts:
    """(draws, joint kinds) counts, and the kind that each joint one is of: (draws, most) counts of those."""
    order = np.argsort(kinds, kind="stable")
    starts = np.flatnonzero(np.diff(kinds[order], prepend=-1))
    sums = draws[:, order] if len(starts) == len(order) else np.add.reduceat(draws[:, order], starts, axis=1)
    width = int(kinds.max()) + 1 if most is None else most
    if len(starts) == width:
        return sums
    counts = np.zeros((len(draws), width), dtype=np.int64)
    counts[:, kinds[order][starts]] = sums
    return counts


def _rounds(width: int, resamples: int) -> Iterator[int]:
    """How many resamples to make at once, `width` numbers each."""
    at_once = max(1, _CELLS // width)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)
