"""What moves the weights: the optimizer, its clipping, and the course of the learning rate."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bertsmith.config.section import Positive, Section, Share

ScheduleName = Literal[
    "linear",
    "constant",
    "cosine",
    "cosine_with_restarts",
    "cosine_annealing",
    "polynomial",
    "step",
    "multi_step",
    "inverse_sqrt",
    "wsd",
]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]

_SCHEDULES_WITH = {
    "end_share": ("linear", "cosine", "cosine_with_restarts", "cosine_annealing", "polynomial", "wsd"),
    "cycles": ("cosine_with_restarts",),
    "period_share": ("cosine_annealing",),
    "power": ("polynomial",),
    "drop_every_share": ("step",),
    "drop_at_shares": ("multi_step",),
    "drop_factor": ("step", "multi_step"),
    "timescale_share": ("inverse_sqrt",),
    "decay_share": ("wsd",),
    "decay_shape": ("wsd",),
}
_OPTIMIZERS_WITH = {
    "betas": ("adamw", "adam", "lamb"),
    "eps": ("adamw", "adam", "lamb"),
    "bias_correction": ("adamw", "adam", "lamb"),
    "momentum": ("sgd",),
}


class ScheduleConfig(Section):
    """The learning rate over a run, as a share of the highest. Every `_share` is one of all steps, warm-up included."""

    schedule: ScheduleName = "linear"
    """After warm-up. linear: to 0 in a straight line; constant; cosine: half a wave; cosine_with_restarts: several,
    each from the top; cosine_annealing: down and up again; polynomial: to 0 by a power; step, multi_step: in drops;
    inverse_sqrt; wsd (warm-up, stable, decay): constant, falling only at the end."""
    warmup_share: Share = 0.1
    """Share of all steps over which the learning rate rises from 0; 0: no warm-up."""
    end_share: Share = 0.0
    """linear, polynomial, wsd, the three cosines: where the rate ends, as a share of the highest."""
    cycles: Positive = 1
    """cosine_with_restarts: how many times it falls."""
    period_share: PositiveShare | None = None
    """cosine_annealing: how long the rate falls before it rises for as long; default: all that follows the warm-up."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """polynomial: the exponent; 1 is linear."""
    drop_every_share: PositiveShare | None = None
    """step: time from drop to drop, counted from the end of the warm-up."""
    drop_at_shares: tuple[PositiveShare, ...] = ()
    """multi_step: when the rate drops, such as `[0.5, 0.75]`; after the warm-up, in ascending order."""
    drop_factor: PositiveShare = 0.1
    """step, multi_step: what the rate is multiplied by at a drop."""
    timescale_share: PositiveShare | None = None
    """inverse_sqrt: the rate is 1 / sqrt(1 + t) after t of these; default: as long as the warm-up."""
    decay_share: PositiveShare = 0.1
    """wsd: how long the rate falls at the end."""
    decay_shape: Literal["1-sqrt", "linear", "cosine"] = "1-sqrt"
    """wsd: how it falls; as 1 - sqrt(t), it is steep at first."""

    @model_validator(mode="after")
    def _fits_the_schedule(self) -> "ScheduleConfig":
        name = self.schedule
        for key, schedules in _SCHEDULES_WITH.items():
            default: Any = type(self).model_fields[key].default
            if getattr(self, key) != default and name not in schedules:
                raise ValueError(f"schedule = {name!r} takes no {key}; that is of {' and '.join(schedules)}")
        if name == "step" and self.drop_every_share is None:
            raise ValueError("schedule = 'step' needs drop_every_share, such as 0.3")
        if name == "multi_step" and not self.drop_at_shares:
            raise ValueError("schedule = 'multi_step' needs drop_at_shares, such as [0.5, 0.75]")
        drops = (self.warmup_share, *self.drop_at_shares)
        if any(before >= after for before, after in itertools.pairwise(drops)):
            raise ValueError("drop_at_shares must ascend, and begin after warmup_share")
        if name == "inverse_sqrt" and self.warmup_share == 0 and self.timescale_share is None:
            raise ValueError("schedule = 'inverse_sqrt' needs timescale_share where warmup_share is 0")
        if name == "wsd" and self.warmup_share + self.decay_share > 1 + 1e-9:
            raise ValueError("warmup_share and decay_share are more than 1 together")
        return self


class OptimizerConfig(ScheduleConfig):
    """How gradients move the weights; no decay on biases and LayerNorm."""

    optimizer: Literal["adamw", "adam", "sgd", "lamb"] = "adamw"
    """lamb is AdamW with each tensor's update scaled to its own norm, for batches of thousands. Decay of adam and sgd
    is part of the gradient (L2), that of adamw and lamb is not."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    bias_correction: bool = True
    """Of the running means of AdamW, Adam and LAMB; false: none, as in the original BERT."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """sgd: share of the last update's direction that is kept."""
    layer_decay: PositiveShare = 1.0
    """Learning rate from layer to layer downwards: the head has 1, the highest layer this factor, the next its square,
    the embeddings the smallest. 1: all the same."""
    clip: Annotated[float, Field(gt=0)] | Literal["auto"] = 1.0
    """Largest gradient. `"auto"`: 1 in the first 100 updates, then the 90th percentile of what theirs were."""
    clip_by: Literal["norm", "value"] = "norm"
    """What clip bounds: the norm of the whole gradient, which keeps its direction, or each number in it."""

    @model_validator(mode="after")
    def _fits_the_optimizer(self) -> "OptimizerConfig":
        for key, optimizers in _OPTIMIZERS_WITH.items():
            default: Any = type(self).model_fields[key].default
            if getattr(self, key) != default and self.optimizer not in optimizers:
                raise ValueError(
                    f"optimizer = {self.optimizer!r} takes no {key}; that is of {' and '.join(optimizers)}"
                )
        return self
