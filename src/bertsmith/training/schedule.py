"""Learning-rate schedules: pure functions from progress to a factor of the peak rate.

Progress is the share of all updates that is behind us, taken at the middle of an update: (updates done + 0.5) / total.
So the first update moves the weights and so does the last, and no history needs to be saved to resume.
"""

from collections.abc import Callable

Schedule = Callable[[float], float]


def linear(progress: float, *, warmup_share: float) -> float:
    """0 to 1 over the warm-up, then back to 0 at the end (Devlin et al. 2019, A.2)."""
    if progress < warmup_share:
        return progress / warmup_share
    return (1.0 - progress) / (1.0 - warmup_share) if warmup_share < 1.0 else 1.0


def constant(progress: float, *, warmup_share: float) -> float:
    """0 to 1 over the warm-up, then 1."""
    return progress / warmup_share if progress < warmup_share else 1.0


SHAPES: dict[str, Callable[..., float]] = {"linear": linear, "constant": constant}


def make_schedule(name: str, *, warmup_share: float) -> Schedule:
    """The schedule of that name with its warm-up filled in; progress outside 0 to 1 is taken as 0 or 1."""
    shape = SHAPES[name]
    return lambda progress: shape(min(max(progress, 0.0), 1.0), warmup_share=warmup_share)
