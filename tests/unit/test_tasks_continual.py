"""Learning on: replay, EWC and distillation by their formulas, heads that keep what they said, forgetting measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bertsmith.config import FinetuneConfig, LearnOnConfig
from bertsmith.errors import CheckpointError, DataError, RecipeError, Stopped, UsageError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch, assemble
from bertsmith.tasks.continual import OldTask
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.fisher import fisher_diagonal
from bertsmith.tasks.folds import cross_validate
from bertsmith.tasks.losses import ANY_OF_LABELS, NUMBER, ONE_OF_CLASSES, ONE_OF_ITEMS, Shape
from bertsmith.tasks.memory import Memory
from bertsmith.tasks.predict import TASKS, Predictor
from bertsmith.tasks.replay import replay_buffer
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.search import search
from bertsmith.tasks.splits import read_splits
from bertsmith.tasks.starting_model import widen
from bertsmith.tasks.training_loss import TrainingLoss
from bertsmith.training.plan import Due
from bertsmith.training.track import read_metrics
from finetune_case import (
    CPU,
    FILLERS,
    choice_rows,
    pair_rows,
    quiet,
    recipe,
    spoken,
    tagged_rows,
    text_rows,
    write_conll,
    write_tiny_model,
    write_tsv,
)

NEW_LABEL = [(f"{word} tom {other}", "tom") for word in FILLERS[:5] for other in FILLERS[:6]]
OLD = {"classify": text_rows(150, seed=1), "tag": tagged_rows(60, seed=1)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Runs `classify` and `tag` of an old task, with its rows in files."""
    folder = tmp_path_factory.mktemp("old")
    write_tsv(folder / "classify.tsv", OLD["classify"])
    write_conll(folder / "tag.conll", OLD["tag"])
    for task, rows in OLD.items():
        finetune(recipe(task=task, epochs=5), folder / task, model=base, train=rows, console=quiet(), runtime=CPU)
    return folder


def files(old: Path, task: str = "classify") -> dict[str, Any]:
    path = str(next(old.glob(f"{task}.*")))
    return {"old": [path], "test": {"before": path}}


def load(old: Path, task: str = "classify", /, *, of: str = "classify", **learn_on: Any) -> OldTask:
    """The old model of task `of`, as it is loaded for new rows of `task`."""
    settings = LearnOnConfig(**files(old, of) | learn_on)
    config = FinetuneConfig(task=task, learn_on=settings)
    return OldTask.load(old / of / "model", config, settings, seed=1, runtime=CPU)


class Case:
    """An old classifier in float64, a model that has gone on from it, and a batch of new rows."""

    def __init__(self, old: Path, /, **learn_on: Any):
        self.task = TASKS["classify"]
        self.labels = ("bad", "good", "tom")
        self.old = load(old, **learn_on)
        self.old.predictor.model.double()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.model = self.task.head.from_pretrained(old / "classify" / "model")
            widen(self.model, self.labels)
            self.model.double()
            self.start = {name: value.detach().clone() for name, value in self.model.named_parameters()}
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        rows = self.task.read(NEW_LABEL[:9], Columns(), require_labels=True)
        tokenizer = self.old.predictor.tokenizer
        self.features = self.task.encode(rows, tokenizer, labels=self.labels, max_length=32)
        self.memory = Memory(self.old, self.model, seed=1, batch_size=4)

    def batch(self, examples: Any = None) -> TaskBatch:
        chosen = np.arange(len(self.features)) if examples is None else np.array(examples)
        return assemble(self.features, chosen, objective="classify", pad_id=0, also=tuple(self.memory.weights))

    def loss(self, **settings: Any) -> TrainingLoss:
        config = FinetuneConfig(learn_on=self.old.config, **settings)
        return TrainingLoss(self.task, self.model, config, Shape(), self.memory)


# ---- replay ----


@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=40), st.integers(1, 4), st.sampled_from([0, 1, 2]))
def test_a_buffer_is_a_pure_function_of_rows_and_seed(labels: list[str], size: int, seed: int) -> None:
    rows = [TextRow(f"text {number}", label, number) for number, label in enumerate(labels)]
    for by in ("stratified", "reservoir"):
        found = replay_buffer(rows, size, by, seed=seed)
        assert found == replay_buffer(rows, size, by, seed=seed)
        assert len(found) == len({row.line for row in found}) == size
        assert found == sorted(found, key=lambda row: row.line)
    chosen = replay_buffer(rows, size, "stratified", seed=seed)
    assert {row.text for row in chosen} == {
        row.text for row in replay_buffer(rows[::-1], size, "stratified", seed=seed)
    }
    for label in set(labels):
        share = sum(row.label == label for row in chosen)
        assert abs(share - size * labels.count(label) / len(labels)) < 1


