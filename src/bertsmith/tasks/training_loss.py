"""What fine-tuning minimises: the task's loss, and beside it what holds the model on to what it knew.

    r_drop        Liang et al. 2021, arXiv:2106.14448: two dropouts are to give one answer
    adversarial   fgm: Miyato et al. 2017, arXiv:1605.07725; pgd: Madry et al. 2018, arXiv:1706.06083
    l2_start      L2-SP, Li et al. 2018, arXiv:1802.01483: L2 to the weights it started with

What holds on to an earlier task is in `memory`, what a larger model teaches in `teacher`. Each is an objective of its
own, with its own line in metrics.jsonl. All are sums over targets, so that they do not hang on how a batch is cut into
micro-batches.
"""

import contextlib
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.config import FinetuneConfig
from bertsmith.errors import UsageError
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.memory import Memory
from bertsmith.tasks.teacher import Teacher

R_DROP, ADVERSARIAL, L2_START = "r_drop", "adversarial", "l2_start"


class TrainingLoss:
    """Summed losses of a micro-batch, by objective."""

    def __init__(
        self,
        task: Task[Any, Any],
        model: Pretrained,
        config: FinetuneConfig,
        shape: Shape,
        memory: Memory | None = None,
        teacher: Teacher | None = None,
    ):
        self.task, self.model, self.config, self.shape = task, model, config, shape
        self.memory, self.teacher = memory, teacher
        self._start = _start(model) if config.l2_start else []

    @property
    def weights(self) -> dict[str, float]:
        """Objective -> weight, of those beside the task's own."""
        config = self.config
        found = {R_DROP: config.r_drop, ADVERSARIAL: float(config.adversarial is not None), L2_START: config.l2_start}
        besides = [part.weights for part in (self.memory, self.teacher) if part is not None]
        return {name: weight for name, weight in found.items() if weight} | dict(ChainMap(*besides))

    def __call__(self, batch: TaskBatch) -> Mapping[str, Tensor]:
        if self.memory is not None and self.memory.is_old(batch):
            return self.memory.replayed(batch)
        if self.config.adversarial is None:
            sums, outputs = self._sums(batch)
        else:
            with _Moved(self.model) as words:
                sums, outputs = self._sums(batch)
                sums[ADVERSARIAL] = self._attacked(batch, words, sums[self.task.name])
        if self._start:
            distance = torch.stack([((now - then) ** 2).sum() for now, then in self._start]).sum() / 2
            sums[L2_START] = distance * batch.counts[self.task.name]
        if self.memory is not None and outputs is not None:
            sums |= self.memory.sums(batch, outputs, batch.counts[self.task.name])
        return sums

    def _sums(self, batch: TaskBatch) -> tuple[dict[str, Tensor], Tensor | None]:
        """And the outputs of the first reading, where a memory or a teacher compares them."""
        if not self.config.r_drop and self.memory is None and self.teacher is None:
            return {self.task.name: self._loss(batch)}, None
        taught: dict[str, Tensor] = {}
        if self.teacher is None:
            outputs, loss = self._read(batch)
        else:
            with self.teacher.listening(self.model) as heard:
                outputs, loss = self._read(batch)
            taught = self.teacher.sums(batch, outputs, heard.found)
        if not self.config.r_drop:
            return {self.task.name: loss} | taught, outputs
        again, second = self._read(batch)
        apart = self.task.outputs.divergences(outputs, again, batch.item_groups).sum()
        return {self.task.name: (loss + second) / 2, R_DROP: apart} | taught, outputs

    def _loss(self, batch: TaskBatch) -> Tensor:
        return self.task.loss_sum(self.model, batch, self.shape)

    def _read(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        assert batch.targets is not None, "training rows have labels"
        outputs = self.task.item_outputs(self.model, batch)
        losses = self.task.outputs.losses(outputs, batch.targets, batch.item_groups, self.shape)
        return outputs, losses.sum()

    def _attacked(self, batch: TaskBatch, words: "_Moved", loss: Tensor) -> Tensor:
        """The loss where each sequence's embeddings are moved up its own gradient, by `adversarial_epsilon` in all.

        fgm: r = e g / |g|. pgd: r = P(r + a g / |g|), several times, P onto the ball of radius e.
        """
        config, is_one_step = self.config, self.config.adversarial == "fgm"
        size = config.adversarial_epsilon if is_one_step else config.adversarial_step_size
        for _ in range(1 if is_one_step else config.adversarial_steps):
            gradient = words.gradient(loss)
            moved = words.by + size * gradient / _norms(gradient)
            words.by = moved * (config.adversarial_epsilon / _norms(moved)).clamp(max=1.0)
            loss = self._loss(batch)
        words.by = torch.zeros(())
        return loss


def shape_of(config: FinetuneConfig, task: Task[Any, Any], rows: Sequence[Any], labels: Sequence[str]) -> Shape:
    """How the recipe changes the loss of classes; raises `UsageError` for weights of a label that is not there."""
    return Shape(config.label_smoothing, config.focal_gamma, _class_weights(config, task, rows, labels))


def _class_weights(
    config: FinetuneConfig, task: Task[Any, Any], rows: Sequence[Any], labels: Sequence[str]
) -> tuple[float, ...] | None:
    """balanced: as scikit-learn's; a label that no row has, and one that a table does not name, has 1."""
    if config.class_weights is None:
        return None
    if config.class_weights == "balanced":
        counts = Counter(label for row in rows for label in task.labels_of(row))
        total = counts.total()
        return tuple(total / (len(labels) * counts[label]) if counts[label] else 1.0 for label in labels)
    if unknown := config.class_weights.keys() - set(labels):
        raise UsageError(f"class_weights names {sorted(unknown)[0]!r}, which is no label; labels: {', '.join(labels)}")
    return tuple(config.class_weights.get(label, 1.0) for label in labels)


class _Moved:
    """While it is entered, the model's word embeddings are what they are plus `by`; and their gradient can be had."""

    def __init__(self, model: nn.Module):
        self.by = torch.zeros(())
        self._found: Tensor | None = None
        self._table: nn.Module = model.get_submodule("bert.embeddings.word_embeddings")
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> "_Moved":
        handle = self._table.register_forward_hook(self._on_forward)
        self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def gradient(self, loss: Tensor) -> Tensor:
        """Of the loss that was last computed, at the embeddings: (batch, seq, hidden)."""
        assert self._found is not None, "the model was read"
        (found,) = torch.autograd.grad(loss, self._found, retain_graph=True)
        return found.detach()

    def _on_forward(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            output = output if output.requires_grad else output.detach().requires_grad_()  # frozen embeddings
            self._found = output
        return output + self.by.to(output) if self.by.ndim else output


def _norms(moves: Tensor) -> Tensor:
    """(batch, 1, 1) over all tokens of a sequence; never 0."""
    norms: Tensor = torch.linalg.vector_norm(moves, dim=(1, 2), keepdim=True)
    return norms.clamp_min(torch.finfo(moves.dtype).tiny)


def _start(model: Pretrained) -> list[tuple[nn.Parameter, Tensor]]:
    """Each trainable weight with what it is drawn to."""
    return [
        (parameter, parameter.detach().clone() if name.startswith("bert.") else torch.zeros_like(parameter))
        for name, parameter in _trainable(model)
    ]


def _trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
