"""R-Drop, adversarial steps, L2 to the start, early stopping, the head's own rate: each does what its paper says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.config import FinetuneConfig
from bertsmith.errors import UsageError
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch, assemble
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.training_loss import TrainingLoss, shape_of
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.groups import parameter_groups
from bertsmith.training.track import read_metrics
from finetune_case import (
    CPU,
    choice_rows,
    question_rows,
    quiet,
    recipe,
    spoken,
    tagged_rows,
    text_rows,
    write_tiny_model,
)

LABELS = {"classify": ("bad", "good"), "choose": ("score",), "answer": ("start", "end")}
ROWS: dict[str, Any] = {"classify": text_rows(12), "choose": choice_rows(6), "answer": question_rows(6)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


class Case:
    """A task, its model in float64 and a padded batch."""

    def __init__(self, base: Path, name: str, *, dropout: float = 0.0):
        self.task = TASKS[name]
        tokenizer = Tokenizer.load(base)
        overrides = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        torch.manual_seed(1)
        model: Pretrained = self.task.head.from_pretrained(base, labels=LABELS[name], overrides=overrides)
        self.model = model.double().train()
        rows = self.task.read(ROWS[name], Columns(), require_labels=True)
        self.features = self.task.encode(rows, tokenizer, labels=LABELS[name], max_length=32)

    def batch(self, examples: Any = None, *, also: tuple[str, ...] = ()) -> TaskBatch:
        chosen = np.arange(len(self.features)) if examples is None else np.array(examples)
        return assemble(self.features, chosen, objective=self.task.name, pad_id=0, also=also)

    def loss(self, **settings: Any) -> TrainingLoss:
        return TrainingLoss(self.task, self.model, FinetuneConfig(task=self.task.name, **settings), Shape())

    def plain(self, batch: TaskBatch, words: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of each target, from embeddings that are given."""
        if words is None:
            outputs = self.task.item_outputs(self.model, batch)
        else:
            logits = self.model(None, batch.attention_mask, batch.token_type_ids, inputs_embeds=words).logits
            outputs = logits
        return self.task.outputs.losses(outputs, batch.targets, batch.item_groups)


@pytest.mark.parametrize("name", LABELS)
def test_without_flags_it_is_the_task_s_loss(base: Path, name: str) -> None:
    case = Case(base, name)
    batch = case.batch()
    loss = case.loss()
    assert loss.weights == {}
    assert {key: value.item() for key, value in loss(batch).items()} == {name: case.plain(batch).sum().item()}


@pytest.mark.parametrize("epsilon", [0.1, 2.0])
def test_fgm_moves_each_row_up_its_own_gradient(base: Path, epsilon: float) -> None:
    """Miyato et al. 2017, eq. 2: r = e g / |g|, for each row of the batch alone."""
    case = Case(base, "classify")
    batch = case.batch()
    words = case.model.bert.embeddings.word_embeddings(batch.input_ids).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(case.plain(batch, words).sum(), words)
    norms = gradient.flatten(1).norm(dim=1)[:, None, None]
    expected = case.plain(batch, words.detach() + epsilon * gradient / norms).sum()
    sums = case.loss(adversarial="fgm", adversarial_epsilon=epsilon)(batch)
    torch.testing.assert_close(sums["adversarial"], expected)
    assert sums["adversarial"] > sums["classify"]
    torch.testing.assert_close(sums["classify"], case.plain(batch).sum())


def test_pgd_stays_in_the_ball(base: Path) -> None:
    """Madry et al. 2018: steps of a g / |g|, put back onto the ball of radius e after each."""
    case = Case(base, "classify")
    batch = case.batch()
    words = case.model.bert.embeddings.word_embeddings(batch.input_ids).detach()
    moved = torch.zeros_like(words)
    for _ in range(4):
        at = (words + moved).requires_grad_()
        (gradient,) = torch.autograd.grad(case.plain(batch, at).sum(), at)
        moved = moved + 0.4 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
        norms = moved.flatten(1).norm(dim=1)[:, None, None]
        moved = torch.where(norms > 1.0, moved / norms, moved)
    settings = {"adversarial_epsilon": 1.0, "adversarial_steps": 4, "adversarial_step_size": 0.4}
    sums = case.loss(adversarial="pgd", **settings)(batch)
    torch.testing.assert_close(sums["adversarial"], case.plain(batch, words + moved).sum())


def test_r_drop_compares_two_dropouts(base: Path) -> None:
    """Liang et al. 2021: the mean of both losses, and the mean of both KL divergences."""
    case = Case(base, "classify", dropout=0.2)
    batch = case.batch()
    torch.manual_seed(3)
    sums = case.loss(r_drop=4.0)(batch)
    torch.manual_seed(3)
    one, other = (case.task.item_outputs(case.model, batch) for _ in range(2))
    p, q = one.softmax(-1), other.softmax(-1)
    apart = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    torch.testing.assert_close(sums["r_drop"], apart)
    means = [case.task.outputs.losses(found, batch.targets, None).sum() for found in (one, other)]
    torch.testing.assert_close(sums["classify"], sum(means) / 2)
    assert apart > 0
    still = Case(base, "classify")
    assert still.loss(r_drop=4.0)(still.batch())["r_drop"].item() == pytest.approx(0, abs=1e-12)


