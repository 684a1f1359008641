"""Learning-rate factors as functions of progress, and how they are drawn."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.config import ScheduleConfig, load_recipe
from bertsmith.errors import RecipeError
from bertsmith.training.schedule import SHAPES, make_schedule
from bertsmith.training.schedule_plot import draw_schedule

shares = st.floats(0, 1)
NEEDED: dict[str, dict[str, Any]] = {
    "step": {"drop_every_share": 0.3},
    "multi_step": {"drop_at_shares": (1.0,)},
    "inverse_sqrt": {"timescale_share": 0.1},
    "wsd": {"decay_share": 0.2},
}


def schedule(name: str, warmup_share: float, **settings: Any) -> Any:
    return make_schedule(
        ScheduleConfig(schedule=name, warmup_share=warmup_share, **NEEDED.get(name, {}) | settings)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", SHAPES)
@given(progress=st.floats(-0.5, 1.5), warmup_share=shares)
def test_a_factor_lies_between_0_and_1(name: str, progress: float, warmup_share: float) -> None:
    if name == "wsd":
        warmup_share *= 0.8
    if name == "multi_step":
        warmup_share *= 0.99
    assert 0.0 <= schedule(name, warmup_share)(progress) <= 1.0


def test_linear_rises_to_1_and_falls_to_0() -> None:
    factor = schedule("linear", 0.2)
    assert [factor(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_constant_stays_at_1_after_the_warmup() -> None:
    factor = schedule("constant", 0.5)
    assert [factor(p) for p in (0.25, 0.5, 1.0)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("name", SHAPES)
def test_without_warmup_it_starts_at_1(name: str) -> None:
    assert schedule(name, 0.0)(0.0) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_the_warmup_is_the_same_straight_line_for_all(name: str) -> None:
    assert [schedule(name, 0.5)(p) for p in (0.0, 0.1, 0.25)] == [0.0, 0.2, 0.5]


@pytest.mark.parametrize("name", ["linear", "polynomial", "cosine", "cosine_with_restarts", "cosine_annealing", "wsd"])
def test_the_end_share_is_where_it_ends(name: str) -> None:
    assert schedule(name, 0.1, end_share=0.25)(1.0) == pytest.approx(0.25)
    assert schedule(name, 0.1)(1.0) == pytest.approx(0.0, abs=1e-12)


def test_each_cycle_of_restarts_begins_at_the_top() -> None:
    factor = schedule("cosine_with_restarts", 0.1, cycles=3)
    assert [factor(p) for p in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)] == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5])


def test_annealing_falls_for_a_period_and_rises_for_another() -> None:
    factor = schedule("cosine_annealing", 0.2, period_share=0.2, end_share=0.5)
    assert [factor(p) for p in (0.2, 0.3, 0.4, 0.5, 0.6)] == pytest.approx([1, 0.75, 0.5, 0.75, 1])


def test_drops_come_when_they_are_due() -> None:
    factor = schedule("step", 0.1, drop_every_share=0.3, drop_factor=0.5)
    assert [factor(p) for p in (0.1, 0.39, 0.4, 0.69, 0.7, 0.99, 1.0)] == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]
    factor = schedule("multi_step", 0.1, drop_at_shares=(0.3, 0.9))
    assert [factor(p) for p in (0.1, 0.29, 0.3, 0.89, 0.9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "linear", "cycles": 2}, "schedule = 'linear' takes no cycles; that is of cosine_with_restarts"),
        ({"drop_factor": 0.5}, "schedule = 'linear' takes no drop_factor; that is of step and multi_step"),
        ({"schedule": "constant", "end_share": 0.1}, "'constant' takes no end_share; that is of linear and cosine"),
        ({"schedule": "step"}, "'step' needs drop_every_share"),
        ({"schedule": "multi_step"}, "'multi_step' needs drop_at_shares"),
        ({"schedule": "multi_step", "drop_at_shares": [0.5, 0.4]}, "drop_at_shares must ascend"),
        ({"schedule": "multi_step", "drop_at_shares": [0.05]}, "and begin after warmup_share"),
        ({"schedule": "inverse_sqrt", "warmup_share": 0.0}, "needs timescale_share where warmup_share is 0"),
        ({"schedule": "wsd", "warmup_share": 0.5, "decay_share": 0.6}, "are more than 1 together"),
        ({"schedule": "cosin"}, "schedule: Input should be 'linear', 'constant'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(tomli_w.dumps({"name": "r", "finetune": {"model": "m", **settings}}), encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert message in str(raised.value)


@given(total=st.integers(1, 400))
def test_the_first_and_the_last_update_of_a_run_move_the_weights(total: int) -> None:
    for name in SHAPES:
        factor = schedule(name, 0.1)
        assert factor(0.5 / total) > 0
        assert factor((total - 0.5) / total) > 0


def test_a_drawing_has_the_curve_and_both_axes() -> None:
    drawn = draw_schedule(schedule("linear", 0.0), learning_rate=1e-4, total_steps=1000, width=16, height=4)
    assert drawn.splitlines() == [
        "learning rate",
        "1.00e-04 ┤▇▅▃▁",
        "         │████▇▅▃▁",
        "5.00e-05 ┤████████▇▅▃▁",
        "         │████████████▇▅▃▁",
        "       0 ┼────────────────",
        "          0      500 1,000",
        "                     steps",
    ]
    over_a_budget = draw_schedule(schedule("linear", 0.0), learning_rate=1e-4, total_steps=None, width=16, height=4)
    assert over_a_budget.splitlines()[-2:] == ["          0 %   50 % 100 %", "                of the run"]


@pytest.mark.parametrize("total_steps", [None, 1, 123_456])
@pytest.mark.parametrize(("width", "height"), [(60, 12), (24, 3), (100, 1)])
def test_a_drawing_has_the_size_that_was_asked_for(total_steps: int | None, width: int, height: int) -> None:
    lines = draw_schedule(
        schedule("wsd", 0.2), learning_rate=7e-4, total_steps=total_steps, width=width, height=height
    ).splitlines()
    assert len(lines) == height + 4
    margin = len("7.00e-04 ┤")
    assert all(len(line) <= margin + width for line in lines)
    assert len(lines[-3]) == len(lines[-2]) == len(lines[-1]) == margin + width
    top = lines[1][margin:]
    assert top.strip()[:1] in "▁▂▃▄▅▆▇█"
    assert lines[1].startswith("7.00e-04 ┤")
