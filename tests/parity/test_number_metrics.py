"""Correlations and errors of numbers: equal to scipy's and scikit-learn's; intervals cover what they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from bertsmith.tasks.number_metrics import NUMBER_SCORES, numbers_interval, score_numbers

NUMBERS = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.floats(-1e3, 1e3, allow_nan=False, width=32)), min_size=3, max_size=40
)


@given(NUMBERS)
@settings(max_examples=200, deadline=None)
def test_equal_to_scipy_and_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    truth, guess = (np.array(side) for side in zip(*pairs, strict=True))
    found = score_numbers(truth, guess)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, guess), rel=1e-9, abs=1e-12)
    if np.ptp(truth) and np.ptp(guess) > 1e-3 * max(1.0, np.abs(guess).max()):
        assert found["pearson"] == pytest.approx(stats.pearsonr(truth, guess).statistic, abs=1e-7)
    if np.ptp(truth) and np.ptp(guess):
        assert found["spearman"] == pytest.approx(stats.spearmanr(truth, guess).statistic, abs=1e-9)


def test_one_number_everywhere_has_no_correlation() -> None:
    found = score_numbers([1.0, 2.0, 3.0], [7.1, 7.1, 7.1])
    assert (found["spearman"], found["pearson"]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="need equal numbers"):
        score_numbers([1.0], [1.0, 2.0])


@pytest.mark.parametrize("metric", list(NUMBER_SCORES))
def test_an_interval_is_that_of_resampled_rows(metric: str) -> None:
    """Beside a plain bootstrap: rows drawn with replacement, each resample scored by itself."""
    generator = np.random.default_rng(3)
    truth = generator.normal(size=120).round(1)
    guess = truth + generator.normal(size=120)
    low, high = numbers_interval(truth, guess, metric, seed=1, resamples=2000)
    draws = generator.integers(0, 120, size=(2000, 120))
    plain = [score_numbers(truth[rows], guess[rows])[metric] for rows in draws]
    assert (low, high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.03)
    assert low < score_numbers(truth, guess)[metric] < high
    assert numbers_interval(truth, guess, metric, seed=1, resamples=2000) == (low, high)
