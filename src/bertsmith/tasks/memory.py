"""What holds a training on to an old task, beside the new one's loss.

    ewc       1/2 sum_i F_i (theta_i - theta*_i)²      Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3; F: `fisher`
    distill   T² KL(p_old || p_new) of old outputs      Li and Hoiem 2016, arXiv:1606.09282
    replay    the old task's loss on old rows           where the old head is another one; else they are in the table

theta* are the old weights. Weights of labels that were added, and of a new head, have no F and are free. p_old is what
the old model says to the new rows, p_new what the model in training says there for the old labels, by its own head, or
by the old head on its encoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from bertsmith.errors import UsageError
from bertsmith.model.pretrained import Pretrained
from bertsmith.runtime import derive_seed
from bertsmith.tasks.batches import TaskBatch, TrainingBatches
from bertsmith.tasks.continual import OldTask
from bertsmith.tasks.fisher import fisher_diagonal
from bertsmith.training.plan import Due

EWC, DISTILL, REPLAY = "ewc", "distill", "replay"


class Memory:
    """Objectives that keep an old task; a part of `TrainingLoss`."""

    def __init__(
        self, old: OldTask, model: Pretrained, *, seed: int, batch_size: int, rank: int = 0, world_size: int = 1
    ):
        self.old = old
        self._teacher = old.predictor.model.eval().requires_grad_(False)
        self._head = _in_training(old.head_on(model)) if old.is_separate else None
        if self._head is not None and not any(weight.requires_grad for weight in self._head.parameters()):
            for key in ("replay", "distill"):
                if getattr(old.config, key):
                    raise UsageError(f"learn_on.{key}: the encoder is frozen, so nothing is forgotten; leave it out")
        self._replay: TrainingBatches | None = None
        if old.is_separate and old.replayed:
            self._replay = TrainingBatches(
                old.encode(old.replayed),
                objective=REPLAY,
                pad_id=old.predictor.tokenizer.pad_id,
                batch_size=min(batch_size, len(old.replayed)),
                seed=seed,
                rank=rank,
                world_size=world_size,
            )
        self._held = self._hold(model, seed) if old.config.ewc else []

    @property
    def weights(self) -> dict[str, float]:
        """Objective -> weight, of those that each batch of new rows has."""
        found = {EWC: self.old.config.ewc, DISTILL: self.old.config.distill}
        return {name: weight for name, weight in found.items() if weight}

    def batches(self, due: Due, new: Sequence[TaskBatch], first_free_id: int) -> list[TaskBatch]:
        """Those of an update: the new rows', and after them the old rows', whose numbers begin at `first_free_id`."""
        found = [self._counted(batch) for batch in new]
        if self._replay is not None:
            for batch in self._replay.batch(due.step, due.micro_batch_size):
                ids = tuple(first_free_id + number for number in batch.example_ids)
                found.append(replace(batch, example_ids=ids))
        return found

    def is_old(self, batch: TaskBatch) -> bool:
        return REPLAY in batch.counts

    def replayed(self, batch: TaskBatch) -> dict[str, Tensor]:
        """The old task's loss on old rows."""
        assert self._head is not None, "old rows are parted from new ones"
        assert batch.targets is not None, "old rows have labels"
        task = self.old.task
        outputs = task.item_outputs(self._head, batch)
        return {REPLAY: task.outputs.losses(outputs, batch.targets, batch.item_groups).sum()}

    def sums(self, batch: TaskBatch, outputs: Tensor, count: int) -> dict[str, Tensor]:
        """For a batch of `count` new targets, for which the model says `outputs`."""
        found: dict[str, Tensor] = {}
        if self._held:
            parts = [held.distance() for held in self._held]
            found[EWC] = torch.stack(parts).sum() / 2 * count
        if self.old.config.distill:
            found[DISTILL] = self._distances(batch, outputs).sum()
        return found

    def _distances(self, batch: TaskBatch, outputs: Tensor) -> Tensor:
        task, temperature = self.old.task, self.old.config.temperature
        if self._head is not None:
            batch = self._as_old(batch)
            outputs = task.item_outputs(self._head, batch)
        with torch.no_grad():
            old = task.item_outputs(self._teacher, batch)
        new = outputs[:, : old.shape[1]]
        return task.outputs.distances(old, new, batch.item_groups, temperature=temperature)

    def _counted(self, batch: TaskBatch) -> TaskBatch:
        """With the number of places at which another head is compared with itself."""
        if self._head is None or not self.old.config.distill:
            return batch
        return _Distilled(**vars(batch), at_tokens=self.old.task.name == "tag").counted()

    def _as_old(self, batch: TaskBatch) -> TaskBatch:
        """New rows as the old task reads them: at [CLS], or, for a tagger, at every token."""
        items = _real_tokens(batch) if self.old.task.name == "tag" else batch.items
        return replace(batch, items=items, targets=None, item_groups=None)

    def _hold(self, model: Pretrained, seed: int) -> list["_Held"]:
        """Each trainable weight that the old task has too, with its old value and its F."""
        old, config = self.old, self.old.config
        order = sorted(range(len(old.rows)), key=lambda number: derive_seed("fisher rows", seed, number))
        rows = [old.rows[number] for number in sorted(order[: config.fisher_rows])]
        teacher = old.predictor.model.requires_grad_(True)
        fisher = fisher_diagonal(
            teacher,
            old.task,
            old.encode(rows),
            pad_id=old.predictor.tokenizer.pad_id,
            kind=config.fisher,
            seed=seed,
            runtime=old.predictor.runtime,
        )
        teacher.requires_grad_(False)
        weights: Mapping[str, Tensor] = dict(teacher.named_parameters())
        shared = [
            _Held.of(parameter, weights[name].detach(), fisher[name])
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name in fisher and (name.startswith("bert.") or not old.is_separate)
        ]
        if not shared:
            raise UsageError("learn_on.ewc: all weights that the old task hangs on are frozen; leave ewc or freeze out")
        return shared


