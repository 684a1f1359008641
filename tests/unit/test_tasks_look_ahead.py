"""What is said before training: counts, lengths, what is cut, and a predicted time that leaves the run as it is."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.model.flops import train_flops
from bertsmith.tasks import finetune as room
from bertsmith.tasks.batches import TrainingBatches
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.epoch_time import EpochTime, epoch_flops, predict_epoch
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.lengths import lengths_of, row_lengths
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.training_loss import TrainingLoss
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, quiet, recipe, spoken, text_rows, tiny_config, write_tiny_model, write_tsv


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@given(counts=st.lists(st.integers(2, 900), min_size=1, max_size=300), positions=st.sampled_from((32, 128, 512)))
def test_the_advised_length_is_the_smallest_multiple_of_8_that_holds_99_percent(
    counts: list[int], positions: int
) -> None:
    lengths = np.array(counts)
    found = lengths_of(lengths, positions=positions)
    assert found.advised % 8 == 0
    assert found.advised <= positions
    held = (lengths <= found.advised).mean()
    assert held >= 0.99 or found.advised == positions
    assert found.advised == 8 or (lengths <= found.advised - 8).mean() < 0.99
    assert found.cut_share == pytest.approx(1 - held)
    assert found.places["longest"] == max(counts)
    ordered = list(found.places.values())
    assert ordered == sorted(ordered)


def test_lengths_are_those_before_anything_was_cut(base: Path) -> None:
    tokenizer = Tokenizer.load(base)
    rows = [TextRow("the " * count, "a", 1) for count in (3, 10, 40)]
    features = Classify().encode(rows, tokenizer, labels=("a",), max_length=16)
    assert row_lengths(features).tolist() == [5, 12, 42]


def test_the_flops_of_an_epoch_are_those_of_its_rows_each_cut() -> None:
    config = tiny_config(30)
    expected = sum(train_flops(config, tokens=n, length=n, pooled=1) for n in (5, 12, 16, 16))
    assert epoch_flops(np.array([5, 12, 16, 40]), config, 16) == pytest.approx(expected)


def test_a_prediction_is_of_every_length_the_model_has_and_leaves_nothing_behind(base: Path) -> None:
    tokenizer, labels = Tokenizer.load(base), ("bad", "good")
    config = tiny_config(tokenizer.vocab_size).with_labels(labels)
    task, settings = Classify(), recipe().finetune
    assert settings is not None
    model = task.head(config)
    rows = [TextRow(text, label, line) for line, (text, label) in enumerate(text_rows(64))]
    features = task.encode(rows, tokenizer, labels=labels, max_length=16)
    batches = TrainingBatches(features, objective="classify", pad_id=tokenizer.pad_id, batch_size=8, seed=1)
    loss = TrainingLoss(task, model, settings, Shape())
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    given: dict[str, Any] = {"micro_batch_size": 4, "max_length": 16, "runtime": CPU}
    found = predict_epoch(loss, model, config.replace(max_position_embeddings=128), batches, total_steps=300, **given)
    assert found is not None
    assert found.updates == 2
    assert list(found.seconds) == [16, 64, 128]
    assert 0 < found.seconds[16] <= found.seconds[64] <= found.seconds[128]
    assert re.fullmatch(
        r"\d:\d\d:\d\d at max_length = 16 or more \(predicted from 2 updates; without evaluations\)", str(found)
    )
    told = str(EpochTime({16: 61.0, 64: 90.0, 128: 120.0, 256: 120.0}, 1, longest=100))
    assert told.startswith(
        "0:01:01 at max_length = 16, 0:01:30 at max_length = 64, 0:02:00 at max_length = 128 or more ("
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert predict_epoch(loss, model, config, batches, total_steps=99, **given) is None


def test_a_run_is_the_same_to_the_last_bit_with_and_without(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for number, tried in enumerate((True, False)):
        if not tried:
            monkeypatch.setattr(room, "predict_epoch", lambda *_, **__: None)
        console = quiet()
        chosen = recipe(epochs=20, dropout=0.1, evaluate_every=50)
        finetune(chosen, tmp_path / str(number), model=base, train=text_rows(40), console=console, runtime=CPU)
        assert ("an epoch   " in spoken(console)) == tried
        weights.append(load_file(tmp_path / str(number) / "last/model.safetensors"))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_is_said_before_training(base: Path, tmp_path: Path) -> None:
    console = quiet()
    rows = [("the " * 30, "good"), *text_rows(59)]
    finetune(recipe(epochs=1), tmp_path / "a", model=base, train=rows, console=console, runtime=CPU)
    said = spoken(console)
    assert "rows       54 to train on, 6 to choose by; " in said
    assert "max_length = 16 cuts 1.9% of the rows" in said
    assert "advised    max_length = 32 cuts 0.0% of the rows" in said
    console = quiet()
    windows = recipe(epochs=1, windows="mean", stride=2)
    finetune(windows, tmp_path / "b", model=base, train=rows, console=console, runtime=CPU)
    assert "windows    56 of 54 train rows" in spoken(console)
    assert "advised" not in spoken(console)


def test_a_table_is_looked_at_with_a_model(base: Path, tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "moods.tsv", text_rows(1300))
    shown = CliRunner().invoke(app, ["data", "show", str(path), "--model", str(base)])
    assert shown.exit_code == 0, shown.output
    assert "tokens     50 % have at most " in shown.stdout
    assert "advised    max_length = 16 cuts 0.0% of the rows" in shown.stdout
    assert re.search(r"an epoch   \d:\d\d:\d\d at max_length = 16 or more \(predicted from 1 update; ", shown.stdout)
