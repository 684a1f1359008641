"""Long texts in windows: nothing is lost, answers are those of a hand-written loop, short texts are as without."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.errors import RecipeError, UsageError
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TrainingBatches, assemble
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.multilabel import Multilabel
from bertsmith.tasks.predict import Predictor, compute_outputs
from bertsmith.tasks.regress import Regress
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.texts import encode_windows
from bertsmith.tasks.training_loss import TrainingLoss
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, FILLERS, multilabel_rows, quiet, recipe, text_rows, tiny_config, write_tiny_model

LONG = ["lovely the day", " ".join(FILLERS[:8] * 4), " ".join([*FILLERS[:6] * 3, "awful"]), "bright " * 11]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.load(base)


@settings(max_examples=60)
@given(
    words=st.lists(st.integers(0, 60), min_size=1, max_size=5), max_length=st.integers(8, 20), stride=st.integers(0, 9)
)
def test_windows_hold_every_token_and_share_the_stride(
    tokenizer: Tokenizer, words: list[int], max_length: int, stride: int
) -> None:
    rows = [TextRow(" ".join((FILLERS[:8] * 8)[:count]), None, 1) for count in words]
    whole = tokenizer.encode_ids([row.text for row in rows])
    found = encode_windows(rows, tokenizer, max_length=max_length, stride=stride, max_windows=None)
    room, shared = max_length - 2, min(stride, (max_length - 2) // 2)
    assert len(found) == len(rows)
    assert found.starts is not None
    for number, ids in enumerate(whole):
        first, last = found.starts[number : number + 2].tolist()
        pieces = [
            found.tokens.values[slice(*found.tokens.starts[n : n + 2])].tolist()[1:-1] for n in range(first, last)
        ]
        assert pieces[0] + [token for piece in pieces[1:] for token in piece[shared:]] == ids
        assert len(pieces) == 1 or all(len(piece) == room for piece in pieces[:-1])
        assert len(pieces) == 1 or len(pieces[-1]) > shared
    assert found.cut_tokens.sum() == 0
    assert found.items.lengths.sum() == len(rows)


def test_what_follows_the_last_window_allowed_is_cut_and_counted(tokenizer: Tokenizer) -> None:
    rows = [TextRow("the " * 30, None, 1), TextRow("the", None, 2)]
    found = encode_windows(rows, tokenizer, max_length=10, stride=2, max_windows=2)
    assert found.widths.tolist() == [2, 1]
    assert found.cut_tokens.tolist() == [0, 30 - 8 - 6, 0]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_same_as_a_loop_over_transformers(base: Path, tokenizer: Tokenizer, tmp_path: Path, pooling: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = tiny_config(tokenizer.vocab_size).with_labels(("a", "b", "c"))
    torch.manual_seed(3)
    ours = BertForSequenceClassification(config).eval()
    ours.save_pretrained(tmp_path)
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    task: Classify = Classify().with_options(windows=pooling, stride=3)
    rows = [TextRow(text, None, line) for line, text in enumerate(LONG, start=1)]
    features = task.encode(rows, tokenizer, labels=None, max_length=12)
    outputs = compute_outputs(ours, features, task, pad_id=tokenizer.pad_id, runtime=CPU, batch_tokens=48)
    expected = []
    for ids in tokenizer.encode_ids(LONG):
        windows, start = [], 0
        while True:
            window = [tokenizer.cls_id, *ids[start : start + 10], tokenizer.sep_id]
            with torch.no_grad():
                windows.append(theirs(torch.tensor([window])).logits[0])
            if start + 10 >= len(ids):
                break
            start += 7
        logits = torch.stack(windows)
        expected.append(logits.mean(0) if pooling == "mean" else logits.max(0).values)
    torch.testing.assert_close(torch.from_numpy(outputs), torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_gradients_are_those_of_the_pooled_loss_in_micro_batches_of_any_size(
    base: Path, tokenizer: Tokenizer, pooling: Any
) -> None:
    torch.manual_seed(3)
    model = BertForSequenceClassification(tiny_config(tokenizer.vocab_size).with_labels(("a", "b"))).double().eval()
    task: Classify = Classify().with_options(windows=pooling, stride=3)
    rows = [TextRow(text, "ab"[line % 2], line) for line, text in enumerate(LONG)]
    features = task.encode(rows, tokenizer, labels=("a", "b"), max_length=12)
    config = recipe().finetune
    assert config is not None
    loss = TrainingLoss(task, model, config, _plain())
    found = []
    for size in (4, 1):
        model.zero_grad()
        for start in range(0, 4, size):
            batch = assemble(features, np.arange(start, start + size), objective="classify", pad_id=tokenizer.pad_id)
            assert batch.counts == {"classify": size}
            (loss(batch)["classify"] / 4).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def _plain() -> Any:
    from bertsmith.tasks.losses import Shape

    return Shape()


@pytest.mark.parametrize(
    ("task", "labels"), [(Classify(), ("a", "b")), (Multilabel(), ("a", "b")), (Regress(), ("value",))]
)
def test_short_texts_are_as_without_windows(
    base: Path, tokenizer: Tokenizer, task: Task[Any, Any], labels: tuple[str, ...]
) -> None:
    """To the last bit: outputs, and the gradients of a training batch."""
    torch.manual_seed(3)
    model = BertForSequenceClassification(tiny_config(tokenizer.vocab_size).with_labels(labels)).eval()
    config = recipe().finetune
    assert config is not None
    own: dict[str, Any] = {"classify": "a", "multilabel": ("b",), "regress": 2.5}
    rows = [TextRow(text, own[task.name], line) for line, (text, _) in enumerate(text_rows(12))]
    found = []
    for windows in (None, "mean", "max"):
        chosen = task.with_options(windows=windows)
        features = chosen.encode(rows, tokenizer, labels=labels, max_length=16)
        outputs = compute_outputs(model, features, chosen, pad_id=tokenizer.pad_id, runtime=CPU)
        batches = TrainingBatches(features, objective=task.name, pad_id=tokenizer.pad_id, batch_size=5, seed=1)
        model.zero_grad()
        (batch,) = batches.batch(0)
        TrainingLoss(chosen, model, config, _plain())(batch)[task.name].backward()
        grads = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        found.append((outputs, grads))
    for outputs, grads in found[1:]:
        assert np.array_equal(outputs, found[0][0])
        assert all(map(torch.equal, grads, found[0][1]))


def test_a_word_past_the_first_window_is_learned_and_the_predictor_reads_it_too(base: Path, tmp_path: Path) -> None:
    """The telling word stands behind twenty others, where a text that is cut has nothing."""
    rows = [(" ".join(["the"] * 18) + " " + text, label) for text, label in text_rows(120)]
    scores = {}
    for windows in ({}, {"windows": "max", "stride": 0}):
        run_dir = tmp_path / f"run-{len(windows)}"
        chosen = recipe(epochs=14, **windows)
        finetune(chosen, run_dir, model=base, train=rows[:90], console=quiet(), runtime=CPU)
        scores[len(windows)] = evaluate(Predictor.load(run_dir, runtime=CPU), rows[90:]).scores["accuracy"]
    assert scores[0] < 0.8 < scores[2]
    predictor = Predictor.load(tmp_path / "run-2", runtime=CPU)
    assert predictor.task.options == {"windows": "max", "stride": 0, "max_windows": None}
    (long,) = predictor.predict([rows[0][0]])
    assert long.label == rows[0][1]
    with pytest.raises(UsageError, match="single texts"):
        predictor.predict([("the", "day")])


def test_several_labels_and_numbers_learn_in_windows(base: Path, tmp_path: Path) -> None:
    many = multilabel_rows(40)
    chosen = recipe(task="multilabel", windows="max", stride=2, max_length=8, epochs=1)
    found = finetune(chosen, tmp_path / "a", model=base, train=many, console=quiet(), runtime=CPU)
    assert set(found.scores) == {"validation"}
    rated = [(text, float(label == "good")) for text, label in text_rows(40)]
    chosen = recipe(task="regress", windows="mean", stride=2, max_length=8, epochs=1, max_windows=2)
    assert finetune(chosen, tmp_path / "b", model=base, train=rated, console=quiet(), runtime=CPU).scores


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"windows": "median"}, "finetune.windows: Input should be 'mean' or 'max'"),
        ({"windows": "mean", "task": "tag"}, "task = 'tag' takes no windows; that is of classify, multilabel, regress"),
        ({"windows": "mean", "pair_column": "b"}, "windows are for single texts"),
        ({"max_windows": 3}, "max_windows is of use only with windows"),
    ],
)
def test_wrong_keys(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(**given)
