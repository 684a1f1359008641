"""When a run's state is saved, and what is said where the disk does not take it."""

import time

import torch
from torch import nn

from bertsmith.errors import CheckpointError
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Plan
from bertsmith.training.state import State
from bertsmith.training.track import Track


class Saving:
    """Saves beside training: the loop waits only for a copy in memory, and for a save before that is still at work.

    A save that fails is told of and tried again at the next time; only `finish` raises.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        track: Track,
        plan: Plan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
    ):
        self._checkpoints = checkpoints
        self._track = track
        self._plan = plan
        self._model = model
        self._optimizer = optimizer
        self._ranks = ranks
        self.saved(None)

    def saved(self, step: int | None) -> None:
        """The state of `step` is on the disk; None: no state is."""
        self._step, self._time = step, time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._time >= self._plan.checkpoint_every_seconds

    def begin(self, state: State) -> None:
        """Begin to save `state` with the weights as they are now, unless it is saved already. All ranks call it."""
        self.look(wait=True)
        if self._ranks.from_first(self._step == state.step):
            return
        started = time.monotonic()
        self._track.sync()
        state.metrics_bytes, state.unwritten_metrics = self._track.place()
        self._checkpoints.begin_save(
            state.step,
            self._model,
            self._optimizer,
            state.to_json(),
            ranks=self._ranks,
            keep_step=state.best_step if self._plan.keep_best else None,
        )
        self.saved(state.step)
        self._track.event("checkpoint", state.step, {"seconds": self._time - started})

    def look(self, *, wait: bool = False) -> None:
        """Tell of a save that failed; it is tried again at the next time."""
        if self._checkpoints.is_saving and not wait:
            return
        step = self._step
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            self._step = None
            self._track.say(f"{error}; training goes on, and the next checkpoint is tried in its turn")
            self._track.event("checkpoint_failed", step or 0, {"message": str(error)})

    def finish(self, state: State) -> None:
        """Save `state` unless it is saved, and wait until it is on the disk. All ranks call it.

        Raises `CheckpointError` where the disk does not take it.
        """
        self.begin(state)
        failure = self._ranks.on_first(self._failure)
        if failure is not None:
            raise CheckpointError(f"{failure} and run the same command again")

    def _failure(self) -> str | None:
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            self._step = None
            return str(error)
        return None
