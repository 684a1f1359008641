"""Distillation: a student is drawn to what its teacher says and thinks, by the papers' formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.config import FinetuneConfig
from bertsmith.errors import RecipeError, UsageError
from bertsmith.model.encoder import encoder_of
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch, assemble
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.predict import TASKS, Predictor
from bertsmith.tasks.teacher import TEACHER, TEACHER_HIDDEN, Teacher
from bertsmith.tasks.training_loss import TrainingLoss
from bertsmith.training.track import read_metrics
from finetune_case import CPU, GOOD, choice_rows, question_rows, quiet, recipe, tagged_rows, text_rows, write_tiny_model

ROWS: dict[str, Any] = {
    "classify": text_rows(12),
    "tag": tagged_rows(8),
    "choose": choice_rows(6),
    "answer": question_rows(6),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def taught(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to tell good from bad."""
    folder = tmp_path_factory.mktemp("teacher")
    config = recipe(model=str(base), epochs=8, learning_rate=3e-3, validation_share=0.2)
    finetune(config, folder, train=text_rows(200, seed=3), console=quiet(), runtime=CPU)
    return folder


class Case:
    """A teacher of two layers and a student of one, both in float64."""

    def __init__(self, base: Path, name: str, **settings: Any):
        self.task = TASKS[name]
        rows = self.task.read(ROWS[name], Columns(), require_labels=True)
        labels = self.task.labels_in(rows, where=None, declared=())
        self.config = FinetuneConfig(task=name, distill={"teacher": "t", **settings})
        assert self.config.distill is not None
        teacher = self._model(base, labels, seed=1)
        self.student = self._model(base, labels, seed=2).train()
        encoder_of(self.student).layer = encoder_of(self.student).layer[:1]
        tokenizer = Predictor.load(base, task="masked-word").tokenizer
        predictor = Predictor(base, self.task, teacher, tokenizer, tuple(labels), 32, CPU)
        self.teacher = Teacher(predictor, self.config.distill)
        self.features = self.task.encode(rows, tokenizer, labels=labels, max_length=32)

    def _model(self, base: Path, labels: Any, *, seed: int) -> Pretrained:
        torch.manual_seed(seed)
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return self.task.head.from_pretrained(base, labels=labels, overrides=none).double()

    def batch(self, examples: Any = None) -> TaskBatch:
        chosen = np.arange(len(self.features)) if examples is None else np.array(examples)
        return assemble(self.features, chosen, objective=self.task.name, pad_id=0)

    def sums(self, batch: TaskBatch) -> dict[str, torch.Tensor]:
        loss = TrainingLoss(self.task, self.student, self.config, Shape(), teacher=self.teacher)
        return dict(loss(batch))


def test_outputs_are_compared_as_hinton_does(base: Path) -> None:
    case = Case(base, "classify", temperature=3.0)
    batch = case.batch()
    theirs, ours = (case.task.item_outputs(model, batch) / 3.0 for model in (case.teacher.model, case.student))
    p = theirs.softmax(-1)
    wanted = 9 * (p * (p.log() - ours.softmax(-1).log())).sum()
    assert case.sums(batch)[TEACHER].item() == pytest.approx(wanted.item(), rel=1e-9)


def test_hidden_states_are_compared_layer_by_layer(base: Path) -> None:
    """One student layer: the embeddings, and the last layer of each."""
    case = Case(base, "classify", weight=0.0, hidden=1.0)
    batch = case.batch()
    pairs = []
    for model in (case.teacher.model, case.student):
        bert = model.get_submodule("bert")
        found = bert(batch.input_ids, batch.attention_mask, output_hidden_states=True).hidden_states
        pairs.append((found[0], found[-1]))
    assert batch.attention_mask is not None
    wanted = 0.0
    for text, mask in enumerate(batch.attention_mask.bool()):
        for theirs, ours in zip(*pairs, strict=True):
            wanted += (theirs[text][mask] - ours[text][mask]).square().mean().item() / 2
    found = case.sums(batch)
    assert found.keys() == {"classify", TEACHER_HIDDEN}
    assert found[TEACHER_HIDDEN].item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_the_sums_do_not_hang_on_how_a_batch_is_cut(base: Path, name: str) -> None:
    case = Case(base, name, hidden=0.5)
    whole = case.sums(case.batch())
    parts = [case.sums(case.batch(numbers)) for numbers in np.array_split(np.arange(len(case.features)), 3)]
    for objective in (name, TEACHER, TEACHER_HIDDEN):
        summed = sum(part[objective].item() for part in parts)
        assert whole[objective].item() == pytest.approx(summed, rel=1e-6), objective


