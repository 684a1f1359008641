"""Which examples a step reads while batches grow, ramps, growth by noise, and what "auto" chooses."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.config import FinetuneConfig, PretrainConfig
from bertsmith.errors import BertsmithError
from bertsmith.training.batch_choice import finetuning_batch_size, pretraining_batch_size
from bertsmith.training.batch_size import Growth, RampUp, equal_parts, next_size, place_of
from bertsmith.training.distributed import Ranks
from bertsmith.training.noise_scale import NoiseScale
from bertsmith.training.plan import Plan
from bertsmith.training.sizes import decide_micro_batch, grow_batch, halve_micro_batch
from bertsmith.training.state import State

sizes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 64)), min_size=1, max_size=5)


@given(segments=sizes)
def test_batches_follow_one_another_without_a_gap(segments: list[tuple[int, int]]) -> None:
    steps = list(itertools.accumulate((length for length, _ in segments), initial=0))
    changes = [(step, size) for step, (_, size) in zip(steps, segments, strict=False)]
    read = 0
    for step in range(steps[-1] + 3):
        place = place_of(step, changes)
        assert place.position == read
        assert place.batch_size == next(size for begin, size in reversed(changes) if begin <= step)
        assert place.first_position + place.number * place.batch_size == read
        read += place.batch_size


def test_a_size_that_never_changes_numbers_batches_by_step() -> None:
    for step in (0, 1, 15, 16, 1000):
        place = place_of(step, [[0, 32]])
        assert (place.number, place.first_position, place.batch_size) == (step, 0, 32)


def test_a_ramp_goes_in_steps_of_its_first_size_and_ends_at_its_share() -> None:
    ramp = RampUp(first=8, last=32, share=0.5)
    progress = np.linspace(0, 1, 1001)
    seen = [ramp.size(float(share)) for share in progress]
    assert sorted(set(seen)) == [8, 16, 24, 32]
    assert seen == sorted(seen)
    assert ramp.size(0.0) == 8
    assert ramp.size(0.499) == 24
    assert ramp.size(0.5) == 32
    assert ramp.size(1.0) == 32
    # 24 (share of the ramp) x 24 / 8 = 3 sizes, each for a third of the ramp
    assert [round(float(progress[seen.index(size)]), 2) for size in (16, 24, 32)] == [0.17, 0.33, 0.5]


def test_a_ramp_between_sizes_that_do_not_divide_ends_at_the_last() -> None:
    ramp = RampUp(first=12, last=32, share=0.3)
    assert sorted({ramp.size(share / 100) for share in range(101)}) == [12, 24, 32]


def test_growth_doubles_once_where_noise_is_greater_and_stops_at_the_most() -> None:
    growth = Growth(most=128)
    assert [growth.size(32, scale) for scale in (None, 10.0, 32.0, 33.0, 5000.0, float("inf"))] == [32] * 3 + [64] * 3
    assert growth.size(64, 1e9) == 128
    assert growth.size(128, 1e9) == 128
    assert growth.size(96, 1e9) == 96, "192 would be more than the most"


def test_sizes_change_only_where_a_group_of_batches_ends() -> None:
    arguments = {"progress": 0.9, "noise_scale": 1e6}
    ramp, growth = RampUp(8, 32, 0.5), Growth(1024)
    ramped = [s for s in range(200) if next_size(s, 8, ramp_up=ramp, growth=None, **arguments)[0] != 8]
    grown = [s for s in range(200) if next_size(s, 32, ramp_up=None, growth=growth, **arguments)[0] != 32]
    assert ramped == list(range(0, 200, 16))
    assert grown == [0, 64, 128, 192]
    assert next_size(64, 8, progress=0.01, noise_scale=1e6, ramp_up=ramp, growth=growth)[0] == 8, "the ramp goes first"
    assert next_size(64, 32, progress=0.9, noise_scale=1e6, ramp_up=ramp, growth=growth)[0] == 64
    assert next_size(0, 8, progress=0.0, noise_scale=None, ramp_up=None, growth=None) == (8, "")


ALONE = Ranks(0, 1)
PLAN = Plan(batch_size=32, micro_batch_size=8, num_examples=1000, total_steps=1000, ramp_up=RampUp(8, 32, 0.5))


def _at(step: int, plan: Plan = PLAN) -> State:
    state = State.begin(plan)
    decide_micro_batch(state, plan, None, ALONE)
    state.step = step
    return state


def test_planned_steps_stay_when_batches_grow() -> None:
    state = _at(176)
    assert grow_batch(state, PLAN) is not None
    assert state.batch_sizes == [[0, 8], [176, 16]]
    assert state.total_steps == 1000
    assert state.progress == (176 + 0.5) / 1000
    assert state.examples == 176 * 8
    state.step = 179
    assert state.examples == 176 * 8 + 3 * 16
    assert (state.due().number, state.due().first_position, state.due().batch_size) == (3, 176 * 8, 16)


def test_within_a_budget_growth_keeps_time_and_progress() -> None:
    plan = Plan(32, 8, 1000, budget_seconds=60.0, ramp_up=RampUp(8, 32, 0.5))
    state = _at(176, plan)
    assert grow_batch(state, plan) is None, "no growth before the steps of a budget are known"
    state.total_steps = state.budget_total_steps = 1000
    before = state.progress
    decision = grow_batch(state, plan)
    assert decision is not None
    assert (decision.name, decision.value) == ("batch_size", 16)
    assert "ramp-up at 17.6" in decision.because
    assert state.total_steps == 176 + (1000 - 176) // 2, "half as many of twice the size"
    assert state.progress == pytest.approx(before, abs=1e-3)
    steps = []
    while not state.is_finished:
        grow_batch(state, plan)
        steps.append(state.progress)
        state.step += 1
    assert [size for _, size in state.batch_sizes] == [8, 16, 24, 32]
    assert steps == sorted(steps)
    assert max(np.diff(steps)) < 32 / 8 / 1000 * 1.01, "never faster than the size of the batch allows"
    assert steps[-1] == pytest.approx(1 - 2 / 1000, abs=1e-3), "half a step of the last size before the end"
    whole = sum(
        (end - begin) * size
        for (begin, size), (end, _) in zip(
            state.batch_sizes, [*state.batch_sizes[1:], [state.total_steps, 0]], strict=True
        )
    )
    assert whole == pytest.approx(1000 * 8, rel=0.01), "as many examples as were measured to fit"


def test_planned_steps_that_end_before_the_budget_are_kept() -> None:
    plan = Plan(32, 8, 1000, total_steps=500, budget_seconds=60.0, growth=Growth(128))
    state = _at(64, plan)
    state.total_steps, state.budget_total_steps = 500, 100_000
    state.noise = NoiseScale(squared_norm=1.0, trace=1000.0, updates=99)
    decision = grow_batch(state, plan)
    assert decision is not None
    assert (state.total_steps, state.anchor_step) == (500, 0)
    assert "the gradient noise scale is about 1,000, more than the batch of 32" in decision.because


def test_a_growth_is_decided_once_a_step() -> None:
    """A signal between the decision and the end of its step: the step begins again from the saved state."""
    plan = Plan(32, 16, 1000, total_steps=500, growth=Growth(1024))
    state = _at(64, plan)
    state.noise = NoiseScale(squared_norm=1.0, trace=1000.0, updates=99)
    assert grow_batch(state, plan) is not None
    again = State.from_json(state.to_json())
    assert grow_batch(again, plan) is None
    assert again.batch_size == 64


def test_the_micro_batch_is_decided_once_and_fits_the_plan() -> None:
    state = State.begin(PLAN)
    assert decide_micro_batch(state, PLAN, None, ALONE) == []
    assert state.micro_batch_size == 8
    asked: list[int] = []

    def fit(most: int) -> tuple[int, str]:
        asked.append(most)
        return 4, "so said the meter"

    growing = Plan(32, 32, 1000, total_steps=9, growth=Growth(128), batch_size_because="so said the rule")
    state = State.begin(growing)
    told = decide_micro_batch(state, growing, fit, ALONE)
    assert asked == [16], "half a batch, so that there are two parts to measure noise between"
    assert [(decision.name, decision.value) for decision in told] == [("batch_size", 32), ("micro_batch_size", 4)]
    assert told[1].line == "micro-batch 4: so said the meter"
    assert decide_micro_batch(State.from_json(state.to_json()), growing, fit, ALONE) == []
    assert len(asked) == 1


def test_ranks_ask_for_their_share_and_go_by_the_least() -> None:
    class Two(Ranks):
        def gather(self, value: Any) -> list[Any]:
            return [value, (1, "the other one has less memory")]

    plan, state = Plan(32, 32, 1000, total_steps=9), State.begin(PLAN)
    told = decide_micro_batch(state, plan, lambda most: (most, "all fits"), Two(0, 2))
    assert (state.micro_batch_size, told[0].because) == (1, "the other one has less memory")
    state = State.begin(PLAN)
    decide_micro_batch(state, plan, lambda most: (most, "all fits"), Ranks(0, 1))
    assert state.micro_batch_size == 32
    asked: list[int] = []
    decide_micro_batch(State.begin(PLAN), plan, lambda most: (asked.append(most), (most, ""))[1], Two(0, 2))  # type: ignore[func-returns-value]
    assert asked == [16]


def test_halving_ends_at_one() -> None:
    state = _at(3)
    assert [halve_micro_batch(state).value for _ in range(3)] == [4, 2, 1]
    with pytest.raises(BertsmithError, match="step 4 does not fit into the GPU's memory with a single example"):
        halve_micro_batch(state)


@pytest.mark.parametrize(
    ("batch_size", "most", "expected"),
    [(32, 32, 32), (32, 100, 32), (32, 31, 16), (32, 9, 8), (30, 16, 15), (31, 16, 16), (7, 3, 3), (1, 5, 1)],
)
def test_micro_batches_are_equal_where_that_costs_little(batch_size: int, most: int, expected: int) -> None:
    assert equal_parts(batch_size, most) == expected
    assert expected <= most


def test_the_two_runs_that_are_known_are_chosen_again() -> None:
    many = {"num_examples": 10**8, "budget_minutes": None}
    assert pretraining_batch_size(parameters=110_000_000, max_steps=1_000_000, **many)[0] == 256
    assert pretraining_batch_size(parameters=5_500_000, max_steps=2000, **many)[0] == 8
    size, because = pretraining_batch_size(num_examples=10**6, parameters=5_500_000, max_steps=None, budget_minutes=20)
    assert size == 16
    assert because == "a run of 20 minutes with 5,500,000 parameters has use for about 13; 62,500 updates an epoch"


def test_larger_models_longer_runs_and_small_data_are_weighed() -> None:
    def choose(examples: int = 10**7, parameters: int = 5_500_000, minutes: float = 600.0) -> int:
        return pretraining_batch_size(
            num_examples=examples, parameters=parameters, max_steps=None, budget_minutes=minutes
        )[0]

    assert [choose(minutes=minutes) for minutes in (1.0, 60.0, 600.0, 6e4, 1e9)] == [4, 16, 32, 256, 256]
    assert choose(parameters=110_000_000) == 16, "a larger model takes fewer steps in the time"
    assert choose(examples=1600) == 16, "a hundred updates an epoch"
    assert choose(examples=10) == 4
    both = pretraining_batch_size(num_examples=10**7, parameters=5_500_000, max_steps=2000, budget_minutes=6000)
    assert both[0] == 8, "the end that comes first counts"


def test_a_batch_and_its_budget_agree() -> None:
    """Of a budget: the size belongs to the number of updates that the budget holds with that size."""
    for minutes in (20, 200, 2000):
        size, because = pretraining_batch_size(
            num_examples=10**9, parameters=5_500_000, max_steps=None, budget_minutes=minutes
        )
        exact = float(because.split("about ")[1].split(";")[0])
        steps = round(minutes * 3200 / exact)
        planned, _ = pretraining_batch_size(
            num_examples=10**9, parameters=5_500_000, max_steps=steps, budget_minutes=None
        )
        assert planned == size


def test_fine_tuning_has_enough_updates() -> None:
    chosen = {rows: finetuning_batch_size(num_examples=rows, epochs=3)[0] for rows in (100, 1000, 3000, 8551, 10**6)}
    assert chosen == {100: 4, 1000: 8, 3000: 16, 8551: 32, 10**6: 32}
    for rows, size in chosen.items():
        assert size == 4 or 3 * rows / size >= 350
    size, because = finetuning_batch_size(num_examples=3000, epochs=3)
    assert because == ("3,000 rows, 3 times, should make about 500 updates or more; 188 updates an epoch, 564 in all")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size_rampup": (64, 0.5)}, "begins with 64, more than batch_size 32"),
        ({"batch_size_growth": "noise-scale", "batch_size": 1}, "needs a batch_size of 2 or more"),
        ({"max_batch_size": 64}, "max_batch_size needs batch_size_growth"),
        ({"batch_size_growth": "noise-scale", "max_batch_size": 48}, "48 is less than twice batch_size 32"),
        ({"batch_size_rampup": (8, 1.5)}, "less than or equal to 1"),
        ({"batch_size": "large"}, "batch_size"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(max_steps=5, **keys)


def test_the_micro_batch_is_fitted_where_it_or_the_batch_is_automatic() -> None:
    assert PretrainConfig(max_steps=5, micro_batch_size="auto").fits_micro_batch
    assert PretrainConfig(max_steps=5, batch_size="auto").fits_micro_batch
    assert not PretrainConfig(max_steps=5, batch_size="auto", micro_batch_size=4).fits_micro_batch
    assert not FinetuneConfig(train="x.tsv").fits_micro_batch
