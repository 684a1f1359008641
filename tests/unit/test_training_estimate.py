"""What a recipe will take: parameters, memory against what autograd keeps, arithmetic, time, and the verb `plan`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.config import PretrainConfig, parse_recipe
from bertsmith.errors import UsageError
from bertsmith.examples.batches import PretrainData
from bertsmith.model import BertForMaskedLM, BertForPreTraining, preset
from bertsmith.model.config import BertConfig
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.batch_flops import flops_of
from bertsmith.training.estimate import Estimate, estimate
from bertsmith.training.freeze import freeze
from bertsmith.training.gpus import GPUS, gpu_estimates
from bertsmith.training.inventory import inventory, sizes
from bertsmith.training.memory import memory
from bertsmith.training.objectives import loss_sums_of
from bertsmith.training.trial import made_up_batches
from pretrain_case import Made, make_examples
from training_case import CPU


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_examples(tmp_path_factory.mktemp("made"))


# ---- parameters ----


def test_every_tensor_once_with_its_group_and_sums_over_parts() -> None:
    config = preset("tiny", {"vocab_size": 100})
    model = BertForPreTraining(config)
    freeze([model], ["embeddings"])
    entries = {entry.name: entry for entry in inventory(model)}
    assert {name: entry.shape for name, entry in entries.items()} == {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }
    groups = {
        "bert.embeddings.word_embeddings.weight": "frozen",
        "bert.encoder.layer.1.output.dense.weight": "decay",
        "bert.encoder.layer.1.output.dense.bias": "no decay",
        "bert.encoder.layer.1.output.LayerNorm.weight": "no decay",
        "cls.seq_relationship.weight": "decay",
    }
    assert {name: entries[name].group for name in groups} == groups
    found = sizes(entries.values())
    assert found["all"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["all"] == found["embeddings"] + config.num_hidden_layers * found["layer"] + found["head"]
    assert found["trained"] == found["all"] - found["embeddings"]


# ---- memory ----


def _kept_bytes(config: BertConfig, dtype: torch.dtype, *, rows: int, length: int) -> tuple[int, int, int]:
    """What autograd keeps for the backward pass, each storage once, without the weights; the masks; the parameters."""
    model = BertForPreTraining(config).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that its place is not used again
        return tensor

    settings = PretrainConfig(max_steps=1)
    (batch,) = made_up_batches(settings, config, length=length, batch_size=rows, micro_batch_size=rows)(0)
    loss_sums = loss_sums_of(model, model.masked_states, skips_mask=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        sums = loss_sums(batch)
    assert sums["mlm"].requires_grad
    kept_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return kept_bytes, batch.counts["mlm"], sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("layers", [2, 4])
def test_activations_are_what_autograd_keeps(dtype: torch.dtype, dropout: float, layers: int) -> None:
    sizes = {"vocab_size": 500, "hidden_size": 128, "num_hidden_layers": layers}
    config = preset("tiny", {**sizes, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout})
    kept, masks, parameters = _kept_bytes(config, dtype, rows=8, length=96)
    found = memory(
        config, parameters=parameters, trained=parameters, rows=8, length=96, masks=masks, dtype_bytes=dtype.itemsize
    )
    assert found.activations + 4 * 500 * 128 == pytest.approx(kept, rel=0.05)
    assert (found.weights, found.gradients, found.optimizer) == (4 * parameters, 4 * parameters, 8 * parameters)


def test_less_is_kept_with_activation_checkpointing_and_sgd_and_frozen_parts() -> None:
    config = preset("small")
    same: dict[str, Any] = {"parameters": 1000, "rows": 32, "length": 128, "masks": 600, "dtype_bytes": 4}
    whole, less = memory(config, trained=1000, **same), memory(config, trained=1000, checkpointing=True, **same)
    assert less.activations < whole.activations / 2
    assert memory(config, trained=10, optimizer="sgd", **same).optimizer == 40
    assert whole.total == (whole.weights + whole.gradients + whole.optimizer + whole.activations + whole.vocabulary)


# ---- GPUs ----


def test_the_table_of_gpus_is_its_arithmetic() -> None:
    flops = 989e12 * 0.5 * 3600  # an hour of one H100 at half its peak
    rows = gpu_estimates(flops, memory_bytes=30_000_000_000, mfu=0.5, efficiency=0.8, counts=(1, 4), prices={"H100": 2})
    found = {(row.gpu, row.count): row for row in rows}
    assert found["H100", 1].seconds == pytest.approx(3600)
    assert found["H100", 1].dollars == pytest.approx(2)
    assert found["H100", 4].seconds == pytest.approx(3600 / 3.2)
    assert found["H100", 4].dollars == pytest.approx(2 / 0.8)
    assert found["A100", 1].dollars == pytest.approx(989 / 312 * GPUS["A100"].dollars_per_hour)
    assert found["H100", 1].fits
    assert not found["L4", 1].fits


# ---- batches that are made up ----


@pytest.mark.parametrize("objectives", [["mlm"], ["mlm", "nsp"], ["sop"], ["mlm", "agreement", "smoothness"]])
def test_made_up_batches_are_full_and_train(objectives: list[str]) -> None:
    settings = PretrainConfig(max_steps=1, objectives=objectives)
    config = preset("tiny", {"vocab_size": 50, "num_hidden_layers": 1})
    batches = made_up_batches(settings, config, length=20, batch_size=7, micro_batch_size=3)(0)
    assert [batch.num_tokens for batch in batches] == [60, 60, 20]
    model = (BertForPreTraining if "sop" in objectives or "nsp" in objectives else BertForMaskedLM)(config)
    for batch in batches:
        assert set(batch.counts) == set(objectives)
        sums = loss_sums_of(model, model.masked_states, skips_mask=True)(batch)
        assert set(sums) == set(objectives)
        assert all(torch.isfinite(value) for value in sums.values())
        if "mlm" in objectives:
            assert batch.counts["mlm"] == len(batch.masked_labels) == len(batch.input_ids) * 3


# ---- the whole ----


def _estimate(made: Made, folder: Path, seconds: float = 0.0, **pretrain: Any) -> Estimate:
    return estimate(made.recipe(**pretrain), folder, runtime=CPU, seconds=seconds)


def test_a_recipe_that_was_never_run(made: Made, tmp_path: Path) -> None:
    found = _estimate(made, tmp_path / "nothing")
    (phase,) = found.phases
    assert found.model.vocab_size == 200
    assert (phase.steps, phase.epochs, phase.tokens_per_step) == (12, None, 8 * 32)
    assert phase.tokens == 12 * 8 * 32
    assert phase.trial is None
    assert found.seconds is None
    assert any("200 entries are assumed" in note for note in found.notes)
    assert any("are not built yet" in note for note in found.notes)
    assert not (tmp_path / "nothing").exists()


def test_a_recipe_whose_examples_are_there(made: Made) -> None:
    found = _estimate(made, made.examples.parent)
    (phase,) = found.phases
    tokenizer = Tokenizer.load(made.tokenizer)
    data = PretrainData(made.examples, split="train", tokenizer=tokenizer, seed=42)
    batches = [batch for step in range(16) for batch in data.batch(step, 8, 4)]
    assert found.model.vocab_size == tokenizer.vocab_size
    assert phase.tokens_per_step == pytest.approx(sum(batch.num_tokens for batch in batches) / 16)
    flops = flops_of(found.model)
    assert phase.flops_per_token * phase.tokens_per_step == pytest.approx(sum(map(flops, batches)) / 16)
    assert phase.flops == pytest.approx(12 * phase.flops_per_token * phase.tokens_per_step)
    assert phase.epochs == pytest.approx(12 * 8 / data.num_examples)
    assert phase.evaluations == 3
    assert not found.notes


def test_time_is_made_of_measured_steps_and_evaluations(made: Made, tmp_path: Path) -> None:
    found = _estimate(made, made.examples.parent, seconds=0.5)
    (phase,) = found.phases
    assert phase.trial is not None
    assert phase.trial.steps >= 5
    assert phase.trial.note == "eager: too short a run to pay for torch.compile"
    assert phase.evaluation_seconds is not None
    once = max(phase.trial.first_seconds - phase.trial.step_seconds, 0)
    expected = once + 12 * phase.trial.step_seconds + 3 * phase.evaluation_seconds
    assert found.seconds == phase.seconds == pytest.approx(expected)


def test_the_trial_is_of_the_step_that_the_run_makes(made: Made) -> None:
    """Layers that are recomputed in the backward pass run their products twice, in the trial as in the run."""
    calls: list[bool] = []

    def count(module: torch.nn.Module, *_: object) -> None:
        if isinstance(module, torch.nn.Linear):
            calls.append(True)

    numbers = []
    for recomputes in (False, True):
        handle = torch.nn.modules.module.register_module_forward_hook(count)
        calls.clear()
        try:
            found = _estimate(made, made.examples.parent, seconds=0.1, activation_checkpointing=recomputes)
        finally:
            handle.remove()
        trial = found.phases[0].trial
        assert trial is not None
        numbers.append(len(calls) / (trial.steps + 3))
    assert numbers[1] > 1.3 * numbers[0]


def test_a_budget_is_spent_and_phases_are_added_up(made: Made, tmp_path: Path) -> None:
    phases = [{"max_steps": 4, "freeze": ["embeddings"]}, {"budget_minutes": 1, "max_length": 16, "name": "short"}]
    found = _estimate(made, made.examples.parent, seconds=0.3, max_steps=None, phases=phases)
    first, second = found.phases
    assert (first.name, second.name) == ("phase 1", "short")
    assert first.source != second.source == "made-up full examples"
    assert second.seconds == pytest.approx(60, rel=0.1)
    assert second.steps is not None
    assert found.seconds == pytest.approx((first.seconds or 0) + (second.seconds or 0))
    assert found.flops == pytest.approx((first.flops or 0) + (second.flops or 0))
    assert second.memory.optimizer > first.memory.optimizer
    assert found.sizes["trained"] == found.sizes["all"], "what is frozen in one phase alone trains in the other"


def test_batches_that_choose_themselves_or_grow_are_planned_for(made: Made) -> None:
    settings = {"batch_size": "auto", "micro_batch_size": "auto", "batch_size_rampup": (2, 0.5), "max_steps": 1000}
    found = _estimate(made, made.examples.parent, seconds=0.1, **settings)
    (phase,) = found.phases
    assert (phase.batch_size, phase.micro_batch_size) == (4, 4)
    assert phase.trial is not None
    assert "how many of 4 examples fit at once is found when the run begins: here, all" in found.notes
    assert "batches are reckoned at 4 examples throughout, though they are to grow" in found.notes


def test_nothing_to_plan_without_pretraining() -> None:
    recipe = parse_recipe({"name": "x", "finetune": {"model": "m", "train": "t"}})
    with pytest.raises(UsageError, match="no \\[pretrain\\] section; there is nothing to plan"):
        estimate(recipe, Path("x"), runtime=CPU, seconds=0)


# ---- the verb ----


def _invoke(made: Made, folder: Path, *options: str) -> tuple[int, str]:
    recipe = folder / "tiny.toml"
    recipe.write_text(tomli_w.dumps({**made.raw, "runtime": {"dtype": "float32"}}), encoding="utf-8")
    result = CliRunner().invoke(
        app, ["plan", str(recipe), "--runs", str(folder / "runs"), "--seconds", "0.2", *options]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_verb_says_it_all(made: Made, tmp_path: Path) -> None:
    code, printed = _invoke(made, tmp_path, "--parameters", "--schedule", "--gpus", "1,3", "--mfu", "0.2")
    assert code == 0
    for text in (
        *("12 steps of 8 x 32 tokens", "M a token", "on this machine, of which 3 evaluations", "2 x [ L (4 h^2"),
        *("weights 4 P", "H100", "RTX 4090", "x 3", "20% of them reached", "none of it is measured", "learning rate"),
        *("bert.embeddings.word_embeddings.weight", "200 x 16", "no decay", "are not built yet"),
    ):
        assert text in printed, text
    assert not (tmp_path / "runs").exists()


def test_the_verb_for_programs(made: Made, tmp_path: Path) -> None:
    code, printed = _invoke(made, tmp_path, "--json", "--price", "L4=1.5")
    assert code == 0
    found = json.loads(printed[printed.index("{") :])
    assert found["phases"][0]["steps"] == 12
    assert found["phases"][0]["memory"]["total"] > found["phases"][0]["memory"]["weights"]
    assert found["seconds"] > 0
    assert len(found["gpus"]) == 3 * len(GPUS)
    one = next(row for row in found["gpus"] if (row["gpu"], row["count"]) == ("L4", 1))
    assert one["dollars"] == pytest.approx(one["seconds"] / 3600 * 1.5)
    assert sum(tensor["group"] != "frozen" for tensor in found["tensors"]) == len(found["tensors"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "1,two"), "--gpus '1,two': give whole numbers"),
        (("--price", "H100"), "give GPU=DOLLARS"),
        (("--price", "H1000=3"), "there is no such GPU in the table; it has B200"),
    ],
)
def test_wrong_options_are_refused(made: Made, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _invoke(made, tmp_path, *options)


def test_nothing_is_left_of_a_trial(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in made.examples.parent.rglob("*")}
    estimate(made.recipe(), made.examples.parent, runtime=replace(CPU), seconds=0.2)
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in made.examples.parent.rglob("*")} == before