def test_l2_to_the_start_has_the_gradient_of_the_paper(base: Path) -> None:
    """Li et al. 2018, eq. 4: a (w - w0) for weights that were trained before, a w for the head's."""
    case = Case(base, "classify")
    start = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    loss = case.loss(l2_start=0.5)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    batch = case.batch(also=("l2_start",))
    (loss(batch)["l2_start"] / batch.counts["l2_start"]).backward()
    for name, parameter in case.model.named_parameters():
        expected = parameter - start[name] if name.startswith("bert.") else parameter
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("name", LABELS)
def test_no_objective_hangs_on_the_cut_into_micro_batches(base: Path, name: str) -> None:
    case = Case(base, name)
    loss = case.loss(adversarial="fgm", r_drop=1.0, l2_start=0.1)
    also = tuple(loss.weights)
    whole, count = loss(case.batch(also=also)), len(case.features)
    parts = [loss(case.batch(part, also=also)) for part in np.array_split(np.arange(count), 3)]
    for objective, value in whole.items():
        torch.testing.assert_close(sum(part[objective] for part in parts), value, rtol=1e-9, atol=1e-9)


def test_frozen_embeddings_can_be_moved_too(base: Path) -> None:
    case = Case(base, "classify")
    case.model.bert.embeddings.requires_grad_(False)
    sums = case.loss(adversarial="fgm")(case.batch())
    assert sums["adversarial"] > sums["classify"]


def test_balanced_weights_are_scikit_learn_s() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    task, names = TASKS["classify"], ["bad"] * 30 + ["good"] * 10
    rows = task.read([("a", name) for name in names], Columns(), require_labels=True)
    found = shape_of(FinetuneConfig(class_weights="balanced"), task, rows, ("bad", "good")).weights
    assert found == tuple(compute_class_weight("balanced", classes=np.array(["bad", "good"]), y=names))
    named = shape_of(FinetuneConfig(class_weights={"good": 3.0}), task, rows, ("bad", "good")).weights
    assert named == (1.0, 3.0)
    with pytest.raises(UsageError, match="names 'god', which is no label; labels: bad, good"):
        shape_of(FinetuneConfig(class_weights={"god": 3.0}), task, rows, ("bad", "good"))
    with pytest.raises(
        ValueError, match="task = 'regress' takes no label_smoothing; that is of classify, multilabel, tag"
    ):
        FinetuneConfig(task="regress", label_smoothing=0.1)


def test_the_head_has_a_rate_of_its_own(base: Path) -> None:
    model = Case(base, "classify").model
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5, head_factor=10.0)
    factors = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    by_name = {name: factors[id(p)] for name, p in model.named_parameters()}
    assert by_name["classifier.weight"] == by_name["classifier.bias"] == 10.0
    assert by_name["bert.pooler.dense.weight"] == 1.0
    assert by_name["bert.encoder.layer.1.output.dense.weight"] == 0.5


def test_training_ends_when_scores_get_no_better(base: Path, tmp_path: Path) -> None:
    settings = recipe(epochs=30, learning_rate=1e-9, stop_after=3)
    console = quiet()
    result = finetune(settings, tmp_path / "run", model=base, train=text_rows(40), console=console, runtime=CPU)
    assert [row.step for row in result.table] == [5, 10, 15, 20]
    assert "ended after 3 evaluations without a better one (stop_after)" in spoken(console)
    assert (tmp_path / "run" / "scores.json").exists()
    again = finetune(settings, tmp_path / "run", model=base, train=text_rows(40), console=console, runtime=CPU)
    assert "done before" in spoken(console)
    assert again.scores == result.scores


@pytest.mark.parametrize(
    "flags",
    [
        {"adversarial": "fgm", "r_drop": 1.0},
        {"adversarial": "pgd", "l2_start": 0.01},
        {"label_smoothing": 0.1, "focal_gamma": 2.0, "class_weights": "balanced", "head_learning_rate": 0.02},
    ],
)
@pytest.mark.parametrize("task", ["classify", "tag"])
def test_all_flags_train(base: Path, tmp_path: Path, task: str, flags: dict[str, Any]) -> None:
    rows = text_rows(200, seed=1) if task == "classify" else tagged_rows(100, seed=1)
    settings = recipe(task=task, epochs=5, **flags)
    result = finetune(settings, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    scores = [row.score for row in result.table]
    assert max(scores) > scores[0]
    lines = [event for event in read_metrics(tmp_path / "run" / "metrics.jsonl") if event["event"] == "step"]
    besides = flags.keys() & {"adversarial", "r_drop", "l2_start"}
    assert set(lines[-1]["losses"]) == {task, *besides}
