"""Expected calibration error beside torchmetrics'."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from bertsmith.tasks.calibration import NUM_BINS, Decisions, calibration


def _inside(confidence: np.ndarray) -> np.ndarray:
    """Which are not next to the edge of a bin, where torchmetrics' float32 decides; it has 1 in a bin of its own."""
    places = confidence * NUM_BINS
    return np.abs(places - places.round()) > 1e-5


@given(seed=st.integers(0, 1000), rows=st.integers(1, 200), classes=st.integers(2, 5), spread=st.floats(0.1, 8))
def test_of_the_most_probable_class(seed: int, rows: int, classes: int, spread: float) -> None:
    draw = np.random.default_rng(seed)
    shares = torch.from_numpy(draw.normal(0, spread, (rows, classes))).softmax(1)
    truth = torch.from_numpy(draw.integers(0, classes, rows))
    inside = _inside(shares.max(1).values.numpy())
    assume(inside.any())
    shares, truth = shares[inside], truth[inside]
    theirs = MulticlassCalibrationError(num_classes=classes, n_bins=NUM_BINS, norm="l1")(shares, truth)
    sure, guess = shares.max(1)
    ours = calibration(Decisions(sure.numpy(), (guess == truth).numpy()))
    assert ours.ece == pytest.approx(float(theirs), abs=1e-5)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 200))
def test_of_yes_or_no(seed: int, rows: int) -> None:
    """torchmetrics bins the probability of yes; so every answer is yes here."""
    draw = np.random.default_rng(seed)
    shares, truth = draw.uniform(0.01, 0.99, rows), draw.integers(0, 2, rows)
    inside = _inside(shares)
    assume(inside.any())
    shares, truth = shares[inside], truth[inside]
    theirs = BinaryCalibrationError(n_bins=NUM_BINS, norm="l1")(torch.from_numpy(shares), torch.from_numpy(truth))
    assert calibration(Decisions(shares, truth == 1)).ece == pytest.approx(float(theirs), abs=1e-5)
