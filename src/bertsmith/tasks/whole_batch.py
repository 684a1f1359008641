"""The loss of examples that are each other's negatives, equal however a batch is cut into micro-batches and ranks.

By gradient caching (Gao et al. 2021, arXiv:2101.06983): all outputs o of the batch are computed first without a graph,
and the loss L of all with its gradient at them; then each micro-batch is read once more, now with a graph, and backward
goes from the sum of its outputs times their gradient, since dL/dw = sum_i dL/do_i do_i/dw. Memory is that of one
micro-batch, time that of one more forward pass. A batch that is one micro-batch of one process needs none of this.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bertsmith.config import FinetuneConfig
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.training_loss import TrainingLoss
from bertsmith.training.distributed import Ranks


class WholeBatchLoss(TrainingLoss):
    """`TrainingLoss` for outputs that are `is_of_whole_batch`; a `training.plan.OfWholeBatch`."""

    def __init__(self, task: Task[Any, Any], model: Pretrained, config: FinetuneConfig, shape: Shape):
        super().__init__(task, model, config, shape)
        self._expected: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        """Examples of a micro-batch -> their summed loss, and the whole batch's gradient at their outputs."""

    def look(self, batch: TaskBatch) -> Tensor:
        return self.task.item_outputs(self.model, batch)

    def expect(self, batches: Sequence[TaskBatch], outputs: Sequence[Tensor], ranks: Ranks) -> None:
        like = next(self.model.parameters())
        own = torch.cat([found.to(like.dtype) for found in outputs]) if outputs else like.new_zeros((0, 0))
        aims = torch.cat([_targets(batch) for batch in batches]) if batches else torch.zeros((0, 0), dtype=torch.int64)
        of_ranks, aims_of_ranks = ranks.gather_rows(own), ranks.gather_rows(aims.to(like.device))
        everything = torch.cat([found for found in of_ranks if len(found)]).detach().requires_grad_()
        with torch.enable_grad():
            losses = self.task.outputs.losses(everything, torch.cat([aim for aim in aims_of_ranks if len(aim)]), None)
            (gradient,) = torch.autograd.grad(losses.sum(), everything)
        item = sum(map(len, of_ranks[: ranks.rank]))
        example = sum(map(len, aims_of_ranks[: ranks.rank]))
        for batch, found in zip(batches, outputs, strict=True):
            count = len(_targets(batch))
            loss = losses[example : example + count].detach().sum()
            self._expected[batch.example_ids] = loss, gradient[item : item + len(found)]
            item, example = item + len(found), example + count

    def forget(self) -> None:
        self._expected.clear()

    def _loss(self, batch: TaskBatch) -> Tensor:
        return self._read(batch)[1]

    def _read(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        if batch.example_ids not in self._expected:
            return super()._read(batch)
        loss, gradient = self._expected[batch.example_ids]
        outputs = self.look(batch)
        through = (outputs.to(gradient.dtype) * gradient).sum()
        return outputs, loss + (through - through.detach())


def _targets(batch: TaskBatch) -> Tensor:
    assert batch.targets is not None, "training rows have targets"
    return batch.targets
