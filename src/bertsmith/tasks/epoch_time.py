"""How long an epoch will take, at this `max_length` and at the usual ones, predicted from a few updates that are tried.

    seconds = FLOPs of the epoch's rows, each cut at that length / FLOPs per second of the updates tried

FLOPs are those of `model.flops`; so what does not grow with the text (the optimizer, evaluations) is left out, and
padding, of which batches of like length have little.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bertsmith.config import FinetuneConfig
from bertsmith.model.config import BertConfig
from bertsmith.model.flops import train_flops
from bertsmith.model.weights import read_config
from bertsmith.runtime import Runtime
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TaskBatch, TrainingBatches
from bertsmith.tasks.features import Ints
from bertsmith.tasks.lengths import LONGEST, whole_lengths
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.training_loss import TrainingLoss
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.view import clock_text

USUAL_LENGTHS = (64, 128, 256, 512)
_TIMED = 2
_PASSES = 2
"""Of an update that is timed: the first of a batch's shape prepares kernels, and is not counted."""
_MOST_SHARE = 0.02
"""Of a run's updates that may be spent."""
_USUAL_BATCH = 32
_CAREFUL_EXAMPLES = 8
"""In a micro-batch, where the run is yet to find out how many fit into memory."""


class LossSums(Protocol):
    def __call__(self, batch: TaskBatch, /) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class EpochTime:
    """A prediction."""

    seconds: dict[int, float]
    """`max_length` -> seconds of an epoch."""
    updates: int
    """That were timed."""
    longest: int
    """Tokens of the longest row: a larger `max_length` changes nothing."""

    def __str__(self) -> str:
        parts = []
        for length, seconds in self.seconds.items():
            parts.append(f"{clock_text(seconds)} at max_length = {length}{' or more' * (length >= self.longest)}")
            if length >= self.longest:
                break
        told = f"predicted from {self.updates} update{'s' * (self.updates > 1)}; without evaluations"
        return f"{', '.join(parts)} ({told})"


def predict_epoch(
    loss_sums: LossSums,
    model: nn.Module,
    config: BertConfig,
    batches: TrainingBatches,
    *,
    total_steps: int,
    micro_batch_size: int | None,
    max_length: int,
    runtime: Runtime,
    processes: int = 1,
) -> EpochTime | None:
    """Try a few updates' forward and backward passes; None for a run of so few that it would be felt.

    Neither weights nor random states are changed: gradients are thrown away. Where rows are windows of longer texts,
    whose number hangs on `max_length`, that length alone is predicted.

    Args:
        micro_batch_size: examples in a pass; None: not known yet.
        processes: that share the rows.
    """
    timed = min(_TIMED, int(total_steps * _MOST_SHARE) // _PASSES)
    if not timed:
        return None
    rate = processes * _rate(loss_sums, model, config, batches, timed, micro_batch_size or _CAREFUL_EXAMPLES, runtime)
    features = batches.features
    whole = features.tokens.lengths if features.are_windows else whole_lengths(features)
    usual = () if features.are_windows else USUAL_LENGTHS
    most = min(config.max_position_embeddings, LONGEST)
    lengths = sorted({max_length, *(length for length in usual if length <= most)})
    seconds = {length: epoch_flops(whole, config, length) / rate for length in lengths}
    return EpochTime(seconds, timed, int(whole.max()))


def predict_for(
    task: Task[Any, Any], rows: Sequence[Any], directory: Path, *, max_length: int, runtime: Runtime
) -> EpochTime | None:
    """The same of a table that nobody has written a recipe for: usual settings, a fresh head on this model's shape."""
    tokenizer, usual = Tokenizer.load(directory), FinetuneConfig(model=str(directory))
    labels = task.labels_in(rows, where=None, declared=())
    config = read_config(directory).with_labels(labels).replace(problem_type=task.problem_type)
    model = task.head(config).to(runtime.device)
    batches = TrainingBatches(
        task.encode(rows, tokenizer, labels=labels, max_length=max_length),
        objective=task.name,
        pad_id=tokenizer.pad_id,
        batch_size=_USUAL_BATCH,
        seed=0,
    )
    return predict_epoch(
        TrainingLoss(task, model, usual, Shape()),
        model,
        config,
        batches,
        total_steps=usual.epochs * batches.steps_per_epoch,
        micro_batch_size=_CAREFUL_EXAMPLES,
        max_length=max_length,
        runtime=runtime,
    )


def epoch_flops(lengths: Ints, config: BertConfig, longest: int) -> float:
    """Of sequences of these lengths, cut at `longest`, forward and backward."""
    values, times = np.unique(np.minimum(lengths, longest), return_counts=True)
    return sum(
        float(count) * train_flops(config, tokens=float(length), length=float(length), pooled=1)
        for length, count in zip(values.tolist(), times.tolist(), strict=True)
    )


def _rate(
    loss_sums: LossSums,
    model: nn.Module,
    config: BertConfig,
    batches: TrainingBatches,
    timed: int,
    micro_batch_size: int,
    runtime: Runtime,
) -> float:
    """FLOPs per second of so many updates."""
    devices = [runtime.device] if runtime.device.type == "cuda" else []
    was_training = model.training
    flops = seconds = 0.0
    with torch.random.fork_rng(devices=devices):
        model.train()
        for step in range(timed):
            parts = batches.batch(step, micro_batch_size)
            for _ in range(_PASSES):
                began = _now(runtime)
                _pass(loss_sums, parts, runtime)
                taken = _now(runtime) - began
            seconds += taken
            flops += sum(epoch_flops(_lengths(part), config, LONGEST) for part in parts)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return flops / seconds


def _pass(loss_sums: LossSums, parts: Sequence[TaskBatch], runtime: Runtime) -> None:
    for part in parts:
        with runtime.autocast():
            losses = loss_sums(part.to(runtime.device)).values()
        torch.autograd.backward(list(losses))


def _lengths(batch: TaskBatch) -> Ints:
    rows, seq = batch.input_ids.shape
    if batch.attention_mask is None:
        return np.full(rows, seq, dtype=np.int64)
    return batch.attention_mask.sum(1).cpu().numpy()


def _now(runtime: Runtime) -> float:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter()