def test_only_the_student_learns(base: Path) -> None:
    case = Case(base, "tag", hidden=0.5)
    assert not case.teacher.model.training
    sum(case.sums(case.batch()).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in case.teacher.model.parameters())
    assert encoder_of(case.student).layer[0].output.dense.weight.grad is not None


def test_a_student_believes_its_teacher(base: Path, taught: Path, tmp_path: Path) -> None:
    """Its labels are all wrong; a teacher that counts for more than they do knows better."""
    other = {"good": "bad", "bad": "good"}
    wrong = [(text, other[label]) for text, label in text_rows(200, seed=7)]
    right = text_rows(60, seed=5)
    for name, distill in (("alone", None), ("taught", {"teacher": str(taught), "weight": 5.0, "hidden": 1.0})):
        config = recipe(model=str(base), epochs=8, learning_rate=3e-3, distill=distill, test_share=0.2)
        finetune(config, tmp_path / name, train=wrong, console=quiet(), runtime=CPU)
    found = {}
    for name in ("alone", "taught"):
        answers = Predictor.load(tmp_path / name / "last").predict([text for text, _ in right])
        found[name] = np.mean([answer.label == label for answer, (_, label) in zip(answers, right, strict=True)])
    assert found["alone"] < 0.2
    assert found["taught"] > 0.8
    steps = [event for event in read_metrics(tmp_path / "taught" / "metrics.jsonl") if event["event"] == "step"]
    assert steps[-1]["losses"][TEACHER] < steps[0]["losses"][TEACHER]


def test_another_teacher_is_another_run(base: Path, taught: Path, tmp_path: Path) -> None:
    def train(teacher: Path) -> bytes:
        config = recipe(model=str(base), epochs=1, distill={"teacher": str(teacher)}, validation_share=0.2)
        finetune(config, tmp_path / "run", train=text_rows(40, seed=7), console=quiet(), runtime=CPU)
        return (tmp_path / "run" / "model" / "model.safetensors").read_bytes()

    other = tmp_path / "other"
    config = recipe(model=str(base), epochs=1, validation_share=0.2)
    finetune(config, other, train=text_rows(40, seed=9), console=quiet(), runtime=CPU)
    assert train(taught) != train(other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "multilabel"}, r"is of task 'classify', not 'multilabel'"),
        ({"labels": ["bad", "good", "odd"]}, r"knows the labels bad, good; the rows have bad, good, odd"),
    ],
)
def test_a_teacher_of_something_else_is_refused(
    base: Path, taught: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    config = recipe(model=str(base), distill={"teacher": str(taught)}, validation_share=0.2, **settings)
    rows = [(text, [label]) for text, label in text_rows(40)] if settings.get("task") else text_rows(40)
    with pytest.raises(UsageError, match=said):
        finetune(config, tmp_path / "run", train=rows, console=quiet(), runtime=CPU)
    assert not (tmp_path / "run").exists()


def test_a_teacher_with_another_vocabulary_is_refused(taught: Path, tmp_path: Path) -> None:
    student = write_tiny_model(tmp_path / "student", words=(*GOOD, "the", "so"))
    config = recipe(model=str(student), distill={"teacher": str(taught)}, validation_share=0.2)
    with pytest.raises(UsageError, match="has another vocabulary than"):
        finetune(config, tmp_path / "run", train=text_rows(40), console=quiet(), runtime=CPU)


def test_a_section_that_teaches_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="weight and hidden are both 0"):
        recipe(model="m", distill={"teacher": "t", "weight": 0.0})
