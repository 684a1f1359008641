"""Area under the ROC curve: how often a row of a class is given more probability of it than a row of another one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bertsmith.tasks.resampling import Statistic, interval, of_all_rows

Floats = npt.NDArray[np.float64]


def roc_auc(truth: npt.NDArray[np.int64], probabilities: Floats) -> float:
    """Mean over classes, each against all others (Fawcett 2006, section 9.2), that some rows have and some have not.

    truth: (rows,) class numbers; probabilities: (rows, classes). Of two classes both areas are one. 0 where all
    rows are of one class.
    """
    areas = _areas(truth, probabilities, np.ones((1, len(truth)), dtype=np.int64))
    return float(areas[0])


def roc_auc_interval(
    truth: npt.NDArray[np.int64], probabilities: Floats, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval, resampling rows."""
    return interval(roc_auc_statistic(truth, probabilities), seed=seed, resamples=resamples)


def roc_auc_statistic(truth: npt.NDArray[np.int64], probabilities: Floats) -> Statistic:
    """The mean area, for resampling rows."""
    return of_all_rows(len(truth), lambda times: _areas(truth, probabilities, times))


def _areas(truth: npt.NDArray[np.int64], probabilities: Floats, times: npt.NDArray[np.int64]) -> Floats:
    """(draws,) the mean area, where row `i` is there times[draw, i] times."""
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    found = [_area(truth == number, probabilities[:, number], times) for number in classes]
    areas, are_there = np.stack([area for area, _ in found]), np.stack([there for _, there in found])
    means: Floats = (areas * are_there).sum(0) / np.maximum(are_there.sum(0), 1)
    return means


def _area(
    is_one: npt.NDArray[np.bool_], scores: Floats, times: npt.NDArray[np.int64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(draws,) area, and whether there are rows of both kinds. Rows with equal scores count half (Mann and Whitney)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    ones = np.add.reduceat(times[:, order] * is_one[order], starts, axis=1).astype(np.float64)
    others = np.add.reduceat(times[:, order] * ~is_one[order], starts, axis=1).astype(np.float64)
    below = others.cumsum(axis=1) - others / 2
    pairs = ones.sum(axis=1) * others.sum(axis=1)
    return (ones * below).sum(axis=1) / np.maximum(pairs, 1), pairs > 0


def class_table(labels: Sequence[str], rows: Sequence[dict[str, float]]) -> Floats:
    """(rows, classes) of probabilities by name; 0 for a class that has none."""
    return np.array([[row.get(label, 0.0) for label in labels] for row in rows], dtype=np.float64)
