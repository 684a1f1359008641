"""Learning-rate schedules: pure functions from progress to a factor of the highest rate.

Progress is the share of all updates that is behind us, taken at the middle of an update: (updates done + 0.5) / total.
So the first update moves the weights and so does the last, and no history needs to be saved to resume. Where a
wall-clock budget decides the total, the same functions spread over the budget.

Below, p is progress, w is warmup_share, e is end_share, and t = (p - w) / (1 - w) is progress after the warm-up, over
which the factor rises as p / w. Names, formulas and defaults are those of `torch.optim.lr_scheduler` and of
`transformers.get_*_schedule*` as far as these have them.
"""

import math
from collections.abc import Callable

from bertsmith.config.optimizer import ScheduleConfig, ScheduleName

Schedule = Callable[[float], float]

_ROUNDING = 1e-9
"""A drop or a restart that is due at p is not missed because p was rounded down."""


def make_schedule(config: ScheduleConfig) -> Schedule:
    """The schedule that `config` names, with its warm-up; progress outside 0 to 1 is taken as 0 or 1."""
    shape, warmup_share = SHAPES[config.schedule], config.warmup_share

    def factor(progress: float) -> float:
        progress = min(max(progress, 0.0), 1.0)
        return progress / warmup_share if progress < warmup_share else shape(progress, config)

    return factor


def constant(_progress: float, _config: ScheduleConfig) -> float:
    """1"""
    return 1.0


def linear(progress: float, config: ScheduleConfig) -> float:
    """e + (1 - e) (1 - t), by default to 0 at the end (Devlin et al. 2019, A.2)."""
    return _between(config.end_share, 1.0 - _after_warmup(progress, config))


def polynomial(progress: float, config: ScheduleConfig) -> float:
    """e + (1 - e) (1 - t)^power"""
    return _between(config.end_share, (1.0 - _after_warmup(progress, config)) ** config.power)


def cosine(progress: float, config: ScheduleConfig) -> float:
    """e + (1 - e) (1 + cos(pi t)) / 2, half a wave (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return _between(config.end_share, _wave(_after_warmup(progress, config)))


def cosine_with_restarts(progress: float, config: ScheduleConfig) -> float:
    """As `cosine`, but of (cycles t) mod 1: each cycle begins at 1, and the last ends at e."""
    cycles = config.cycles * _after_warmup(progress, config)
    done = min(math.floor(cycles + _ROUNDING), config.cycles - 1)
    return _between(config.end_share, _wave(max(cycles - done, 0.0)))


def cosine_annealing(progress: float, config: ScheduleConfig) -> float:
    """As `cosine`, but of (p - w) / period: at e after one period, at 1 after two, and so on."""
    if config.period_share is None:
        return cosine(progress, config)
    return _between(config.end_share, _wave((progress - config.warmup_share) / config.period_share))


def step(progress: float, config: ScheduleConfig) -> float:
    """drop_factor ^ floor((p - w) / drop_every)"""
    assert config.drop_every_share is not None, "checked when the recipe was read"
    return config.drop_factor ** math.floor((progress - config.warmup_share) / config.drop_every_share + _ROUNDING)


def multi_step(progress: float, config: ScheduleConfig) -> float:
    """drop_factor ^ (number of drops at or before p)"""
    return config.drop_factor ** sum(at <= progress + _ROUNDING for at in config.drop_at_shares)


def inverse_sqrt(progress: float, config: ScheduleConfig) -> float:
    """1 / sqrt(1 + (p - w) / timescale); with timescale = w that is sqrt(w / p) (Vaswani et al. 2017, section 5.3)."""
    timescale_share = config.timescale_share or config.warmup_share
    return 1.0 / math.sqrt(1.0 + (progress - config.warmup_share) / timescale_share)


def wsd(progress: float, config: ScheduleConfig) -> float:
    """1, then e + (1 - e) shape(s) with s from 0 to 1 over the last decay_share of all steps.

    shape is 1 - sqrt(s), 1 - s or (1 + cos(pi s)) / 2. From Hu et al. 2024, arXiv:2404.06395; the square root from
    Hägele et al. 2024, arXiv:2405.18392.
    """
    decayed = min(max(1.0 - (1.0 - progress) / config.decay_share, 0.0), 1.0)
    shapes = {"1-sqrt": 1.0 - math.sqrt(decayed), "linear": 1.0 - decayed, "cosine": _wave(decayed)}
    return _between(config.end_share, shapes[config.decay_shape])


SHAPES: dict[ScheduleName, Callable[[float, ScheduleConfig], float]] = {
    "linear": linear,
    "constant": constant,
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "cosine_annealing": cosine_annealing,
    "polynomial": polynomial,
    "step": step,
    "multi_step": multi_step,
    "inverse_sqrt": inverse_sqrt,
    "wsd": wsd,
}
"""What follows the warm-up: functions of p >= w."""


def _after_warmup(progress: float, config: ScheduleConfig) -> float:
    """t; 0 where all is warm-up."""
    return (progress - config.warmup_share) / (1.0 - config.warmup_share) if config.warmup_share < 1.0 else 0.0


def _between(end_share: float, share: float) -> float:
    """`share` of the way from e to 1."""
    return end_share + (1.0 - end_share) * share


def _wave(t: float) -> float:
    """1 at 0, 0 at 1, 1 again at 2."""
    return (1.0 + math.cos(math.pi * t)) / 2.0