def test_a_reservoir_takes_every_row_as_often() -> None:
    rows = [TextRow(str(number), "a", number) for number in range(20)]
    counts = np.zeros(20)
    for seed in range(2000):
        for row in replay_buffer(rows, 5, "reservoir", seed=seed):
            counts[row.line] += 1
    assert np.abs(counts / 2000 - 0.25).max() < 0.04  # four standard deviations
    other = [row.line for row in replay_buffer(rows, 20, "reservoir", seed=1)]
    assert other == list(range(20))
    with pytest.raises(UsageError, match=r"learn_on.replay = 21, but there are 20 old rows"):
        replay_buffer(rows, 21, "stratified", seed=1)


# ---- EWC ----


def test_empirical_fisher_is_the_mean_of_squared_gradients(old: Path) -> None:
    """Row by row, by hand, from log softmax at the row's label."""
    task = load(old)
    model = task.predictor.model.double().requires_grad_(True)
    rows = task.rows[:7]
    found = fisher_diagonal(model, task.task, task.encode(rows), kind="empirical", pad_id=0, seed=1, runtime=CPU)
    sums = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for row in rows:
        ids = torch.tensor([task.encode([row]).tokens.values.tolist()])
        log = model(ids).logits.log_softmax(-1)[0, task.predictor.labels.index(row.label)]
        model.zero_grad()
        log.backward()
        for name, value in model.named_parameters():
            sums[name] += value.grad**2 / len(rows)
    model.zero_grad()
    assert found.keys() == sums.keys()
    for name, value in sums.items():
        torch.testing.assert_close(found[name], value)
    assert not model.training
    assert all(value.grad is None for value in model.parameters())


def test_true_fisher_is_the_expectation_over_the_model_s_own_labels(old: Path) -> None:
    """sum_y p(y|x) (d log p(y|x) / d theta)^2, which draws come near to; and they are the same draws each time."""
    task = load(old)
    model = task.predictor.model.double().requires_grad_(True)
    with torch.no_grad():
        model.classifier.weight.mul_(0.1)  # so that no label is nearly sure
    (row,) = task.rows[:1]
    features = task.encode([row])
    ids = torch.tensor([features.tokens.values.tolist()])
    logs = model(ids).logits.log_softmax(-1)[0]
    weight = model.classifier.weight
    expected = torch.zeros_like(weight)
    for log in logs:
        (gradient,) = torch.autograd.grad(log, weight, retain_graph=True)
        expected += log.exp().detach() * gradient**2
    draws = [
        fisher_diagonal(model, task.task, features, kind="true", pad_id=0, seed=seed, runtime=CPU)["classifier.weight"]
        for seed in (*range(80), 0)
    ]
    torch.testing.assert_close(draws[0], draws[-1], rtol=0, atol=0)
    torch.testing.assert_close(torch.stack(draws[:-1]).mean(0), expected, rtol=0.4, atol=1e-8)


