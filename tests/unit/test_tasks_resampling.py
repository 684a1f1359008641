"""Paired tests: p values that are known, and intervals that cover the truth as often as they say."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from bertsmith.tasks import resampling
from bertsmith.tasks.metrics import classification_statistics, multilabel_statistics, tag_statistics
from bertsmith.tasks.number_metrics import number_statistics
from bertsmith.tasks.resampling import Difference, Statistic, additive, compare, interval, mean
from bertsmith.tasks.roc import roc_auc_statistic

NAMES = ("a", "b", "c")


def compared(one: np.ndarray, other: np.ndarray, *, resamples: int = 2000, seed: int = 1) -> Difference:
    pooled = mean(np.concatenate([one, other]))
    return compare([mean(one)], [mean(other)], [pooled], seed=seed, resamples=resamples)


def guesses(draw: np.random.Generator, truth: list[str], right: float) -> list[str]:
    return [label if draw.random() < right else str(draw.choice(NAMES)) for label in truth]


def test_equal_models_differ_by_nothing() -> None:
    values = np.random.default_rng(0).random(100)
    found = compared(values, values)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.bootstrap_p, found.randomization_p) == (1, 1)


def test_a_better_model_is_found_and_the_sides_are_mirrored() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.random(300) + 0.2, draw.random(300)
    found, mirrored = compared(one, other), compared(other, one)
    assert found.difference == pytest.approx(float(one.mean() - other.mean()))
    assert found.low > 0
    assert found.bootstrap_p == found.randomization_p == pytest.approx(1 / 2001)
    assert mirrored.difference == -found.difference
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=0.01)


@pytest.mark.parametrize("rows", [7, 8, 40])
def test_rows_that_are_all_of_one_kind_are_exchanged_one_by_one(rows: int) -> None:
    """One model is right everywhere, the other nowhere: only exchanging all rows or none leaves as much between them,
    which happens with probability 2 / 2^rows.
    """
    found = compared(np.ones(rows), np.zeros(rows), resamples=2000)
    assert found.difference == 1
    assert found.randomization_p == pytest.approx(1 / 2001 + 2.0 ** (1 - rows), abs=0.01)


def test_both_p_values_are_near_the_paired_t_test_s() -> None:
    """Of the mean of many numbers the three tests ask the same."""
    draw = np.random.default_rng(2)
    one = draw.normal(size=400)
    noise = draw.normal(size=400)
    other = one + noise - noise.mean() + 1.5 * noise.std(ddof=1) / np.sqrt(400)
    found = compared(one, other, resamples=4000)
    expected = float(ttest_rel(one, other).pvalue)
    assert expected == pytest.approx(0.134, abs=0.001), "t is 1.5"
    assert found.bootstrap_p == pytest.approx(expected, abs=0.03)
    assert found.randomization_p == pytest.approx(expected, abs=0.03)


def test_intervals_cover_the_truth_and_p_is_uniform_where_nothing_differs() -> None:
    """200 times two models that are equally good: 95 % of the intervals hold 0, and p < 0.1 one time in ten."""
    covered, low_p = 0, np.zeros(2)
    for number in range(200):
        draw = np.random.default_rng(number)
        one, other = ((draw.random(150) < 0.7).astype(float) for _ in range(2))
        found = compared(one, other, resamples=300, seed=number)
        covered += found.low <= 0 <= found.high
        low_p += [found.bootstrap_p < 0.1, (found.randomization_p or 0) < 0.1]
    assert 0.91 <= covered / 200 <= 0.99
    assert (low_p / 200 <= 0.15).all()
    assert (low_p / 200 >= 0.04).all()


@pytest.mark.parametrize("kind", ["accuracy", "macro_f1", "matthews", "roc_auc", "tags", "labels", "spearman"])
def test_an_interval_is_that_of_rows_drawn_one_by_one(kind: str) -> None:
    """Beside the plain way: draw rows, score each model on them again, subtract."""
    draw = np.random.default_rng(5)
    rows = 80
    if kind in ("accuracy", "macro_f1", "matthews"):
        truth = [str(name) for name in draw.choice(NAMES, rows)]
        answers = [guesses(draw, truth, 0.7), guesses(draw, truth, 0.6)]

        def statistic(side: int, chosen: np.ndarray) -> Statistic:
            some = [truth[row] for row in chosen], [answers[side][row] for row in chosen]
            return classification_statistics(*some, NAMES)[kind]
    elif kind == "roc_auc":
        classes = draw.integers(0, 3, rows)
        shares = [draw.dirichlet((1, 1, 1), rows) + np.eye(3)[classes] * 0.3 for _ in range(2)]

        def statistic(side: int, chosen: np.ndarray) -> Statistic:
            return roc_auc_statistic(classes[chosen], shares[side][chosen])
    elif kind == "tags":
        tags = [[str(tag) for tag in draw.choice(["O", "CODE"], 5)] for _ in range(rows)]
        told = [[[tag if draw.random() < 0.8 else "O" for tag in row] for row in tags] for _ in range(2)]

        def statistic(side: int, chosen: np.ndarray) -> Statistic:
            return tag_statistics([tags[row] for row in chosen], [told[side][row] for row in chosen], ["O", "CODE"])[
                "f1"
            ]
    elif kind == "labels":
        marks = draw.random((rows, 3)) < 0.4
        given = [marks ^ (draw.random((rows, 3)) < 0.2) for _ in range(2)]

        def statistic(side: int, chosen: np.ndarray) -> Statistic:
            return multilabel_statistics(marks[chosen], given[side][chosen])["micro_f1"]
    else:
        numbers = draw.normal(size=rows).round(1)
        near = [numbers + draw.normal(size=rows) for _ in range(2)]

        def statistic(side: int, chosen: np.ndarray) -> Statistic:
            return number_statistics(numbers[chosen], near[side][chosen])["spearman"]

    every = np.arange(rows)
    first, second = statistic(0, every), statistic(1, every)
    found = compare([first], [second], [], seed=1, resamples=1500 if first.of_sums else 15_000)
    assert found.randomization_p is None
    assert found.resamples == 1500
    drawn = [draw.integers(0, rows, rows) for _ in range(250)]
    differences = [statistic(0, chosen).value - statistic(1, chosen).value for chosen in drawn]
    assert (found.low, found.high) == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.035)
    assert found.difference == pytest.approx(statistic(0, every).value - statistic(1, every).value)


@pytest.mark.parametrize("rows", [6, 200], ids=["a bit a row", "a count a kind"])
def test_exchanging_answers_is_the_test_that_it_is_called(rows: int) -> None:
    """All 2^6 exchanges of six rows, counted out; of many rows of few kinds, beside plain draws."""
    one = np.array([1.0, 1, 1, 0, 1, 1] + [1.0, 0] * ((rows - 6) // 2))
    other = np.array([0.0, 0, 1, 1, 0, 0] + [1.0, 0] * ((rows - 6) // 2))
    apart = (one - other).sum()
    flips = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1).T
    expected = (np.abs(flips @ (one - other)[:6]) >= apart - 1e-9).mean()
    found = compared(one, other, resamples=20_000)
    assert found.randomization_p == pytest.approx(expected, abs=0.01)


def test_seeds_that_vary_more_than_the_models_widen_the_interval() -> None:
    draw = np.random.default_rng(3)
    rows = draw.random(500)

    def runs(levels: list[float]) -> list[Statistic]:
        return [mean(rows + level + draw.normal(0, 0.01, 500)) for level in levels]

    def test(one: list[float], other: list[float]) -> Difference:
        return compare(runs(one), runs(other), [], seed=1, resamples=1000)

    steady = test([0.10, 0.11, 0.10], [0.0, 0.01, 0.0])
    assert steady.low > 0.08
    shaky = test([0.5, -0.2, 0.01], [0.0, 0.01, 0.0])
    assert shaky.difference == pytest.approx(steady.difference, abs=0.01)
    assert shaky.low < 0 < shaky.high


def test_draws_do_not_hang_on_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(4)
    values = additive(draw.integers(0, 9, (60, 2)), lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1))
    few = mean((draw.random(60) < 0.5).astype(float))
    before = [interval(one, seed=3) for one in (values, few)]
    monkeypatch.setattr(resampling, "_CELLS", 60)
    assert [interval(one, seed=3) for one in (values, few)] == before
