"""How a wall-clock budget becomes a number of steps."""

import json
import math
from typing import Any

import pytest

from bertsmith.training.budget import steps_in_budget
from bertsmith.training.state import State


def _decide(step_seconds: list[float], **changes: Any) -> tuple[str, int, str] | None:
    spent = sum(step_seconds)
    arguments: dict[str, Any] = {
        "budget_seconds": 1000.0 - spent,
        "spent_seconds": spent,
        "step_seconds": step_seconds,
        "evaluation_seconds": 0.0,
        "evaluate_every": None,
        "checkpoint_bytes": 0,
        "checkpoint_every_seconds": 60.0,
    }
    return steps_in_budget(**(arguments | changes))


def test_nothing_is_decided_until_enough_is_measured() -> None:
    decided = {n: _decide([1.0] * n) for n in range(1, 54)}
    assert [n for n, decision in decided.items() if decision is not None] == [8, 53]
    assert decided[8] is not None
    assert decided[8][:2] == ("provisional_total_steps", 992)
    assert decided[53] is not None
    assert decided[53][:2] == ("total_steps", 947)
    assert "50 measured steps took 1.0000 s each" in decided[53][2]


def test_compilation_in_the_first_steps_is_spent_but_not_measured() -> None:
    decision = _decide([100.0, 1.0, 1.0] + [1.0] * 50)
    assert decision is not None
    assert decision[1] == 848


def test_time_for_evaluations_and_checkpoints_is_set_aside() -> None:
    steps = [1.0] * 53
    ten = _decide(steps, evaluation_seconds=5.0)
    each = _decide(steps, evaluation_seconds=5.0, evaluate_every=20)
    saving = _decide(steps, checkpoint_bytes=int(200e6 * 6), checkpoint_every_seconds=60.0)
    assert ten is not None
    assert ten[1] == 947 - 50
    assert each is not None
    assert each[1] == int((947 - 5) / 1.25)
    assert saving is not None
    assert saving[1] == int((947 - 6) / 1.1)


@pytest.mark.parametrize("seconds", [30.0, 500.0, 5000.0])
def test_a_short_budget_is_decided_after_a_fifth_of_it(seconds: float) -> None:
    steps: list[float] = []
    while (decision := _decide(steps)) is None or decision[0] != "total_steps":
        steps.append(seconds)
    assert sum(steps) == pytest.approx(max(seconds, math.ceil(200 / seconds) * seconds))
    assert decision[1] == max(1, int((1000 - sum(steps)) / seconds)), "at least one more step, never a negative count"


def test_the_state_survives_json() -> None:
    state = State(step=3, total_steps=9, best_value=0.1 + 0.2)
    state.window.add_update({"mlm": 1 / 3}, loss=1 / 3, gradient_norm=0.7, clipped=True)
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
