"""The training loop: the only one. Pre-training and fine-tuning hand it a step function, batches and an evaluation.

Dropout is seeded from (seed, step, micro-batch), batches are a function of the step, the learning rate is a function of
progress: a checkpoint needs no generator state, and a resumed run equals one that never stopped bit for bit. The
gradient itself is in `accumulate`.
"""

import contextlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from bertsmith.errors import BertsmithError, Stopped, UsageError
from bertsmith.runtime import Runtime, peak_memory_bytes
from bertsmith.training.accumulate import Accumulator, Gradient
from bertsmith.training.budget import Stopwatch, count_again, decide_total_steps
from bertsmith.training.checkpoint import Checkpoint, open_checkpoint
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.clip import clip_gradients
from bertsmith.training.determinism import deterministic
from bertsmith.training.distributed import Ranks, alone, silent
from bertsmith.training.freeze import train_account
from bertsmith.training.gradients import gradient_norm, gradients_of
from bertsmith.training.heap import freed_memory_kept
from bertsmith.training.interrupts import Interrupted, Interrupts
from bertsmith.training.lazy_rows import LazyRowsAdamW
from bertsmith.training.loss_scale import grow, shrink, unscale
from bertsmith.training.plan import (
    EVALUATIONS_PER_RUN,
    Callback,
    Evaluate,
    LossSums,
    NextBatches,
    Plan,
    TrainResult,
)
from bertsmith.training.rollback import (
    by_number,
    loss_limit,
    note_loss,
    problem,
    report,
    said,
    spoilers,
    without_left_out,
)
from bertsmith.training.saving import Saving
from bertsmith.training.schedule import Schedule
from bertsmith.training.sharding import is_sharded, whole
from bertsmith.training.sizes import Decision, FitMicroBatch, decide_micro_batch, grow_batch, halve_micro_batch
from bertsmith.training.state import State, Window
from bertsmith.training.track import Track

RESUME = "run the same command again"


