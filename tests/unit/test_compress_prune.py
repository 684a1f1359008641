"""Pruning: importance is its formula, a cut model the whole one with parts switched off, and a bad one is refused."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bertsmith.artifact import write_text
from bertsmith.cli import app
from bertsmith.compress.cut import Cut, choose_cut, pruned
from bertsmith.compress.importance import Importance, measure_importance
from bertsmith.compress.outcome import Outcome
from bertsmith.compress.prune import prune
from bertsmith.config import recipe_toml
from bertsmith.errors import BertsmithError, CheckpointError, UsageError
from bertsmith.model import BertConfig, BertForSequenceClassification
from bertsmith.model.encoder import encoder_of
from bertsmith.model.flops import forward_flops
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch, evaluation_batches
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import TASKS, Predictor
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, quiet, recipe, text_rows, write_tiny_model

CONFIG = BertConfig(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=16,
    initializer_range=0.3,
)
IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 5, 6, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


def model_of(config: BertConfig = CONFIG) -> Pretrained:
    torch.manual_seed(3)
    return BertForSequenceClassification(config).double().eval()


def logits(model: Pretrained) -> Tensor:
    with torch.no_grad():
        return model(IDS, MASK).logits


@contextmanager
def scaled(model: Pretrained, factors: dict[tuple[int, str], Tensor]) -> Iterator[None]:
    """With a layer's heads or neurons multiplied by what is given: (parts,) or (batch, 1, parts)."""

    def hook(factor: Tensor) -> Any:
        def on_output(_module: object, _inputs: object, output: Any) -> Any:
            state = output[0] if isinstance(output, tuple) else output
            wide = factor.repeat_interleave(state.shape[-1] // factor.shape[-1], dim=-1)
            return (state * wide, *output[1:]) if isinstance(output, tuple) else state * wide

        return on_output

    with ExitStack() as hooks:
        for (layer, part), factor in factors.items():
            found = encoder_of(model).layer[layer]
            module = found.attention.self if part == "heads" else found.intermediate
            hooks.callback(module.register_forward_hook(hook(factor)).remove)
        yield


def switched_off(total: int, kept: tuple[int, ...]) -> Tensor:
    return torch.zeros(total, dtype=torch.float64).index_fill(0, torch.tensor(kept), 1.0)


def test_a_cut_model_is_the_whole_one_with_parts_switched_off() -> None:
    model = model_of()
    heads, neurons = ((0, 2), (1,), (0, 1, 2, 3)), (tuple(range(16)), tuple(range(4, 20)), tuple(range(8, 24)))
    factors = {(layer, "heads"): switched_off(4, heads[layer]) for layer in range(3)}
    factors |= {(layer, "neurons"): switched_off(24, neurons[layer]) for layer in range(3)}
    with scaled(model, factors):
        wanted = logits(model)
    smaller = pruned(model, Cut((0, 1, 2), heads, neurons)).double()
    torch.testing.assert_close(logits(smaller), wanted, rtol=1e-6, atol=1e-7)
    assert smaller.config.layer_heads == (2, 1, 4)
    assert smaller.config.intermediate_size == 16


def test_layers_are_cut_whole() -> None:
    model = model_of()
    every = (tuple(range(4)),) * 2, (tuple(range(24)),) * 2
    smaller = pruned(model, Cut((0, 2), *every)).double()
    assert smaller.config == CONFIG.replace(num_hidden_layers=2)
    encoder_of(model).layer = torch.nn.ModuleList([encoder_of(model).layer[0], encoder_of(model).layer[2]])
    torch.testing.assert_close(logits(smaller), logits(model), rtol=1e-6, atol=1e-7)


def test_importance_is_the_derivative_by_a_factor_at_each_part() -> None:
    model, task = model_of(), TASKS["classify"]
    labels = torch.tensor([0, 1])
    counts = {"classify": 2}
    batch = TaskBatch(IDS, MASK, None, torch.tensor([0, 5]), labels, counts, 9, 0.0, (0, 1))
    found = measure_importance(model, task, [batch])
    assert found.rows == 2
    for layer in range(3):
        for part, number in (("heads", 4), ("neurons", 24)):
            factor = torch.ones(2, 1, number, dtype=torch.float64, requires_grad=True)
            with scaled(model, {(layer, part): factor}):
                task.loss_sum(model, batch).backward()
            assert factor.grad is not None
            wanted = factor.grad.squeeze(1).abs().mean(0)
            torch.testing.assert_close(getattr(found, part)[layer].double(), wanted, rtol=1e-5, atol=1e-8)


def test_a_layer_that_does_nothing_is_worth_nothing() -> None:
    model = model_of()
    layer = encoder_of(model).layer[1]
    with torch.no_grad():  # its halves add nothing to what comes in, which the layer before has normalised
        for dense in (layer.attention.output.dense, layer.output.dense):
            dense.weight.zero_()
            dense.bias.zero_()
    batch = TaskBatch(IDS, MASK, None, torch.tensor([0, 5]), torch.tensor([0, 1]), {"classify": 2}, 9, 0.0, (0, 1))
    importance = measure_importance(model, TASKS["classify"], [batch])
    assert importance.layers[1] < 1e-6 * importance.layers[[0, 2]].min()
    assert choose_cut(CONFIG, importance, layers=2).layers == (0, 2)


def made_up() -> Importance:
    return Importance(
        layers=torch.tensor([3.0, 1.0, 2.0]),
        heads=[
            torch.tensor([1.0, 0.1, 0.1, 0.1]),
            torch.tensor([5.0, 5.0, 5.0, 5.0]),
            torch.tensor([0.1, 0.2, 0.3, 0.4]),
        ],
        neurons=[torch.arange(24.0), torch.arange(24.0).flip(0), torch.zeros(24)],
        rows=1,
    )


def test_the_most_important_parts_are_kept() -> None:
    cut = choose_cut(CONFIG, made_up(), layers=2, heads=0.5, neurons=0.34)
    assert cut.layers == (0, 2)
    assert cut.heads == ((0,), (1, 2, 3))
    assert cut.neurons == (tuple(range(16, 24)), tuple(range(8)))
    assert cut.config(CONFIG) == CONFIG.replace(num_hidden_layers=2, intermediate_size=8, layer_heads=(1, 3))


def test_each_layer_keeps_a_head() -> None:
    assert choose_cut(CONFIG, made_up(), heads=0.01).heads == ((0,), (0,), (3,))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layers": 4}, "the model has 3; keep from 1 to 3"),
        ({"heads": 0.0}, "heads = 0 is no share to keep"),
        ({"neurons": 1.5}, "neurons = 1.5 is no share to keep"),
        ({"layers": 3, "heads": 1.0}, "this keeps all of the model"),
    ],
)
def test_what_cannot_be_kept_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_cut(CONFIG, made_up(), **asked)