@dataclass(frozen=True, kw_only=True)
class _Distilled(TaskBatch):
    """New rows at which another head is compared with itself: at each text, or at each token."""

    at_tokens: bool

    def take(self, examples: Sequence[int]) -> Self:
        return super().take(examples).counted()

    def counted(self) -> Self:
        """With the number of these places, which are no targets."""
        texts = len(self.input_ids) if self.sequence_examples is None else len(self.example_ids)
        places = len(_real_tokens(self)) if self.at_tokens else texts
        return replace(self, counts=self.counts | {DISTILL: places})


@dataclass(frozen=True)
class _Held:
    """A weight that is not to move far. Of its rows only those that the old task hangs on: of a word table few, of a
    head with more labels than before the old ones.
    """

    parameter: nn.Parameter
    rows: Tensor | None
    """None: all."""
    old: Tensor
    fisher: Tensor

    @classmethod
    def of(cls, parameter: nn.Parameter, old: Tensor, fisher: Tensor) -> Self:
        rows = fisher.flatten(1).any(1).nonzero().flatten() if fisher.ndim > 1 else torch.arange(len(old))
        if len(rows) == len(parameter):
            return cls(parameter, None, old, fisher)
        rows = rows.to(old.device)
        return cls(parameter, rows, old[rows], fisher[rows])

    def distance(self) -> Tensor:
        """sum_i F_i (theta_i - theta*_i)²"""
        now = self.parameter if self.rows is None else self.parameter[self.rows]
        return (self.fisher * (now - self.old) ** 2).sum()


def _in_training(head: Pretrained) -> Pretrained:
    """With what belongs to the old head alone in evaluation mode; the encoder's mode is the model's."""
    for name, child in head.named_children():
        if name != "bert":
            child.eval()
    return head


def _real_tokens(batch: TaskBatch) -> Tensor:
    """Positions of tokens in the flattened batch."""
    if batch.attention_mask is None:
        return torch.arange(batch.input_ids.numel(), device=batch.input_ids.device)
    return batch.attention_mask.flatten().nonzero().flatten()
