"""Scores of numbers against numbers: how far they rise and fall together, and how far apart they are.

    pearson    correlation of the numbers
    spearman   correlation of their ranks, equal numbers sharing the mean of theirs; scipy.stats has the same
    rmse       root of the mean squared difference, in the numbers' own unit; smaller is better

A correlation is 0 where one side is the same number everywhere.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bertsmith.tasks.resampling import Counts, Statistic, additive, interval, of_all_rows

Floats = npt.NDArray[np.float64]


def score_numbers(truth: npt.ArrayLike, guess: npt.ArrayLike) -> dict[str, float]:
    """Every score of `NUMBER_SCORES`, of two arrays (rows,)."""
    return {metric: statistic.value for metric, statistic in number_statistics(truth, guess).items()}


def numbers_interval(
    truth: npt.ArrayLike, guess: npt.ArrayLike, metric: str, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979), resampling rows."""
    return interval(number_statistics(truth, guess)[metric], seed=seed, resamples=resamples)


def number_statistics(truth: npt.ArrayLike, guess: npt.ArrayLike) -> dict[str, Statistic]:
    """Every score of `NUMBER_SCORES`, for resampling rows."""
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"numbers of shapes {x.shape} and {y.shape}; need equal numbers above 0")
    return {metric: statistic(x, y) for metric, statistic in NUMBER_SCORES.items()}


def _pearson(truth: Floats, guess: Floats) -> Statistic:
    x, y = truth - truth.mean(), guess - guess.mean()  # near 0 the sums of squares keep their digits
    return additive(np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1), _correlation)


def _correlation(sums: npt.NDArray[np.number]) -> Floats:
    """(..., 6) sums of 1, x, y, x², y² and xy -> (...)"""
    rows, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    spread = np.sqrt(np.maximum(xx - x * x / rows, 0) * np.maximum(yy - y * y / rows, 0))
    found: Floats = np.zeros(spread.shape)
    np.divide(xy - x * y / rows, spread, out=found, where=spread > 1e-13 * np.maximum(rows, np.sqrt(xx * yy)))
    return found


def _spearman(truth: Floats, guess: Floats) -> Statistic:
    x, y = _Ranks(truth), _Ranks(guess)
    middle = (len(truth) + 1) / 2

    def score(times: Counts) -> Floats:
        a, b = x.of(times) - middle, y.of(times) - middle
        weighed = times * a
        parts = [times.sum(1), weighed.sum(1), (times * b).sum(1)]
        products = [(weighed * a).sum(1), (times * b * b).sum(1), (weighed * b).sum(1)]
        return _correlation(np.stack([*parts, *products], axis=1))

    return of_all_rows(len(truth), score)


class _Ranks:
    """Mean ranks of numbers, each there so many times."""

    def __init__(self, values: Floats):
        _, self.group = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.group, kind="stable")
        self.starts = np.flatnonzero(np.diff(self.group[self.order], prepend=-1))

    def of(self, times: Counts) -> Floats:
        """(draws, rows) counts -> (draws, rows) the mean rank of each row among those that are there."""
        sizes = np.add.reduceat(times[:, self.order], self.starts, axis=1)
        means: Floats = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
        return means[:, self.group]


def _rmse(truth: Floats, guess: Floats) -> Statistic:
    def score(sums: npt.NDArray[np.number]) -> Floats:
        return np.sqrt(np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64))

    return additive(np.stack([(truth - guess) ** 2, np.ones(len(truth))], axis=1), score)


NUMBER_SCORES: dict[str, Callable[[Floats, Floats], Statistic]] = {
    "spearman": _spearman,
    "pearson": _pearson,
    "rmse": _rmse,
}
"""Metric -> its statistic, of truth (rows,) and guess (rows,)."""
SMALLER_IS_BETTER = frozenset({"rmse"})