def test_uneven_heads_are_read_again_and_counted(tmp_path: Path) -> None:
    config = CONFIG.replace(layer_heads=(2, 1, 4))
    model = model_of(config).float()
    model.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.layer_heads == (2, 1, 4)
    assert torch.equal(logits(again), logits(model))
    h, a, i, n = 16, 28, 24, 5
    assert forward_flops(config, tokens=1, length=n) == 2 * (4 * h * a + 3 * 2 * h * i + 2 * n * a)


@pytest.mark.parametrize("heads", [(2, 1), (2, 1, 5), (0, 1, 4), (2, 1.5, 4)])
def test_heads_that_cannot_be_are_refused(heads: Any) -> None:
    with pytest.raises(CheckpointError, match="3 whole numbers, one a layer, from 1 to 4"):
        CONFIG.replace(layer_heads=heads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells good from bad, with rows in files, as a person has it."""
    folder = tmp_path_factory.mktemp("whole")
    base = write_tiny_model(folder / "base")
    for name, rows in (("train", text_rows(120, seed=3)), ("validation", text_rows(40, seed=4))):
        lines = "\n".join(f"{text}\t{label}" for text, label in rows)
        write_text(folder / f"{name}.tsv", f"text\tlabel\n{lines}\n")
    config = recipe(
        model=str(base), train=str(folder / "train.tsv"), validation=str(folder / "validation.tsv"), epochs=6
    )
    finetune(config, folder / "run", console=quiet(), runtime=CPU)
    assert (folder / "run" / "recipe.toml").read_text() == recipe_toml(config)
    return folder / "run"


def made_smaller(whole: Path, folder: Path, *, epochs: int, **asked: Any) -> Outcome:
    overrides = [f"finetune.epochs={epochs}"]
    return prune(whole, folder, **asked, overrides=overrides, console=quiet(), runtime=CPU)


def test_from_a_run_to_a_smaller_proven_model(whole: Path, tmp_path: Path) -> None:
    found = made_smaller(whole, tmp_path / "small", epochs=3, layers=1, neurons=0.5, max_drop=20)
    smaller = Predictor.load(tmp_path / "small")
    assert smaller.model.config.num_hidden_layers == 1
    assert smaller.model.config.intermediate_size == 16
    assert found.after.parameters < found.before.parameters
    assert found.before.flops_per_token / found.after.flops_per_token > 2
    record = json.loads((tmp_path / "small" / "compression.json").read_text())
    card = json.loads((tmp_path / "small" / "model" / "bertsmith.json").read_text())
    assert record["accepted"] is True
    assert card["compressed"]["lost_points"] == record["lost_points"] == found.lost_points
    result = evaluate(smaller, whole.parent / "validation.tsv")
    assert result.scores[found.metric] == found.after.score
    again = made_smaller(whole, tmp_path / "small", epochs=3, layers=1, neurons=0.5, max_drop=20)
    assert (again.how, again.after.score) == (found.how, found.after.score)


def test_a_model_that_lost_too_much_is_not_kept(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "small" / "model").mkdir(parents=True)
    with pytest.raises(BertsmithError, match=r"more than --max-drop -200, and is not kept"):
        made_smaller(whole, tmp_path / "small", epochs=1, neurons=0.25, max_drop=-200)
    assert not (tmp_path / "small" / "model").exists()
    assert json.loads((tmp_path / "small" / "compression.json").read_text())["accepted"] is False


def test_the_command_prints_both_models(whole: Path, tmp_path: Path) -> None:
    command = ["compress", "prune", str(whole), "--layers", "1", "--out", str(tmp_path / "small"), "--max-drop", "90"]
    result = CliRunner().invoke(app, [*command, "--set", "finetune.epochs=1"])
    assert result.exit_code == 0, result.output
    assert "before" in result.output
    assert f"model: {tmp_path / 'small' / 'model'}" in result.output


def test_a_model_of_no_run_needs_a_recipe(whole: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "model"
    model = Predictor.load(whole)
    model.model.save_pretrained(alone)
    Tokenizer.load(model.directory).save(alone)
    (alone / "bertsmith.json").write_bytes((model.directory / "bertsmith.json").read_bytes())
    with pytest.raises(UsageError, match=r"is of no run with a recipe .* name one with --recipe"):
        prune(alone, tmp_path / "small", layers=1, console=quiet(), runtime=CPU)
    assert not (tmp_path / "small").exists()


def test_batches_of_evaluation_do_not_change_importance(whole: Path) -> None:
    """Sums over rows: how they are batched says nothing."""
    predictor = Predictor.load(whole)
    rows = TASKS["classify"].read(whole.parent / "validation.tsv", Columns(), require_labels=True)
    features = predictor.encode(rows, labelled=True)
    found = []
    for batch_tokens in (32, 4096):
        batches = evaluation_batches(features, objective="classify", pad_id=0, batch_tokens=batch_tokens)
        found.append(measure_importance(predictor.model, predictor.task, (batch for _, batch in batches)))
    for one, other in zip(found[0].neurons + found[0].heads, found[1].neurons + found[1].heads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
