"""Is a model right as often as it says? Expected calibration error, and the temperature that mends it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

NUM_BINS = 15
"""Of equal width, as in Guo et al. 2017."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a fitted temperature: rows that are all answered rightly would take it to 0."""


@dataclass(frozen=True)
class Decisions:
    """How sure a model was of each thing it decided (a row's class, a word's tag, one label yes or no)."""

    confidence: npt.NDArray[np.float64]
    """(decisions,) The probability it gave to its answer."""
    right: npt.NDArray[np.bool_]
    """(decisions,)"""


@dataclass(frozen=True)
class Bin:
    """Decisions whose confidence is in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean; 0 where there are none, as is the accuracy."""
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Confidence against the truth."""

    ece: float
    """Expected calibration error, from 0 (right as often as it says) to 1."""
    brier: float
    """Mean squared difference of confidence and being right (1 or 0); of two classes, half of Brier's sum over both."""
    decisions: int
    bins: tuple[Bin, ...]


def calibration(decisions: Decisions) -> Calibration:
    """ECE = Σ_b |B_b| / n · |accuracy(B_b) - confidence(B_b)| over `NUM_BINS` bins ((b - 1)/M, b/M] of the confidence
    (Guo et al. 2017, arXiv:1706.04599, equation 3); the Brier score is mean((confidence - right)²) (Brier 1950).
    """
    confidence, right = decisions.confidence, decisions.right.astype(np.float64)
    edges = np.linspace(0, 1, NUM_BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, NUM_BINS - 1)
    counts = np.bincount(place, minlength=NUM_BINS)
    filled = np.maximum(counts, 1)
    means = np.bincount(place, weights=confidence, minlength=NUM_BINS) / filled
    accuracies = np.bincount(place, weights=right, minlength=NUM_BINS) / filled
    total = max(1, len(confidence))
    return Calibration(
        ece=float((counts * np.abs(accuracies - means)).sum() / total),
        brier=float(((confidence - right) ** 2).sum() / total),
        decisions=len(confidence),
        bins=tuple(
            Bin(round(float(edges[b]), 4), round(float(edges[b + 1]), 4), int(counts[b]), means[b], accuracies[b])
            for b in range(NUM_BINS)
        ),
    )


def fit_temperature(loss: Callable[[float], float]) -> float:
    """The T in [`COLDEST`, `HOTTEST`] for which `loss(T)`, the mean loss of outputs divided by T, is least (Guo et al.
    2017, section 4.2): one number, so that no answer changes, only how sure of it the model is. It has one minimum,
    since the loss is convex in 1/T. 1 where nothing is gained.
    """
    found = minimize_scalar(
        lambda exponent: loss(exp(exponent)),
        bounds=(log(COLDEST), log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    temperature = round(exp(float(found.x)), 6)
    return temperature if loss(temperature) < loss(1.0) else 1.0
