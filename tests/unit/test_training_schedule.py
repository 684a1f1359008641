"""Learning-rate factors as functions of progress."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.training.schedule import SHAPES, make_schedule

shares = st.floats(0, 1)


@pytest.mark.parametrize("name", SHAPES)
@given(progress=st.floats(-0.5, 1.5), warmup_share=shares)
def test_a_factor_lies_between_0_and_1(name: str, progress: float, warmup_share: float) -> None:
    assert 0.0 <= make_schedule(name, warmup_share=warmup_share)(progress) <= 1.0


def test_linear_rises_to_1_and_falls_to_0() -> None:
    factor = make_schedule("linear", warmup_share=0.2)
    assert [factor(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_constant_stays_at_1_after_the_warmup() -> None:
    factor = make_schedule("constant", warmup_share=0.5)
    assert [factor(p) for p in (0.25, 0.5, 1.0)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("name", SHAPES)
def test_without_warmup_it_starts_at_1(name: str) -> None:
    assert make_schedule(name, warmup_share=0.0)(0.0) == 1.0
