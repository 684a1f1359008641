"""Scores of numbers against numbers: how far they rise and fall together, and how far apart they are.

    pearson    correlation of the numbers
    spearman   correlation of their ranks, equal numbers sharing the mean of theirs; scipy.stats has the same
    rmse       root of the mean squared difference, in the numbers' own unit; smaller is better

A correlation is 0 where one side is the same number everywhere.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bertsmith.tasks.metrics import middle, resampled

Floats = npt.NDArray[np.float64]
Weighted = Callable[[Floats, Floats, Floats], Floats]
"""Of truth (rows,), guess (rows,) and how often each row counts (resamples, rows): a score for each resample."""


def score_numbers(truth: npt.ArrayLike, guess: npt.ArrayLike) -> dict[str, float]:
    """Every score of `NUMBER_SCORES`, of two arrays (rows,)."""
    truth, guess = _pair(truth, guess)
    once = np.ones((1, len(truth)))
    return {metric: float(score(truth, guess, once)[0]) for metric, score in NUMBER_SCORES.items()}


def numbers_interval(
    truth: npt.ArrayLike, guess: npt.ArrayLike, metric: str, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979), resampling rows."""
    truth, guess = _pair(truth, guess)
    draws = resampled(np.ones(len(truth), dtype=np.int64), len(truth), seed=seed, resamples=resamples)
    score = NUMBER_SCORES[metric]
    return middle(np.concatenate([score(truth, guess, some.astype(np.float64)) for some in draws]))


def _pair(truth: npt.ArrayLike, guess: npt.ArrayLike) -> tuple[Floats, Floats]:
    truth, guess = np.asarray(truth, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    if truth.shape != guess.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(f"numbers of shapes {truth.shape} and {guess.shape}; need equal numbers above 0")
    return truth, guess


def _pearson(truth: Floats, guess: Floats, weights: Floats) -> Floats:
    """`truth` and `guess` are (rows,), or (resamples, rows) as ranks are."""
    total = weights.sum(axis=1, keepdims=True)
    x = truth - (weights * truth).sum(axis=1, keepdims=True) / total
    y = guess - (weights * guess).sum(axis=1, keepdims=True) / total
    covariance = (weights * x * y).sum(axis=1)
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    tiny = 1e-13 * np.maximum(1.0, np.abs(truth).max() * np.abs(guess).max()) * total[:, 0]
    found: Floats = np.zeros(len(weights))
    np.divide(covariance, spread, out=found, where=spread > tiny)
    return found


def _spearman(truth: Floats, guess: Floats, weights: Floats) -> Floats:
    return _pearson(_ranks(truth, weights), _ranks(guess, weights), weights)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """(resamples, rows) mean rank of each row among the rows of a resample, each there as often as `weights` says."""
    _, group = np.unique(values, return_inverse=True)
    sizes = np.zeros((len(weights), int(group.max()) + 1))
    np.add.at(sizes.T, group, weights.T)
    last = np.cumsum(sizes, axis=1)
    means: Floats = last - (sizes - 1) / 2
    return means[:, group]


def _rmse(truth: Floats, guess: Floats, weights: Floats) -> Floats:
    found: Floats = np.sqrt((weights * (truth - guess) ** 2).sum(axis=1) / weights.sum(axis=1))
    return found


NUMBER_SCORES: dict[str, Weighted] = {"spearman": _spearman, "pearson": _pearson, "rmse": _rmse}
SMALLER_IS_BETTER = frozenset({"rmse"})
