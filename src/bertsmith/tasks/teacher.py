"""Distillation: a student learns from what a teacher says of the same rows, beside their labels.

    teacher          T² KL(p_teacher || p_student) of outputs divided by T    Hinton et al. 2015, arXiv:1503.02531
    teacher_hidden   mean squared distance of hidden states                    Jiao et al. 2020, arXiv:1909.10351, eq. 8

Hidden states are compared after the embeddings and after each student layer, with the teacher's state as deep in
proportion: of 6 layers, a student of 3 learns from the second, the fourth and the sixth. The distance is the mean over
a sequence's real tokens, over the width, and over these states; sequences count as many times as they have targets, so
that the sum does not hang on how a batch is cut.

The teacher reads in evaluation mode and gets no gradient.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from bertsmith.config import FinetuneConfig
from bertsmith.config.distill import DistillConfig
from bertsmith.errors import UsageError
from bertsmith.model.encoder import encoder_of
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer

TEACHER, TEACHER_HIDDEN = "teacher", "teacher_hidden"


class Teacher:
    """A fine-tuned model that teaches; a part of `TrainingLoss`."""

    def __init__(self, predictor: Predictor, config: DistillConfig):
        self.task, self.config = predictor.task, config
        self.model = predictor.model.eval().requires_grad_(False)

    @classmethod
    def load(
        cls,
        config: FinetuneConfig,
        *,
        labels: Sequence[str],
        tokenizer: Tokenizer,
        student: Path,
        runtime: Runtime,
    ) -> Self | None:
        """The recipe's teacher, None where it has none.

        Raises `CheckpointError` for a model without a trained head, and `UsageError` for one of another task, of other
        labels, of another vocabulary, or whose hidden states cannot be compared with those of the `student` directory.
        """
        settings = config.distill
        if settings is None:
            return None
        directory = resolve_model_dir(settings.teacher)
        predictor = Predictor.load(directory, runtime=runtime)
        if predictor.task.name != config.task:
            raise UsageError(f"distill.teacher {directory} is of task {predictor.task.name!r}, not {config.task!r}")
        if predictor.task.outputs_are_classes and predictor.labels != tuple(labels):
            theirs, ours = ", ".join(predictor.labels), ", ".join(labels)
            raise UsageError(f"distill.teacher {directory} knows the labels {theirs}; the rows have {ours}")
        if predictor.tokenizer.backend.get_vocab() != tokenizer.backend.get_vocab():
            raise UsageError(f"distill.teacher {directory} has another vocabulary than {student}; it reads other ids")
        sizes = read_config(directory).hidden_size, read_config(student).hidden_size
        if settings.hidden and sizes[0] != sizes[1]:
            raise UsageError(
                f"distill.hidden compares states of one size; the teacher's have {sizes[0]}, the student's {sizes[1]}: "
                "leave it out"
            )
        return cls(predictor, settings)

    @property
    def weights(self) -> dict[str, float]:
        """Objective -> weight."""
        found = {TEACHER: self.config.weight, TEACHER_HIDDEN: self.config.hidden}
        return {name: weight for name, weight in found.items() if weight}

    def listening(self, student: Pretrained) -> "States":
        """Keeps the states of the student's readings while it is entered, where they are compared."""
        return States(student if self.config.hidden else None)

    def sums(self, batch: TaskBatch, outputs: Tensor, states: Sequence[Tensor]) -> dict[str, Tensor]:
        """Summed over the batch's targets; outputs, states: the student's."""
        with torch.no_grad(), self.listening(self.model) as heard:
            taught = self.task.item_outputs(self.model, batch)
        found = {}
        if self.config.weight:
            apart = self.task.outputs.distances(taught, outputs, batch.item_groups, temperature=self.config.temperature)
            found[TEACHER] = apart.sum()
        if self.config.hidden:
            depth = (len(heard.found) - 1) / max(1, len(states) - 1)
            pairs = [(state, heard.found[round(number * depth)]) for number, state in enumerate(states)]
            distances = torch.stack([_distances(*pair, batch) for pair in pairs]).mean(0)
            found[TEACHER_HIDDEN] = (distances * _targets_of_sequences(batch).to(distances)).sum()
        return found


class States:
    """While it is entered, the hidden states of a model's last reading: (batch, seq, hidden) of the embeddings and of
    each layer.
    """

    def __init__(self, model: Pretrained | None):
        self.found: list[Tensor] = []
        self._model = model
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        if self._model is not None:
            embeddings = self._model.get_submodule("bert.embeddings")
            self._hooks = [embeddings.register_forward_hook(self._on_embeddings)]
            self._hooks += [layer.register_forward_hook(self._on_layer) for layer in encoder_of(self._model).layer]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _on_embeddings(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.found = [output]

    def _on_layer(self, _module: nn.Module, _inputs: object, output: tuple[Tensor, Tensor | None]) -> None:
        self.found.append(output[0])


def _distances(one: Tensor, other: Tensor, batch: TaskBatch) -> Tensor:
    """(batch,) mean squared distance over real tokens and width."""
    squares = (one.float() - other.float()).square().mean(-1)  # (batch, seq)
    if batch.attention_mask is None:
        return squares.mean(-1)
    return (squares * batch.attention_mask).sum(-1) / batch.attention_mask.sum(-1)


def _targets_of_sequences(batch: TaskBatch) -> Tensor:
    """(batch,) how many targets stand in each sequence; of an example in several sequences each has its part of one."""
    count = len(batch.input_ids)
    if batch.item_groups is None:
        return torch.bincount(batch.items // batch.input_ids.shape[1], minlength=count)
    if batch.sequence_examples is None:
        return torch.ones(count)
    return 1 / torch.bincount(batch.sequence_examples)[batch.sequence_examples]
