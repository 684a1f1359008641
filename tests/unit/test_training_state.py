"""How a wall-clock budget becomes a number of steps."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from bertsmith.training.budget import MARKS, Stopwatch, count_again, decide_total_steps, steps_in_budget
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Plan
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


def _walk(seconds: Callable[[int], float], plan: Plan, evaluation_seconds: float = 0.0) -> tuple[State, float, Any]:
    """A run by a made-up clock: its last state, how long it took, and (step, progress, decision) of each update."""
    state, stopwatch, elapsed, path = State.begin(plan), Stopwatch(), evaluation_seconds, []
    state.evaluation_seconds = evaluation_seconds
    while not state.is_finished:
        progress = state.progress
        stopwatch.add_step(seconds(state.step), state)
        elapsed += seconds(state.step)
        state.step += 1
        times: Any = {"elapsed_seconds": elapsed, "checkpoint_bytes": 0, "ranks": Ranks(0, 1)}
        decision = None
        if state.total_steps is None:
            decision = decide_total_steps(state, plan, stopwatch, **times)
        elif not state.is_finished:
            decision = count_again(state, plan, **times)
        path.append((state.step, progress, decision))
        total = state.total_steps
        if total is not None and (state.is_finished or state.step % -(-total // 10) == 0):
            elapsed += evaluation_seconds
    return state, elapsed, path


@pytest.mark.parametrize("evaluation_seconds", [0.0, 5.0])
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("even", lambda _: 1.0),
        ("busy at first", lambda step: 2.0 if step < 100 else 1.0),
        ("very busy at first", lambda step: 10.0 if step < 60 else 1.0),
        ("slower in the end", lambda step: 1.0 if step < 600 else 2.5),
        ("to and fro", lambda step: 1.0 + (step // 70 % 2)),
    ],
)
def test_a_budget_is_kept_though_the_machine_changes(
    name: str, seconds: Callable[[int], float], evaluation_seconds: float
) -> None:
    plan = Plan(8, 8, 1000, budget_seconds=1000.0)
    state, elapsed, path = _walk(seconds, plan, evaluation_seconds)
    assert elapsed == pytest.approx(1000.0, rel=0.03), name
    counts = [decision for step, _, decision in path if decision is not None and decision.name == "total_steps"]
    assert len(counts) == 1 + len(MARKS) - sum(mark <= 0.2 for mark in MARKS) * (name == "very busy at first")
    assert counts[-1].value == state.total_steps == state.step
    first = counts[0].value
    assert (abs(first - state.step) > 0.1 * first) == (name != "even"), "the case needs another count"
    progress = [value for _, value, _ in path[counted_at(path) :]]
    steps = [b - a for a, b in pairwise(progress)]
    assert min(steps) > 0.0, "the schedule never goes back"
    assert max(steps) < 0.011, "nor leaps"
    assert progress[-1] == pytest.approx(1.0, abs=0.01)


def counted_at(path: Any) -> int:
    """Index of the first update after the first count."""
    return next(i for i, (_, _, decision) in enumerate(path, 1) if decision and decision.name == "total_steps")


def test_progress_goes_on_from_where_it_was() -> None:
    plan = Plan(8, 8, 1000, budget_seconds=60.0)
    state = State(step=400, total_steps=1000, budget_total_steps=1000)
    before = [replace(state, step=step).progress for step in (399, 400)]
    state.end_at(600, plan)
    assert (state.total_steps, state.anchor_step) == (600, 400)
    assert state.anchor_progress == pytest.approx(0.4)
    assert before[0] < state.progress == pytest.approx(0.4 + 0.6 * 0.5 / 200)
    state.end_at(600, plan)
    assert (state.anchor_step, state.total_steps) == (400, 600)
    state.step = 500
    state.end_at(900, plan)
    assert (state.anchor_step, state.anchor_progress) == (500, pytest.approx(0.7))
    state.step = 899
    assert state.progress == pytest.approx(1 - 0.3 * 0.5 / 400)


def test_planned_steps_still_end_first() -> None:
    plan = Plan(8, 8, 1000, total_steps=120, budget_seconds=1000.0)
    state, elapsed, path = _walk(lambda _: 1.0, plan)
    assert (state.step, elapsed) == (120, 120.0)
    assert all(decision is None or decision.value == 120 for *_, decision in path)


def test_too_few_steps_are_waited_for() -> None:
    """And those of another batch size are not counted by."""
    plan = Plan(8, 8, 1000, budget_seconds=100.0)
    state = State(step=60, total_steps=100, budget_total_steps=100, timed_steps=4, timed_seconds=4.0)
    times: Any = {"elapsed_seconds": 60.0, "checkpoint_bytes": 0, "ranks": Ranks(0, 1)}
    state.batch_sizes = [[0, 8]]
    assert count_again(state, plan, **times) is None
    state.timed_steps, state.timed_seconds = 5, 10.0
    decision = count_again(state, plan, **times)
    assert decision is not None
    assert decision.value == state.total_steps == 80
    assert "the last 5 steps took 2.0000 s each" in decision.because
    assert (state.budget_marks, state.timed_steps) == (3, 0)
    assert count_again(state, plan, **times) is None, "once a mark"
    state.timed_steps, state.timed_seconds = 30, 60.0
    state.grow(16, plan)
    assert (state.timed_steps, state.timed_seconds, state.total_steps) == (0, 0.0, 70)


def test_the_state_survives_json() -> None:
    state = State(step=3, total_steps=9, best_value=0.1 + 0.2)
    state.window.add_update({"mlm": 1 / 3}, loss=1 / 3, gradient_norm=0.7, clipped=True)
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