@pytest.mark.parametrize("outputs", [ONE_OF_CLASSES, ANY_OF_LABELS, NUMBER, ONE_OF_ITEMS])
def test_draws_follow_the_outputs(outputs: Any) -> None:
    """Frequencies of many draws are the probabilities that the losses give."""
    generator, count = torch.Generator().manual_seed(1), 4000
    scores = torch.tensor([0.5, -0.2, 1.0], dtype=torch.float64)
    if outputs is ONE_OF_CLASSES:
        found = outputs.drawn(scores.repeat(count, 1), None, generator)
        shares, expected = found.bincount(minlength=3) / count, scores.softmax(0)
    elif outputs is ANY_OF_LABELS:
        shares, expected = outputs.drawn(scores.repeat(count, 1), None, generator).mean(0), scores.sigmoid()
    elif outputs is NUMBER:
        found = outputs.drawn(torch.full((count, 1), 2.0, dtype=torch.float64), None, generator)
        shares, expected = torch.stack([found.mean(), found.var()]), torch.tensor([2.0, 0.5])
    else:
        groups = torch.arange(count).repeat_interleave(3)
        found = outputs.drawn(scores.repeat(count)[:, None], groups, generator)
        assert found.shape == (count, 1)
        shares, expected = found[:, 0].bincount(minlength=3) / count, scores.softmax(0)
    torch.testing.assert_close(shares.double(), expected.double(), rtol=0, atol=0.04)


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_ewc_has_the_gradient_of_the_paper(old: Path, tmp_path: Path, fisher: str) -> None:
    """Kirkpatrick et al. 2017, eq. 3: F_i (theta_i - theta*_i); what was added to the head is free."""
    few = write_tsv(tmp_path / "few.tsv", OLD["classify"][:12])
    case = Case(old, ewc=3.0, fisher=fisher, old=[str(few)])
    assert case.memory.weights == {"ewc": 3.0}
    teacher = case.old.predictor.model
    teacher.requires_grad_(True)
    features = case.old.encode(case.old.rows)
    expected = fisher_diagonal(teacher, case.task, features, kind=fisher, pad_id=0, seed=1, runtime=CPU)
    batch = case.batch()
    value = case.loss()(batch)["ewc"] / batch.counts["ewc"]
    value.backward()
    total = 0.0
    for name, parameter in case.model.named_parameters():
        known = expected[name]
        moved = (parameter - case.start[name])[: len(known)]
        torch.testing.assert_close(parameter.grad[: len(known)], known * moved, rtol=1e-9, atol=1e-15)
        assert not parameter.grad[len(known) :].any()
        total += (known * moved**2).sum().item() / 2
    assert value.item() == pytest.approx(total, rel=1e-9)
    assert total > 0


def test_ewc_of_frozen_weights_is_refused(old: Path) -> None:
    task = load(old, ewc=1.0)
    model = TASKS["classify"].head.from_pretrained(old / "classify" / "model").requires_grad_(False)
    with pytest.raises(UsageError, match=r"learn_on\.ewc: all weights that the old task hangs on are frozen"):
        Memory(task, model, seed=1, batch_size=4)


@pytest.mark.parametrize("holding", [{"distill": 1.0}, {"replay": 5}])
def test_what_would_hold_on_to_nothing_beside_a_frozen_encoder_is_refused(old: Path, holding: dict[str, Any]) -> None:
    """The old head is not trained, and reads an encoder that stays as it was."""
    task = load(old, "tag", **holding)
    model = TASKS["tag"].head.from_pretrained(old / "tag" / "model")
    model.get_submodule("bert").requires_grad_(False)
    with pytest.raises(UsageError, match=rf"learn_on\.{next(iter(holding))}: the encoder is frozen"):
        Memory(task, model, seed=1, batch_size=4)


# ---- distillation ----


@pytest.mark.parametrize(("task", "of", "each"), [("classify", "tag", "tokens"), ("tag", "classify", "texts")])
def test_examples_that_are_left_out_leave_the_mean_over_the_others(old: Path, task: str, of: str, each: str) -> None:
    """Places of another head are no targets of the new one: a batch without some examples is counted anew."""
    kept = load(old, task, of=of, distill=1.0)
    model = TASKS[task].head.from_pretrained(old / task / "model")
    memory = Memory(kept, model, seed=1, batch_size=4)
    rows = TASKS[task].read(OLD[task][:4], Columns(), require_labels=True)
    features = TASKS[task].encode(rows, kept.predictor.tokenizer, labels=model.config.labels, max_length=32)
    whole = assemble(features, np.arange(4), objective=task, pad_id=0, also=("distill",))
    (batch,) = memory.batches(Due(0, 0.0, 4, 4, 0, 0), [whole], first_free_id=99)
    some, alone = batch.take([1, 3]), [batch.take([number]) for number in range(4)]
    lengths = features.tokens.lengths
    expected = {"tokens": int(lengths[[1, 3]].sum()), "texts": 2}[each]
    assert some.counts == {task: whole.take([1, 3]).counts[task], "distill": expected}
    assert batch.counts["distill"] == sum(one.counts["distill"] for one in alone)
    assert some.take([1]).counts == alone[3].counts


