"""What the loop remembers between updates, all of it in every checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bertsmith.training.batch_size import place_of
from bertsmith.training.noise_scale import NoiseScale
from bertsmith.training.plan import Due, Plan

_STEPS_BEFORE_AN_ESTIMATE = 10_000


@dataclass
class Window:
    """Sums since the last line in metrics.jsonl."""

    updates: int = 0
    steps: int = 0
    loss: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    gradient_norm: float = 0.0
    clipped: int = 0
    tokens: int = 0
    slots: int = 0
    flops: float = 0.0
    right: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    truncation_share: float | None = None
    seconds: float = 0.0
    loader_wait_seconds: float = 0.0

    def add_update(self, losses: Mapping[str, float], *, loss: float, gradient_norm: float, clipped: bool) -> None:
        """Count an update that was applied."""
        self.updates += 1
        self.loss += loss
        self.gradient_norm += gradient_norm
        self.clipped += clipped
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value

    def add_right(self, right: Mapping[str, int], totals: Mapping[str, int]) -> None:
        """Count the right answers of an update that was applied, and of how many items."""
        for name, count in right.items():
            self.right[name] = self.right.get(name, 0) + count
            self.answered[name] = self.answered.get(name, 0) + totals[name]

    def add_step(self, *, tokens: int, slots: int, flops: float, seconds: float, waited_seconds: float) -> None:
        """Count an update, applied or not, over all ranks; `slots` are tokens and padding."""
        self.steps += 1
        self.seconds += seconds
        self.loader_wait_seconds += waited_seconds
        self.tokens += tokens
        self.slots += slots
        self.flops += flops

    def add_truncation(self, batches: Sequence[Any]) -> None:
        """Of the micro-batches of this rank."""
        for batch in batches:
            share = getattr(batch, "truncation_share", None)
            if share is not None:
                self.truncation_share = (self.truncation_share or 0.0) + share / len(batches)

    def fields(self) -> dict[str, Any]:
        """Means and rates over the window; losses are null where no update was applied."""
        applied = self.updates or math.nan
        return {
            "loss": self.loss / applied,
            "losses": {name: value / applied for name, value in self.losses.items()},
            "accuracies": {name: self.right[name] / max(count, 1) for name, count in self.answered.items()},
            "gradient_norm": self.gradient_norm / applied,
            "clip_rate": self.clipped / applied,
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "flops_per_token": self.flops / max(self.tokens, 1) or None,
            "loader_wait_seconds": self.loader_wait_seconds,
            "padding_share": 1.0 - self.tokens / max(self.slots, 1),
            "truncation_share": None if self.truncation_share is None else self.truncation_share / max(self.steps, 1),
        }


@dataclass
class State:
    """The loop's memory; plain JSON."""

    step: int = 0
    """Updates that are behind us in all phases, skipped ones included."""
    phase: int = 0
    first_step: int = 0
    """At which this phase began."""
    first_elapsed_seconds: float = 0.0
    total_steps: int | None = None
    """The step at which this phase ends."""
    provisional_total_steps: int | None = None
    budget_total_steps: int | None = None
    """The step at which the budget is spent; `total_steps` is that, or a planned one that comes first."""
    budget_marks: int = 0
    """Shares of the budget (`budget.MARKS`) that are behind us, at which the steps are counted again."""
    timed_steps: int = 0
    """Since the steps were last counted,"""
    timed_seconds: float = 0.0
    """and how long they took together."""
    evaluation_seconds: float = 0.0
    """Of the last evaluation, callbacks included."""
    batch_sizes: list[list[int]] = field(default_factory=list)
    """Each [step of this phase, examples in an update from there on]; the first is of step 0."""
    micro_batch_size: int | None = None
    """Examples in a forward pass; None until it is decided."""
    anchor_step: int = 0
    """Step of this phase at which the number of steps was last changed, by a larger batch or another count,"""
    anchor_progress: float = 0.0
    """and the progress made by then."""
    noise: NoiseScale = field(default_factory=NoiseScale)
    elapsed_seconds: float = 0.0
    """Of all processes that worked on this run, together."""
    tokens: int = 0
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    evaluated_step: int = -1
    best_step: int | None = None
    best_value: float | None = None
    evaluations_since_best: int = 0
    has_ended: bool = False
    """Before its last update, since evaluations got no better."""
    loss_scale: float | None = None
    """By which losses are multiplied in float16."""
    updates_at_loss_scale: int = 0
    clip: float | None = None
    """What `clip = "auto"` has picked."""
    clip_sizes: list[float] = field(default_factory=list)
    """Of gradients, by which it picks; empty once it has."""
    rollbacks: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)
    """Examples that spoiled updates of this phase: {"from_step", "to_step", "examples", "because"}; left out of every
    update from the first of those steps on."""
    recent_losses: list[float] = field(default_factory=list)
    """Of the last updates, where a leap is looked for."""
    training_loss_sum: float = 0.0
    training_updates: int = 0
    """Updates since the last evaluation, over which that sum goes."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl when this was saved."""
    unwritten_metrics: str = ""
    """Lines after those, for which the disk had no room."""
    window: Window = field(default_factory=Window)

    @staticmethod
    def begin(plan: Plan, *, after: "State | None" = None) -> "State":
        """The first state of a phase. With a budget its end is yet to be measured, and no later than a planned one."""
        state = State() if after is None else after.next_phase()
        state.batch_sizes = [[0, plan.first_batch_size]]
        last = None if plan.total_steps is None else state.step + plan.total_steps
        if plan.budget_seconds is None:
            return replace(state, total_steps=last)
        return replace(state, provisional_total_steps=last)

    def next_phase(self) -> "State":
        """Counters go on; decisions, the best score and the running means are of the phase that is over."""
        return State(
            step=self.step,
            phase=self.phase + 1,
            first_step=self.step,
            first_elapsed_seconds=self.elapsed_seconds,
            elapsed_seconds=self.elapsed_seconds,
            tokens=self.tokens,
            loss_scale=self.loss_scale,
            skipped_updates=self.skipped_updates,
            rollbacks=self.rollbacks,
            metrics_bytes=self.metrics_bytes,
            unwritten_metrics=self.unwritten_metrics,
        )

    @property
    def phase_step(self) -> int:
        """Updates of this phase that are behind us."""
        return self.step - self.first_step

    @property
    def is_finished(self) -> bool:
        """True after the phase's last update, or where it has ended before."""
        return self.has_ended or self.step == self.total_steps

    @property
    def progress(self) -> float:
        """Share of the phase that is behind us in the middle of the next update; by an estimate while none is known."""
        last = self.total_steps or self.provisional_total_steps
        steps = _STEPS_BEFORE_AN_ESTIMATE if last is None else last - self.first_step
        of_the_rest = (self.phase_step - self.anchor_step + 0.5) / (steps - self.anchor_step)
        return self.anchor_progress + (1.0 - self.anchor_progress) * of_the_rest

    @property
    def batch_size(self) -> int:
        """Examples in the next update."""
        return self.batch_sizes[-1][1]

    @property
    def examples(self) -> int:
        """Examples of this phase that are behind us."""
        return place_of(self.phase_step, self.batch_sizes).position

    def due(self) -> Due:
        """What the next update is to be made of."""
        assert self.micro_batch_size is not None, "decided when the phase begins"
        place = place_of(self.phase_step, self.batch_sizes)
        return Due(
            step=self.phase_step,
            progress=self.progress,
            batch_size=place.batch_size,
            micro_batch_size=min(self.micro_batch_size, place.batch_size),
            first_position=place.first_position,
            number=place.number,
        )

    def grow(self, batch_size: int, plan: Plan) -> None:
        """Larger batches from the next update on.

        Within a budget the rest of the phase becomes as many fewer steps as its batches become larger, which takes no
        more time. Progress, and with it the learning rate, goes on from where it was.
        """
        before = self.batch_size
        self.batch_sizes.append([self.phase_step, batch_size])
        self.timed_steps, self.timed_seconds = 0, 0.0
        if self.budget_total_steps is not None and self.total_steps is not None:
            self.end_at(self.step + max(1, round((self.budget_total_steps - self.step) * before / batch_size)), plan)

    def end_at(self, budget_total_steps: int, plan: Plan) -> None:
        """Let the phase end where the budget is now thought to be spent, or at the planned step if that comes first.

        What is left of the schedule is spread over the steps that are left, so that progress goes on from where it was.
        """
        assert self.total_steps is not None, "changed only after it was counted"
        planned = None if plan.total_steps is None else self.first_step + plan.total_steps
        self.budget_total_steps = budget_total_steps
        total_steps = min(budget_total_steps, planned or budget_total_steps)
        if total_steps != self.total_steps:
            whole = self.total_steps - self.first_step - self.anchor_step
            done = (self.phase_step - self.anchor_step) / whole
            self.anchor_progress += (1.0 - self.anchor_progress) * done
            self.anchor_step, self.total_steps = self.phase_step, total_steps

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "State":
        window, noise = Window(**value["window"]), NoiseScale(**value["noise"])
        return State(**{**value, "window": window, "noise": noise})