def train(
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    next_batches: NextBatches,
    loss_sums: LossSums,
    plan: Plan,
    checkpoints: Checkpoints,
    track: Track,
    runtime: Runtime,
    evaluate: Evaluate | None = None,
    fit_micro_batch: FitMicroBatch | None = None,
    callbacks: Sequence[Callback] = (),
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train `model` in place up to the planned step, going on from the newest whole checkpoint if there is one.

    A run of several phases calls this once for each, in order, with the same `checkpoints` and `track`: a phase begins
    with the weights at the end of the one before, and one that is over is passed by.

    next_batches(due)    micro-batches of the next update; a pure function of what is `Due`
    loss_sums(batch)     objective -> loss summed (not averaged) over the items that `batch.counts` counts; scalars
    evaluate(step)       called without gradients, with the model in eval mode
    fit_micro_batch(most)   the micro-batch that fits into memory, and why; asked once a phase, then kept in the state
    callbacks            each is called as callback(step, evaluation) once an evaluation is in metrics.jsonl; if one
                         returns True, the run ends there
    ranks                all processes of the run, where there are several: `next_batches` gives this one's share, all
                         of them evaluate, and the first logs, saves and calls back

    Raises `Stopped` after a signal (state saved), `BertsmithError` where updates cannot be applied for too long.
    """
    if plan.total_steps is None and plan.budget_seconds is None:
        raise UsageError("training needs total_steps or budget_seconds")
    if is_sharded(model) and (plan.growth is not None or fit_micro_batch is not None):
        raise UsageError(
            "micro_batch_size = 'auto' and batch_size_growth need the whole model in each process; "
            "give a micro_batch_size, leave growth out, or set runtime.parallel = 'ddp'"
        )
    ranks = ranks or alone(runtime)
    loop = _Loop(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        next_batches=next_batches,
        loss_sums=loss_sums,
        plan=plan,
        checkpoints=checkpoints,
        track=track if ranks.is_first else silent(),
        runtime=runtime,
        evaluate=evaluate,
        fit_micro_batch=fit_micro_batch,
        callbacks=callbacks,
        ranks=ranks,
    )
    with deterministic(runtime.device), Interrupts() as interrupts, loop.track:
        return loop.run(interrupts)


@dataclass
class _Loop:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    next_batches: NextBatches
    loss_sums: LossSums
    plan: Plan
    checkpoints: Checkpoints
    track: Track
    runtime: Runtime
    evaluate: Evaluate | None
    fit_micro_batch: FitMicroBatch | None
    callbacks: Sequence[Callback]
    ranks: Ranks

    def run(self, interrupts: Interrupts) -> TrainResult:
        self.interrupts = interrupts
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.stopwatch = Stopwatch()
        self.state = State()
        self.before_trouble: State | None = None  # since the first of some updates that could not be applied
        resumed_from = self._resume()
        if self._is_over():
            return self._result(resumed_from)
        self.saving = Saving(self.checkpoints, self.track, self.plan, self.model, self.optimizer, self.ranks)
        self.saving.saved(self.state.step)
        self.start_time = time.monotonic() - self.state.elapsed_seconds
        self.accumulator = Accumulator(self.model, self.parameters, self.loss_sums, self.plan, self.runtime, self.ranks)
        try:
            with freed_memory_kept():
                self._go()
        except Interrupted as interruption:
            self.optimizer.zero_grad()  # what an update that was dropped has left
            if self.before_trouble is not None:  # updates that could not be applied are done again, as that one is
                self.state = self.before_trouble
                self.track.rewind(self.state.metrics_bytes, self.state.step, unwritten=self.state.unwritten_metrics)
            self._finish_saving()
            self._stop(str(interruption), "")
            raise Stopped(interruption.signal_number, RESUME) from None
        except Exception as error:
            self.saving.look(wait=True)
            with contextlib.suppress(BertsmithError):  # a full disk must not hide the first error
                self._stop("error", str(error))
            raise
        finally:
            self.accumulator.close()
        if self.plan.is_last_phase:
            self._stop("done", "")
        return self._result(resumed_from)

    def _result(self, resumed_from: int | None) -> TrainResult:
        state = self.state
        return TrainResult(
            steps=state.step,
            elapsed_seconds=state.elapsed_seconds,
            tokens=state.tokens,
            skipped_updates=state.skipped_updates,
            best_step=state.best_step,
            best_value=state.best_value,
            resumed_from=resumed_from,
        )

    def _go(self) -> None:
        """Between updates: evaluate, save, stop, in this order; all of it can be taken up again from a checkpoint."""
        self.model.train()
        is_decided = False
        while True:
            self.ranks.check(self.interrupts)
            self.saving.look()
            is_best = False
            if self._evaluation_is_due():
                is_best = self._evaluate() and self.plan.keep_best
                self.ranks.check(self.interrupts)
            if self.state.is_finished:
                self._catch_up()
                self._finish_saving()
                self.ranks.check(self.interrupts)
                return
            is_due = is_decided or is_best or self.ranks.from_first(self.saving.is_due)
            if is_due and self.before_trouble is None:
                self._save()
            has_halved = self._update()
            is_decided = self._decide_total_steps()
            is_decided = is_decided or has_halved
            if self.state.step % self.plan.log_every == 0 or self.state.is_finished:
                self._log()

    def _resume(self) -> int | None:
        checkpoint, skipped = self._latest()
        for line in skipped:
            self.track.say(f"passed over a checkpoint: {line}")
        if checkpoint is None:
            if skipped:
                self.track.say("no checkpoint is whole: starting again from step 0")
            self.state = State.begin(self.plan)
            self.track.rewind(0, 0)
        else:
            self.state = State.from_json(checkpoint.state)
            if self.state.phase < self.plan.phase:
                checkpoint.restore(self.model)
                self.state = State.begin(self.plan, after=self.state)
            else:
                self._check_same_length()
                if self._is_over():
                    return checkpoint.step
                checkpoint.restore(self.model, self.optimizer)
            self.track.rewind(self.state.metrics_bytes, checkpoint.step, unwritten=self.state.unwritten_metrics)
        if self.ranks.is_first:
            self.checkpoints.remove_after(self.state.step)
        parameters = sum(p.numel() for p in self.model.parameters())
        first, last = self.state.first_step, self.state.total_steps
        self.model.train()
        decisions = decide_micro_batch(self.state, self.plan, self.fit_micro_batch, self.ranks)
        micro_batch_size = self.state.due().micro_batch_size
        facts = self.plan.facts(
            self.runtime, first_step=first, last_step=last, parameters=parameters, micro_batch_size=micro_batch_size
        )
        self.track.start(self.state.step, facts | train_account(self.model), resumed=checkpoint is not None)
        for decision in decisions:
            self._tell(decision)
        return None if checkpoint is None else checkpoint.step

    def _latest(self, *, up_to: int | None = None) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest whole checkpoint, as the first rank finds it."""
        if self.ranks.is_first:
            checkpoint, skipped = self.checkpoints.latest(up_to=up_to)
            self.ranks.from_first(None if checkpoint is None else checkpoint.step)
            return checkpoint, skipped
        step = self.ranks.from_first(None)
        return None if step is None else open_checkpoint(self.checkpoints.path(step)), ()

    def _is_over(self) -> bool:
        """True in a phase after which another has begun, or is to begin from where this one ended."""
        ended = self.state.phase == self.plan.phase and self.state.is_finished
        return self.state.phase > self.plan.phase or (ended and not self.plan.is_last_phase)

    def _check_same_length(self) -> None:
        """A budget's step count comes from the checkpoint; a planned one must be the one that was begun."""
        state, planned = self.state, self.plan.total_steps
        if state.phase != self.plan.phase or self.plan.budget_seconds is not None or planned is None:
            return
        if state.total_steps != state.first_step + planned:
            begun = (state.total_steps or 0) - state.first_step
            raise UsageError(
                f"{self.checkpoints.directory} holds a run of {begun} steps, but {planned} are asked "
                "for; give the run another name, or remove that folder"
            )

    def _update(self) -> bool:
        """One update of the weights; nothing has changed if a signal ends it early. True if memory did not suffice."""
        state, started = self.state, time.monotonic()
        if (decision := grow_batch(state, self.plan)) is not None:
            self._tell(decision)
        with self._droppable():
            gradient, waited_seconds, has_halved = self._gradient()
        self.log_place = self.track.place()
        for entry in state.left_out:
            if entry["from_step"] == state.step:
                self.track.event("rollback", state.step, entry)
        norm = None
        if gradient.slots:
            norm = self._apply(gradient)
        else:  # all of its examples are left out
            state.skipped_updates += 1
        if state.skipped_in_a_row >= self.plan.rollback_after:
            self._roll_back()
            return False
        if norm is not None:
            state.window.add_right(gradient.right, gradient.counts)
            if gradient.first_share:
                first = {"first_share": gradient.first_share, "first_norm": gradient.first_norm}
                state.noise.add_parts(**first, batch_size=state.batch_size, norm=norm)
        seconds = time.monotonic() - started
        self.stopwatch.add_step(seconds, state)
        state.step += 1
        state.tokens += gradient.tokens
        state.window.add_step(
            tokens=gradient.tokens,
            slots=gradient.slots,
            flops=gradient.flops,
            seconds=seconds,
            waited_seconds=waited_seconds,
        )
        state.window.add_truncation(gradient.batches)
        return has_halved

    def _gradient(self) -> tuple[Gradient, float, bool]:
        """That of the next update; seconds waited for its examples; whether a GPU's memory did not suffice at first."""
        waited_seconds, has_halved = 0.0, False
        while True:
            started = time.monotonic()
            batches = without_left_out(self.next_batches(self.state.due()), self.state)
            waited_seconds += time.monotonic() - started
            gradient = self.accumulator.gradient(batches, self.state, self.interrupts)
            if gradient is not None:
                return gradient, waited_seconds, has_halved
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            self._tell(halve_micro_batch(self.state))
            has_halved = True

    def _apply(self, gradient: Gradient) -> float | None:
        """Clip and take the step, unless loss or gradient is not as it should be; the norm before clipping where it was
        taken.
        """
        state, window, losses = self.state, self.state.window, gradient.losses
        self.learning_rate = self.plan.learning_rate * self.schedule(state.progress)
        gradients = gradients_of(self.parameters)
        if not gradients:
            raise UsageError("nothing that trains has a part in the loss; freeze less, or add an objective")
        unscale(gradients, gradient.scale)
        norm = gradient_norm(gradients, self.model, self.ranks)
        loss = self.accumulator.loss(losses)
        wrong = problem(losses, norm=norm, loss=loss, limit=loss_limit(self.plan, state))
        if wrong is None:
            plan = self.plan
            size = norm if plan.clip_by == "norm" else gradient_norm(gradients, self.model, self.ranks, math.inf)
            clipped, decision = clip_gradients(gradients, size=size, clip=plan.clip, by=plan.clip_by, state=state)
            if decision is not None:
                value, because = decision
                self.track.say(f"clip       {value:.4g}: {because}")
                self.track.event("decision", state.step + 1, {"name": "clip", "value": value, "because": because})
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * group.get("lr_factor", 1.0)
            self.optimizer.step()
            state.skipped_in_a_row = 0
            grow(state)
            self.before_trouble = None
            note_loss(plan, state, loss)
            window.add_update(losses, loss=loss, gradient_norm=norm, clipped=clipped)
            state.training_loss_sum += loss
            state.training_updates += 1
        elif all(map(math.isfinite, losses.values())) and not math.isfinite(norm) and shrink(state):
            state.skipped_updates += 1
            scaled = f"loss scale {state.loss_scale:g}"
            self.track.say(f"step {state.step + 1:,}: overflow in float16; update skipped, {scaled}")
        else:
            if self.before_trouble is None:
                self.before_trouble = self._copy_of_state()
            state.skipped_updates += 1
            state.skipped_in_a_row += 1
            self.track.say(f"step {state.step + 1:,}: {wrong}; update skipped")
        self.optimizer.zero_grad()
        return norm if wrong is None else None

    def _copy_of_state(self) -> State:
        """The state as it was before this update, and where its log ended."""
        num_bytes, unwritten = self.log_place
        copy = State.from_json(json.loads(json.dumps(self.state.to_json())))
        return replace(copy, metrics_bytes=num_bytes, unwritten_metrics=unwritten)

    def _roll_back(self) -> None:
        """Find what spoiled the last updates, go back to before them, and leave it out from there on.

        No weight has changed since; where no checkpoint is left from before, the run goes on from the weights it has.
        """
        first, last = self.before_trouble, self.state
        assert first is not None
        if last.rollbacks >= self.plan.max_rollbacks or is_sharded(self.model):  # no part of a model can be tried alone
            raise report(self.plan, last)
        examples = self._spoilers(first.step, last.step)
        entry = {
            "from_step": first.step,
            "to_step": last.step,
            "examples": examples,
            "because": f"{last.step + 1 - first.step} updates in a row could not be applied",
        }
        self.saving.look(wait=True)
        checkpoint, _ = self._latest(up_to=first.step)
        found = None if checkpoint is None else State.from_json(checkpoint.state)
        if checkpoint is not None and found is not None and found.phase == self.plan.phase:
            checkpoint.restore(self.model, self.optimizer)
            self.state = found
            self.saving.saved(found.step)
        else:
            self.state = first
            self.saving.saved(None)
        self.state.rollbacks, self.state.left_out = last.rollbacks + 1, [*last.left_out, entry]
        self.before_trouble = None
        self.track.rewind(self.state.metrics_bytes, self.state.step, unwritten=self.state.unwritten_metrics)
        if self.ranks.is_first:
            self.checkpoints.remove_after(self.state.step)
        self.track.say(
            f"rollback   {entry['because']}: back to step {self.state.step:,}, and from step {first.step + 1:,} on "
            f"without {said(examples)}"
        )

    def _spoilers(self, first_step: int, last_step: int) -> list[str]:
        """Names of the examples, of all ranks, that spoil these updates with the weights as they are."""
        found: list[str] = []
        limit = loss_limit(self.plan, self.state)
        with self._droppable():
            for step in range(first_step, last_step + 1):
                state = replace(self.state, step=step)
                batches = without_left_out(self.next_batches(state.due()), state)
                found += spoilers(batches, partial(self.accumulator.is_spoiled, state=state, limit=limit))
        return sorted({name for names in self.ranks.gather(found) for name in names}, key=by_number)

    def _tell(self, decision: Decision) -> None:
        self.track.say(decision.line)
        self.track.event("decision", self.state.step, decision._asdict())

    def _decide_total_steps(self) -> bool:
        """True when something was decided now, which is saved at once: a run that goes back must find it."""
        if self.plan.budget_seconds is None or self.state.is_finished:
            return False
        times = {
            "elapsed_seconds": self._elapsed(),
            "checkpoint_bytes": 3 * sum(p.nbytes for p in self.parameters),
            "ranks": self.ranks,
        }
        if self.state.total_steps is None:
            decision = decide_total_steps(self.state, self.plan, self.stopwatch, **times)
        else:
            decision = count_again(self.state, self.plan, **times)
        if decision is None:
            return False
        if decision.name == "total_steps":  # a provisional one is not worth a line
            self.track.say(f"steps      {decision.value:,}: {decision.because}")
        self.track.event("decision", self.state.step, decision._asdict())
        return True

    def _evaluation_is_due(self) -> bool:
        state, every = self.state, self.plan.evaluate_every
        if self.evaluate is None or state.evaluated_step == state.step:
            return False
        if state.phase_step == 0:  # how long an evaluation takes is part of a budget
            return self.plan.budget_seconds is not None
        if every is None:
            if state.total_steps is None:
                return False
            every = max(1, math.ceil((state.total_steps - state.first_step) / EVALUATIONS_PER_RUN))
        return state.phase_step % every == 0 or state.is_finished

    def _evaluate(self) -> bool:
        """Measure, log, call back; true where it is the best so far."""
        assert self.evaluate is not None
        state, started = self.state, time.monotonic()
        self._catch_up()
        self.model.eval()
        try:
            with torch.no_grad(), whole(self.model), self._leaving_at_once():
                evaluation = self.evaluate(state.step)
        finally:
            self.model.train()
        value = self.ranks.from_first(evaluation.value)
        best = state.best_value is None or value > state.best_value
        evaluation = replace(
            evaluation,
            training_loss=state.training_loss_sum / state.training_updates if state.training_updates else None,
            seconds=time.monotonic() - started,
            best=best,
        )
        state.evaluated_step, state.training_loss_sum, state.training_updates = state.step, 0.0, 0
        state.evaluations_since_best = 0 if best else state.evaluations_since_best + 1
        if best:
            state.best_step, state.best_value = state.step, value
        place = {"epoch": self._epoch(), "elapsed_seconds": self._elapsed()}
        names = ("split", "training_loss", "loss", "losses", "scores", "seconds", "best")
        fields = {name: getattr(evaluation, name) for name in names}
        self.track.event("evaluation", state.step, place | fields | dict(evaluation.details))
        for sample in evaluation.samples:
            self.track.event("sample", state.step, sample)
        self.track.evaluation(state.step, place, {**evaluation.details, **fields})
        said = [callback(state.step, evaluation) for callback in (self.callbacks if self.ranks.is_first else ())]
        if self.ranks.from_first(True in said):
            self._end_here("ended here, as was asked for")
        if state.evaluations_since_best == self.plan.stop_after:
            self._end_here(f"ended after {self.plan.stop_after} evaluations without a better one (stop_after)")
        state.evaluation_seconds = time.monotonic() - started
        return best

    def _end_here(self, why: str) -> None:
        if not self.state.is_finished:
            self.state.has_ended = True
            if self.state.window.steps:
                self._log()
            self.track.say(why)

    def _catch_up(self) -> None:
        """Rows of a word table that have waited are put to where they would be."""
        if isinstance(self.optimizer, LazyRowsAdamW):
            self.optimizer.catch_up()

    def _droppable(self) -> contextlib.AbstractContextManager[None]:
        """Where nobody waits for this process, a signal ends an update that takes long."""
        return self.interrupts.droppable() if self.ranks.is_alone else contextlib.nullcontext()

    def _leaving_at_once(self) -> contextlib.AbstractContextManager[None]:
        """Where nobody waits for this process, a signal ends an evaluation on arrival."""
        return self.interrupts.immediately() if self.ranks.is_alone else contextlib.nullcontext()

    def _log(self) -> None:
        state, window = self.state, self.state.window
        fields = {
            "epoch": self._epoch(),
            "elapsed_seconds": self._elapsed(),
            "learning_rate": self.learning_rate,
            "examples": round(self._epoch() * self.plan.num_examples),
            "batch_size": state.batch_size,
            "gradient_noise_scale": state.noise.value,
            "memory_bytes": peak_memory_bytes(),
            "skipped_updates": state.skipped_updates,
            **window.fields(),
        }
        if state.loss_scale is not None:
            fields["loss_scale"] = state.loss_scale
        self.track.steps(state.step, state.total_steps, fields)
        state.window = Window()

    def _save(self) -> None:
        self.state.elapsed_seconds = self._elapsed()
        self.saving.begin(self.state)

    def _finish_saving(self) -> None:
        self.state.elapsed_seconds = self._elapsed()
        self.saving.finish(self.state)

    def _stop(self, reason: str, message: str) -> None:
        fields = {
            "reason": reason,
            "elapsed_seconds": self._elapsed(),
            "tokens": self.state.tokens,
            "message": message,
        }
        self.track.event("stop", self.state.step, fields)

    def _epoch(self) -> float:
        """Passes over this phase's examples so far."""
        state = self.state
        if len(state.batch_sizes) == 1:
            return self.plan.epoch(state.phase_step)
        return state.examples / self.plan.num_examples

    def _elapsed(self) -> float:
        return time.monotonic() - self.start_time