def test_distillation_is_the_divergence_from_the_old_model(old: Path) -> None:
    """T² sum_k p_k log(p_k / q_k) with softmax(z / T) over the old labels alone, mean over rows."""
    case = Case(old, distill=0.5, temperature=3.0)
    batch = case.batch()
    with torch.no_grad():
        before = case.task.item_outputs(case.old.predictor.model, batch)
    p = (before / 3.0).softmax(-1)
    q = (case.task.item_outputs(case.model, batch)[:, :2] / 3.0).softmax(-1)
    torch.testing.assert_close(case.loss()(batch)["distill"], 9.0 * (p * (p / q).log()).sum())


def test_distances_of_every_kind_of_output() -> None:
    torch.manual_seed(1)
    one, other = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    p, q = (one / 2).sigmoid(), (other / 2).sigmoid()
    bernoulli = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(ANY_OF_LABELS.distances(one, other, None, temperature=2.0), 4 * bernoulli.mean(-1))
    squares = (one[:, :1] - other[:, :1])[:, 0] ** 2
    torch.testing.assert_close(NUMBER.distances(one[:, :1], other[:, :1], None, temperature=2.0), squares)
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    found = ONE_OF_ITEMS.distances(one, other, groups, temperature=2.0)
    for number, part in enumerate((slice(0, 4), slice(4, 6))):
        p, q = (one[part] / 2).softmax(0), (other[part] / 2).softmax(0)
        torch.testing.assert_close(found[number], 4 * (p * (p / q).log()).sum(0).mean())


def test_nothing_hangs_on_the_cut_into_micro_batches(old: Path) -> None:
    case = Case(old, distill=0.5, ewc=2.0, fisher_rows=5)
    loss = case.loss(adversarial="fgm", l2_start=0.1)
    whole = loss(case.batch())
    assert {"classify", "adversarial", "ewc", "distill"} <= whole.keys()
    parts = [loss(case.batch(part)) for part in np.array_split(np.arange(len(case.features)), 3)]
    for objective, value in whole.items():
        torch.testing.assert_close(sum(part[objective] for part in parts), value, rtol=1e-9, atol=1e-9)


# ---- heads ----


def test_a_widened_head_says_of_old_labels_what_it_said(old: Path) -> None:
    before = Predictor.load(old / "classify", runtime=CPU).model
    after = Predictor.load(old / "classify", runtime=CPU).model
    widen(after, ("bad", "good", "more", "tom"))
    assert after.config.labels == ("bad", "good", "more", "tom")
    torch.testing.assert_close(after.classifier.weight[:2], before.classifier.weight, rtol=0, atol=0)
    torch.testing.assert_close(after.classifier.bias[:2], before.classifier.bias, rtol=0, atol=0)
    ids = torch.randint(5, 20, (7, 9))
    with torch.no_grad():
        states = [model.bert(ids).pooler_output for model in (before, after)]
        head = after.classifier
        said = F.linear(states[1], head.weight[:2], head.bias[:2])
        torch.testing.assert_close(said, before.classifier(states[0]), rtol=0, atol=0)
        # A wider product may add up in another order.
        torch.testing.assert_close(after(ids).logits[:, :2], before(ids).logits, rtol=1e-6, atol=1e-7)
    assert after.classifier.weight[2:].any()


def test_the_old_head_reads_the_new_encoder(old: Path, base: Path) -> None:
    task = load(old, "tag")
    assert task.is_separate
    assert task.known_labels == ()
    with torch.random.fork_rng():
        model = TASKS["tag"].head.from_pretrained(base, labels=("B-PLACE", "O"))
    head = task.head_on(model)
    assert head.bert.encoder is model.bert.encoder
    assert head.bert.embeddings is model.bert.embeddings
    assert head.bert.pooler is not None  # a tagger has none
    own = {name for name, value in head.named_parameters() if not value.requires_grad}
    assert own == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    torch.testing.assert_close(head.classifier.weight, task.predictor.model.classifier.weight, rtol=0, atol=0)


# ---- whole runs ----


def learn(old: Path, run: Path, *, of: str = "classify", rows: Any = None, **settings: Any) -> dict[str, Any]:
    """Go on from the old model of task `of`; what scores.json has."""
    learn_on = files(old, of) | settings.pop("learn_on", {})
    console = settings.pop("console", None) or quiet()
    chosen = recipe(**{"epochs": 4, "learn_on": learn_on} | settings)
    rows = NEW_LABEL if rows is None else rows
    test = {"fresh": rows[:10]}
    finetune(chosen, run, model=old / of, train=rows, test=test, console=console, runtime=CPU)
    found: dict[str, Any] = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return found


