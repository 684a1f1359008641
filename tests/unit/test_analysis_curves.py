"""Curves: thinning that keeps what matters, smoothing that does not lag, ticks that are round."""

import json
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.analysis.curves import chart, script_json, short, ticks
from bertsmith.analysis.run_log import Steps
from bertsmith.analysis.series import Series, line_of, means, noisy, series, smooth, thin


def line_through(values: Sequence[float], name: str = "x") -> Series:
    return Series(name, np.arange(float(len(values))), np.array(values, dtype=float))


FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=3000), st.integers(4, 400))
def test_thinning_keeps_ends_and_extremes_in_order(values: list[float], most: int) -> None:
    steps = list(range(0, 10 * len(values), 10))
    kept_steps, kept = (list(found) for found in thin(np.array(steps, dtype=float), np.array(values), most))
    assert len(kept) <= max(most, 1)
    assert kept_steps == sorted(set(kept_steps))
    assert [values[int(step) // 10] for step in kept_steps] == kept
    assert (kept_steps[0], kept_steps[-1]) == (steps[0], steps[-1])
    assert (min(kept), max(kept)) == (min(values), max(values))


def test_a_single_spike_survives_thinning_of_a_long_run() -> None:
    values = [1.0] * 100_000
    values[54_321] = 50.0
    steps, kept = (list(found) for found in thin(np.arange(1e5), np.array(values), 500))
    assert 50.0 in kept
    assert steps[kept.index(50.0)] == 54_321


@given(st.lists(FINITE, min_size=1, max_size=500))
def test_smoothing_stays_within_the_values(values: list[float]) -> None:
    line = smooth(line_through(values))
    assert len(line.values) == len(values)
    assert min(line.values) >= min(values) - 1e-3
    assert max(line.values) <= max(values) + 1e-3


def test_smoothing_does_not_lag() -> None:
    straight = tuple(float(i) for i in range(600))
    line = smooth(line_through(straight))
    assert line.values[:580] == pytest.approx(straight[:580])


def test_only_long_lines_are_smoothed() -> None:
    short_line = line_through([1.0, 2.0])
    assert noisy(short_line)[0] is short_line
    assert len(noisy(short_line)) == 1
    assert [line.style for line in noisy(line_through([1.0] * 100))] == ["faint", "line"]


@given(FINITE, st.floats(1e-6, 1e9))
def test_ticks_are_few_and_within(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), width)
    if width > slack:
        assert len(found) <= 8
        assert all(low - slack <= tick <= high + slack for tick in found)


def test_ticks_are_round() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.03, 0.98) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert ticks(-0.1, 0.1) == pytest.approx([-0.1, -0.05, 0, 0.05, 0.1])


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (1500, "1.5k"),
        (20e6, "20M"),
        (2e-4, "2e-4"),
        (1.5e-5, "1.5e-5"),
        (-1.25e-6, "-1.25e-6"),
        (3.5e9, "3.5G"),
        (-0.5, "-0.5"),
    ],
)
def test_tick_labels(value: float, label: str) -> None:
    assert short(value) == label


def test_series_has_gaps_where_there_is_no_number_and_takes_the_later_of_two() -> None:
    events = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": math.nan},
        {"step": 4, "loss": "2"},
        {"step": 5},
        {"step": 6, "loss": 2.0},
        {"step": 6, "loss": 1.5},
        {"loss": True, "step": 7},
    ]
    line = series(events, lambda event: event.get("loss"), name="loss")
    assert list(line.steps) == [1, 2, 3, 4, 5, 6, 7]
    assert [None if np.isnan(value) else value for value in line.values] == [3.0, None, None, None, None, 1.5, None]


def test_a_gap_is_not_drawn_over_and_a_point_alone_is_a_dot() -> None:
    figure = chart("Loss", [line_through([1.0, 2.0, math.nan, 5.0, math.nan, 3.0, 4.0])], group="g")
    assert figure is not None
    line, dot = re.findall(r' d="([^"]*)"', figure)
    assert [piece.count("L") for piece in line.split("M")[1:]] == [1, 1]
    assert dot.count("M") == 1
    assert '"y":[1,2,null,5,null,3,4]' in figure


def test_lines_that_could_not_be_read_are_a_gap_between_their_neighbours() -> None:
    steps = Steps(np.array([1.0, 2.0, 3.0]), {"loss": np.array([5.0, 4.0, 3.0])}, np.array([2.0, 3.0]))
    line = line_of(steps, "loss", name="loss")
    assert list(line.steps) == [1, 2, 2.5, 3]
    assert np.isnan(line.values[2])


def test_one_gap_in_a_hundred_thousand_lines_is_seen() -> None:
    values = np.ones(100_000)
    values[70_000] = np.nan
    steps, kept = thin(np.arange(1e5), values)
    assert list(steps[np.isnan(kept)]) == [70_000]


def test_means_are_of_all_lines_and_leave_gaps() -> None:
    values = np.arange(10_000.0)
    values[:200] = np.nan
    steps, found = means(np.arange(10_000.0), values, 100)
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(np.arange(200, 300).mean())
    assert steps[2] == pytest.approx(np.arange(200, 300).mean())


def test_a_chart_of_nothing_is_none() -> None:
    assert chart("Loss", [], group="g") is None
    assert chart("Loss", [line_through([])], group="g") is None


@pytest.mark.parametrize("values", [(1.0,), (0.0, 0.0), (-5.0, -5.0), (1e300, -1e300), (1e-300, 2e-300)])
def test_flat_single_and_extreme_lines_are_drawn(values: tuple[float, ...]) -> None:
    figure = chart("Loss", [line_through(values)], group="g")
    assert figure is not None
    assert "nan" not in figure
    assert "inf" not in figure


def test_the_data_for_hover_has_raw_values_not_the_smoothed_ones() -> None:
    raw = line_through([float(i % 2) for i in range(100)], name="loss")
    figure = chart("Loss", noisy(raw), group="g")
    assert figure is not None
    data = json.loads(figure.split('<script type="application/json">')[1].split("</script>")[0])
    assert len(data["series"]) == 1
    assert data["series"][0]["y"] == [float(i % 2) for i in range(100)]
    assert "Loss: loss from 0 at step 0" in figure


def test_json_in_a_script_cannot_end_it() -> None:
    written = script_json({"name": "</script><script>alert(1)</script><!--"})
    assert "<" not in written
    assert json.loads(written) == {"name": "</script><script>alert(1)</script><!--"}
