"""The loop's borders: what it is given (batches, a plan) and what it gives back (evaluations, a result)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from bertsmith.runtime import Runtime
from bertsmith.training.batch_size import Growth, RampUp

EVALUATIONS_PER_RUN = 10
"""Where nobody says how often."""


class Batch(Protocol):
    """What the loop asks of a micro-batch.

    Where it has `input_ids` the share of padding is logged, where it has `truncation_share` (of tokens cut) that too.
    """

    @property
    def counts(self) -> Mapping[str, int]:
        """Objective -> number of items over which its loss is summed."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""

    @property
    def example_ids(self) -> Sequence[int]:
        """A number for each example, by which one that spoils training is named and left out."""

    @property
    def example_kind(self) -> str:
        """What such a number is of, such as "row"."""

    def take(self, rows: Sequence[int]) -> Self:
        """Only these of its examples."""

    def to(self, device: torch.device) -> Self: ...


class Sums(dict[str, Tensor]):
    """What a step function may return in place of a plain dict: objective -> loss summed over a micro-batch's items;
    and beside it `right`, objective -> how many items are answered rightly, where an answer can be right or wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.right: dict[str, Tensor] = {}


@dataclass(frozen=True)
class Due:
    """What the next update is to be made of."""

    step: int
    """Updates of this phase that are behind us."""
    progress: float
    """Share of the phase that is behind us."""
    batch_size: int
    micro_batch_size: int
    """Examples in one forward pass, at most."""
    first_position: int
    """Examples of this phase before the first batch of this size."""
    number: int
    """Batches of this size before this one; `step` where the size has not changed."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out loss and scores. `metric` names the score by which the best checkpoint is chosen; None: the loss.

    `smaller_is_better` says so of that score, as of an error.
    """

    loss: float
    losses: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    metric: str | None = None
    smaller_is_better: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    """More fields for the evaluation event, such as predictions_per_class and hardest."""
    samples: Sequence[Mapping[str, Any]] = ()
    """Fields of `sample` events."""
    split: str = "validation"
    training_loss: float | None = None
    """Mean over the updates since the last evaluation; the loop fills in this and the two that follow."""
    seconds: float = 0.0
    best: bool = False

    @property
    def value(self) -> float:
        """What the best is chosen by; greater is better."""
        if self.metric is None:
            return -self.loss
        return -self.scores[self.metric] if self.smaller_is_better else self.scores[self.metric]


@dataclass(frozen=True)
class Plan:
    """How long, how large, how often: a whole run, or one phase of it."""

    batch_size: int
    """Examples in an update; with a ramp-up those it leads to, with growth those it begins from."""
    micro_batch_size: int
    """Examples in a forward pass, or the most of them where the loop is to find what fits."""
    num_examples: int
    total_steps: int | None = None
    """Of this phase."""
    budget_seconds: float | None = None
    """Wall-clock budget, evaluations and checkpoints included; with total_steps, whichever ends first."""
    steps_per_epoch: float | None = None
    """Default: num_examples / batch_size."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Objective -> weight of its loss; 1 where it is not named."""
    learning_rate: float = 1e-4
    clip: float | Literal["auto"] = 1.0
    """Largest gradient."""
    clip_by: Literal["norm", "value"] = "norm"
    ramp_up: RampUp | None = None
    growth: Growth | None = None
    batch_size_because: str = ""
    """Why there are so many examples in an update, where that was decided and not given."""
    seed: int = 0
    log_every: int = 10
    evaluate_every: int | None = None
    """Steps between evaluations; None: ten in the run. There is always one after the last step."""
    checkpoint_every_seconds: float = 60.0
    rollback_after: int = 3
    """Go back after so many updates in a row that could not be applied."""
    max_rollbacks: int = 3
    """Of a run; after that it stops."""
    spike_factor: float | None = None
    """A loss above so many times its running median is not applied either."""
    stop_after: int | None = None
    """Evaluations without a better one after which the run ends."""
    keep_best: bool = False
    """Save after an evaluation that is the best so far, and keep that checkpoint."""
    phase: int = 0
    """Number of this phase, counted from 0."""
    num_phases: int = 1
    phase_name: str = ""
    step_note: str = ""
    """Whether the step is compiled, and why."""
    flops: Callable[[Any], float] | None = None
    """Of a micro-batch's forward and backward pass; None: nobody counts."""

    @property
    def is_last_phase(self) -> bool:
        return self.phase == self.num_phases - 1

    @property
    def first_batch_size(self) -> int:
        """Examples in the first update."""
        return self.batch_size if self.ramp_up is None else self.ramp_up.first

    @property
    def largest_micro_batch(self) -> int:
        """Examples in a forward pass, if memory has room: as many at the end as at the beginning of a ramp, so that
        compiled code sees one shape; half a batch that grows by its noise, which is measured between its parts.
        """
        parts = 1 if self.growth is None else 2
        return min(self.micro_batch_size, max(self.first_batch_size // parts, 1))

    def epoch(self, step: int) -> float:
        """Passes over the examples after `step` steps of this phase."""
        return step / (self.steps_per_epoch or self.num_examples / self.batch_size)

    def facts(
        self,
        runtime: Runtime,
        *,
        first_step: int = 0,
        last_step: int | None,
        parameters: int,
        micro_batch_size: int | None = None,
    ) -> dict[str, Any]:
        """The plan as the start event has it; `last_step` is None until a budget is turned into steps."""
        share = math.ceil(self.batch_size / runtime.world_size)
        micro_batch_size = min(micro_batch_size or self.micro_batch_size, share)
        changes = self.ramp_up is not None or self.growth is not None
        return {
            "phase": self.phase,
            "phases": self.num_phases,
            "phase_name": self.phase_name,
            "examples": self.num_examples,
            "epochs": None if last_step is None or changes else self.epoch(last_step - first_step),
            "micro_batch_size": micro_batch_size,
            "accumulation": math.ceil(share / micro_batch_size),
            "ranks": runtime.world_size,
            "batch_size": self.batch_size,
            "step": self.step_note,
            "first_step": first_step,
            "steps": last_step,
            "budget_seconds": self.budget_seconds,
            "device": runtime.device_name,
            "device_count": runtime.world_size,
            "dtype": runtime.dtype_name,
            "threads": runtime.threads,
            "parameters": parameters,
        }


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    steps: int
    elapsed_seconds: float
    tokens: int
    skipped_updates: int
    best_step: int | None
    best_value: float | None
    resumed_from: int | None


LossSums = Callable[[Any], Mapping[str, Tensor]]
NextBatches = Callable[[Due], Sequence[Any]]
Evaluate = Callable[[int], Evaluation]
Callback = Callable[[int, Evaluation], bool | None]