def test_replay_keeps_what_plain_training_forgets(old: Path, tmp_path: Path) -> None:
    plain = learn(old, tmp_path / "plain")["learned_on"]
    kept = learn(old, tmp_path / "kept", learn_on={"replay": 60})["learned_on"]
    for found in (plain, kept):
        was, new = found["table"]
        assert (was["task"], was["split"], was["metric"], was["rows"]) == ("old", "before", "macro_f1", 150)
        assert was["forgetting"] == was["before"] - was["after"] == -found["backward_transfer"]
        assert (new["task"], new["split"]) == ("new", "fresh")
        assert new["after"] > new["before"]
    assert was["before"] > 0.9
    assert plain["table"][0]["forgetting"] > 0.3
    assert kept["table"][0]["forgetting"] < plain["table"][0]["forgetting"] / 2
    model = Predictor.load(tmp_path / "kept", runtime=CPU)
    assert model.labels == ("bad", "good", "tom")
    start = next(iter(read_metrics(tmp_path / "kept" / "metrics.jsonl")))
    assert start["plan"]["examples"] == start["data"]["train_rows"] == 27 + 54
    assert start["data"]["validation_rows"] == 3 + 6
    assert start["data"]["label_counts"].keys() == {"bad", "good", "tom"}


@pytest.mark.parametrize(("of", "task"), [("classify", "tag"), ("tag", "classify"), ("classify", "classify")])
def test_another_task_gets_a_head_of_its_own(old: Path, tmp_path: Path, of: str, task: str) -> None:
    learn_on = {"replay": 20, "ewc": 5.0, "fisher_rows": 9, "distill": 1.0, "new_head": of == task}
    rows = pair_rows(60) if of == task else OLD[task]
    settings = {"task": task} | ({"pair_column": "pair"} if of == task else {})
    found = learn(old, tmp_path / "run", of=of, rows=rows, learn_on=learn_on, **settings)
    was, new = found["learned_on"]["table"]
    assert was["before"] > 0.9
    lines = [event for event in read_metrics(tmp_path / "run" / "metrics.jsonl") if event["event"] == "step"]
    assert set(lines[-1]["losses"]) == {task, "replay", "ewc", "distill"}
    assert all(value is not None for value in lines[-1]["losses"].values())
    model = Predictor.load(tmp_path / "run", runtime=CPU)
    assert model.task.name == task
    assert was["metric"] == TASKS[of].default_metric
    assert new["rows"] == 10


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_stopped_and_resumed_equals_never_stopped(
    old: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With buffer, EWC and distillation, in one head and in two, dropout on."""
    learn_on = {"replay": 10, "ewc": 5.0, "fisher_rows": 9, "distill": 1.0}
    rows = NEW_LABEL if task == "classify" else OLD["tag"]
    settings = {"task": task, "dropout": 0.1, "epochs": 2, "learn_on": learn_on}
    learn(old, tmp_path / "straight", rows=rows, **settings)

    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    chosen = recipe(**settings | {"learn_on": files(old) | learn_on})
    arguments: dict[str, Any] = {
        "model": old / "classify",
        "train": rows,
        "test": {"fresh": rows[:10]},
        "console": quiet(),
        "runtime": CPU,
    }
    with pytest.raises(Stopped):
        finetune(chosen, tmp_path / "resumed", on_evaluation=stop, **arguments)
    finetune(chosen, tmp_path / "resumed", **arguments)
    ours, theirs = ((tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("straight", "resumed"))
    assert ours == theirs


def test_a_changed_buffer_or_old_table_starts_again(old: Path, tmp_path: Path) -> None:
    console = quiet()
    learn(old, tmp_path / "run", epochs=1, learn_on={"replay": 5}, console=console)
    learn(old, tmp_path / "run", epochs=1, learn_on={"replay": 5}, console=console)
    assert "done before" in spoken(console)
    learn(old, tmp_path / "run", epochs=1, learn_on={"replay": 6}, console=console)
    assert "starting again" in spoken(console)
    assert "6 of 150 old rows replayed" in spoken(console)


# ---- wrong input ----


def test_wrong_old_rows_and_models_are_told(old: Path, base: Path, tmp_path: Path) -> None:
    stranger = write_tsv(tmp_path / "stranger.tsv", [("so kind", "good"), ("so mean", "ugly")])
    with pytest.raises(DataError, match=r"unknown label 'ugly'; the model knows: bad, good") as caught:
        learn(old, tmp_path / "run", learn_on={"old": [str(stranger)]})
    assert f"{stranger}:3" in str(caught.value)
    with pytest.raises(UsageError, match=r"learn_on\.replay = 151, but there are 150 old rows"):
        learn(old, tmp_path / "run", learn_on={"replay": 151})
    settings = recipe(learn_on=files(old))
    with pytest.raises(CheckpointError, match="has no head of a task"):
        finetune(settings, tmp_path / "run", model=base, train=NEW_LABEL, console=quiet(), runtime=CPU)
    with pytest.raises(UsageError, match="reads single texts and the new rows are pairs of texts"):
        learn(old, tmp_path / "run", rows=pair_rows(20), pair_column="pair")
    with pytest.raises(UsageError, match="the old model's come first: bad, good"):
        learn(old, tmp_path / "run", labels=["tom", "bad", "good"])
    for key, value in (("pooling", "mean"), ("head_layers", 1)):
        with pytest.raises(UsageError, match=rf"{key} = {value!r}, but the old head has .*learn_on\.new_head = true"):
            learn(old, tmp_path / "run", **{key: value})
    given = recipe(learn_on=files(old))
    with pytest.raises(UsageError, match="random weights know nothing"):
        finetune(given, tmp_path / "run", model=old / "classify", random_weights=True, train=NEW_LABEL, console=quiet())
    assert not (tmp_path / "run").exists()


def test_wrong_keys_are_told(old: Path) -> None:
    for key in ("replay", "ewc"):
        with pytest.raises(RecipeError, match=rf"{key} reads old rows; set learn_on\.old"):
            recipe(learn_on={key: 3})
    with pytest.raises(RecipeError, match="baselines has 'random-weights'"):
        recipe(baselines=["random-weights"], learn_on=files(old))


def test_what_a_model_cannot_say_to_other_rows_is_not_distilled(base: Path, tmp_path: Path) -> None:
    chosen = recipe(task="choose", epochs=1)
    finetune(chosen, tmp_path / "choose", model=base, train=choice_rows(20), console=quiet(), runtime=CPU)
    settings = recipe(learn_on={"distill": 1.0})
    with pytest.raises(UsageError, match="a model of task 'choose' has nothing to say to rows of another"):
        finetune(settings, tmp_path / "run", model=tmp_path / "choose", train=NEW_LABEL, console=quiet(), runtime=CPU)


def test_searches_and_folds_do_not_learn_on(old: Path, tmp_path: Path) -> None:
    chosen = recipe(learn_on=files(old))
    with pytest.raises(UsageError, match=r"a search takes no \[finetune\.learn_on\]"):
        search(chosen, tmp_path / "search", model=old / "classify", train=NEW_LABEL, console=quiet())
    with pytest.raises(UsageError, match=r"\[finetune\.learn_on\] goes with no head of one's own and with no folds"):
        cross_validate(
            chosen, tmp_path / "folds", folds=2, model=old / "classify", train=OLD["classify"], console=quiet()
        )


def test_known_labels_come_first_and_one_new_label_will_do() -> None:
    task = TASKS["classify"]

    def labels(rows: list[tuple[str, str]], *declared: str) -> tuple[str, ...]:
        config = FinetuneConfig(labels=declared, validation_share=0.5)
        return read_splits(config, task, seed=1, train=rows, known=("old", "b")).labels

    rows = [("one text", "tom"), ("two texts", "tom"), ("three", "tom")]
    assert labels(rows) == ("old", "b", "tom")
    assert labels([*rows, ("four", "ann"), ("five", "b")]) == ("old", "b", "ann", "tom")
    assert labels(rows, "old", "b", "zoe", "tom") == ("old", "b", "zoe", "tom")
    with pytest.raises(DataError, match="unknown label 'tom'; the model knows: old, b, zoe"):
        labels(rows, "old", "b", "zoe")
