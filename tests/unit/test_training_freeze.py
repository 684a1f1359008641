"""Frozen parts: found by name, left as they are, without state, gradients or a backward pass."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bertsmith.config import OptimizerConfig
from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import BertModel
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.model.language import BertForMaskedLM, BertForPreTraining
from bertsmith.tasks.finetune import finetune
from bertsmith.training.freeze import freeze, train_account
from bertsmith.training.losses import masked_token_loss_sum
from bertsmith.training.optimizer import make_optimizer
from finetune_case import quiet, recipe, spoken, text_rows, write_tiny_model
from training_case import CPU, TinyModel, events, run

HIDDEN, VOCAB = 8, 11


def _config(**changes: Any) -> BertConfig:
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    return BertConfig(**{"vocab_size": VOCAB, "max_position_embeddings": 8, **sizes, **changes})


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def _below(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


# ---- names ----


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_modules_ranges_and_tensors_with_or_without_their_prefix(prefix: str) -> None:
    model = BertForPreTraining(_config())
    freeze([model], [f"{prefix}embeddings", f"{prefix}encoder.layer.0-2"])
    assert _frozen(model) == _below(model, "bert.embeddings.", *(f"bert.encoder.layer.{n}." for n in (0, 1, 2)))
    freeze([model], [f"{prefix}encoder.layer.1-2.attention.self", f"{prefix}pooler.dense.bias", "cls.predictions"])
    expected = _below(model, *(f"bert.encoder.layer.{n}.attention.self." for n in (1, 2)), "cls.predictions.")
    assert _frozen(model) == expected | {"bert.pooler.dense.bias"}, "and what was frozen before trains again"
    freeze([model], [])
    assert _frozen(model) == set()


def test_an_encoder_alone_has_the_same_names() -> None:
    model = BertModel(_config())
    freeze([model], ["embeddings", "encoder.layer.3"])
    assert _frozen(model) == _below(model, "embeddings.", "encoder.layer.3.")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["embedings"], r"no 'embedings'; did you mean 'embeddings'"),
        (["encoder.layer.0", "bert.encoder.layers.0"], r"no 'bert.encoder.layers.0'; did you mean 'encoder.layer.0'"),
        (["encoder.layer.2-4"], r"no 'encoder.layer.4'; encoder.layer has 0 to 3"),
        (["bert.encoder.layer.12"], r"bert.encoder.layer has 0 to 3"),
        (["encoder.layer.3-1"], r"'encoder.layer.3-1' counts from 3 down to 1"),
        (["zzz"], r"no 'zzz'; its parts: embeddings, encoder, pooler, cls"),
        ([""], r"no ''; "),
        (["embeddings.dropout"], r"'embeddings.dropout' has no parameters"),
        (["bert", "cls"], r"leaves nothing to train"),
    ],
)
def test_names_that_are_none_are_refused_with_near_ones(names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        freeze([BertForPreTraining(_config())], names)


def test_of_several_networks_on_one_encoder_a_name_is_in_one_at_least() -> None:
    language = BertForPreTraining(_config())
    classifier = BertForSequenceClassification(_config())
    classifier.bert = language.bert
    freeze([language, None, classifier], ["classifier", "encoder.layer.1", "cls.seq_relationship"])
    assert _frozen(language) == _below(language, "bert.encoder.layer.1.", "cls.seq_relationship.")
    assert _frozen(classifier) == _below(classifier, "bert.encoder.layer.1.", "classifier.")
    with pytest.raises(UsageError, match="no 'classifiers'; did you mean 'classifier'"):
        freeze([language, classifier], ["classifiers"])


def test_the_account_counts_each_tensor_once() -> None:
    model = BertForMaskedLM(_config())
    total = sum(p.numel() for p in model.parameters())
    tensors = len(list(model.parameters()))
    account = {"trained_tensors": tensors, "trained_parameters": total, "frozen_tensors": 0, "frozen_parameters": 0}
    assert train_account(model) == account
    freeze([model], ["embeddings"])
    frozen = VOCAB * HIDDEN + 8 * HIDDEN + 2 * HIDDEN + 2 * HIDDEN  # words, positions, segments, LayerNorm
    assert train_account(model) == {
        "trained_tensors": tensors - 5,
        "trained_parameters": total - frozen,
        "frozen_tensors": 5,
        "frozen_parameters": frozen,
    }


# ---- what it costs ----


def _loss(model: BertForMaskedLM) -> Tensor:
    ids = torch.arange(2, 10).view(2, 4)
    hidden, *_ = model.bert(ids, output_hidden_states=True).hidden_states[-1:]
    masked = model.prediction_hidden(hidden, torch.tensor([1, 6]))
    return masked_token_loss_sum(masked, model.decoder_weight, model.decoder_bias, torch.tensor([3, 4]))


def _graph(node: Any) -> Iterator[Any]:
    """Every node that a backward pass visits."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


def _reached(model: nn.Module, loss: Tensor) -> set[str]:
    """Parameters to which a backward pass brings a gradient."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    leaves = (node.variable for node in _graph(loss.grad_fn) if hasattr(node, "variable"))
    return {names[id(leaf)] for leaf in leaves}


def test_autograd_does_not_enter_frozen_lowest_layers() -> None:
    model = BertForMaskedLM(_config()).train()
    freeze([model], [])
    whole = sum(1 for _ in _graph(_loss(model).grad_fn))
    assert _reached(model, _loss(model)) == {name for name, _ in model.named_parameters()}
    freeze([model], ["embeddings", "encoder.layer.0-2"])
    states = model.bert(torch.ones(1, 4, dtype=torch.long), output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in states] == [False, False, False, False, True]
    assert _reached(model, _loss(model)) == _below(model, "bert.encoder.layer.3.", "cls.")
    assert sum(1 for _ in _graph(_loss(model).grad_fn)) < 0.45 * whole, "one layer of four, and the head"


def test_a_frozen_middle_passes_gradients_on() -> None:
    model = BertForMaskedLM(_config()).train()
    freeze([model], ["encoder.layer.1-2"])
    assert _reached(model, _loss(model)) == {n for n, _ in model.named_parameters()} - _frozen(model)


@pytest.mark.parametrize("tied", [True, False])
def test_the_decoder_s_gradient_is_not_computed_where_the_decoder_is_frozen(tied: bool) -> None:
    model = BertForMaskedLM(_config(tie_word_embeddings=tied))
    assert all(gradient is not None for gradient in _saved(_loss(model)))
    freeze([model], ["embeddings.word_embeddings"])
    hidden_gradient, weight_gradient, bias_gradient = _saved(_loss(model))
    assert (weight_gradient is None) is tied, "a decoder of its own still trains"
    assert hidden_gradient is not None
    assert bias_gradient is not None
    freeze([model], ["embeddings", "encoder", "cls.predictions.transform"])
    assert _saved(_loss(model))[0] is None, "nothing below the decoder trains"


def _saved(loss: Tensor) -> Any:
    """Gradients that the fused loss keeps for its inputs: hidden, weight, bias."""
    found = [node for node in _graph(loss.grad_fn) if "MaskedTokenSums" in type(node).__name__]
    assert len(found) == 1
    return found[0].saved_tensors


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
def test_the_gradients_that_are_computed_are_the_same(needed: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(4)
    shapes = ((9, HIDDEN), (VOCAB, HIDDEN), (VOCAB,))
    tensors = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    labels = torch.tensor([1, 2, -100, 4, 0, 10, 3, -100, 7])
    every = [tensor.clone().requires_grad_() for tensor in tensors]
    masked_token_loss_sum(*every, labels).backward()
    some = [tensor.clone().requires_grad_(bool(one)) for tensor, one in zip(tensors, needed, strict=True)]
    masked_token_loss_sum(*some, labels).backward()
    for one, ours, theirs in zip(needed, some, every, strict=True):
        assert (ours.grad is not None) == bool(one)
        if one:
            assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_dropout_in_a_frozen_part_stays_on_in_training() -> None:
    model = BertModel(_config(hidden_dropout_prob=0.5)).train()
    freeze([model], ["embeddings", "encoder"])
    ids = torch.ones(1, 8, dtype=torch.long)
    torch.manual_seed(1)
    first, second = (model(ids).last_hidden_state for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(*(model.eval()(ids).last_hidden_state for _ in range(2)))


# ---- in the loop ----


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd"])
def test_frozen_tensors_keep_every_bit_and_have_no_state(tmp_path: Path, name: Any) -> None:
    torch.manual_seed(1)
    model = TinyModel()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    freeze([model], ["embedding", "dense.weight"])
    config = OptimizerConfig(optimizer=name, weight_decay=0.5)
    _, _, printed = run(tmp_path, model=model, config=config)
    same = {key for key, tensor in model.state_dict().items() if torch.equal(tensor, before[key])}
    assert same == {"embedding.weight", "decoder.weight", "dense.weight", "scale"}
    state = load_file(tmp_path / "checkpoints" / "step-00000012" / "optimizer.safetensors")
    assert {key.rpartition(".")[0] for key in state} == {
        *("norm.weight", "norm.bias", "dense.bias", "decoder.bias", "pair.weight", "pair.bias")
    }
    assert all(model.get_parameter(key).grad is None for key in ("embedding.weight", "dense.weight"))
    (start,) = events(tmp_path, "start")
    frozen = 17 * 8 + 8 * 8
    expected = {
        "parameters": 259,
        "trained_tensors": 6,
        "trained_parameters": 259 - frozen,
        "frozen_tensors": 2,
        "frozen_parameters": frozen,
    }
    assert start["plan"] == start["plan"] | expected
    assert "259 parameters; 200 of them frozen (2 tensors), 59 train (6 tensors)" in printed


def test_without_bias_correction_a_frozen_tensor_has_no_state_either() -> None:
    model = TinyModel()
    freeze([model], ["embedding"])
    optimizer = make_optimizer(model, OptimizerConfig(bias_correction=False))
    assert model.embedding.weight not in optimizer.state
    assert model.dense.weight in optimizer.state


def test_a_loss_in_which_nothing_that_trains_has_a_part_is_refused(tmp_path: Path) -> None:
    model = TinyModel()
    freeze([model], ["embedding", "norm", "dense", "decoder"])

    def only_words(function: Any) -> Any:
        return lambda batch: {"mlm": function(batch)["mlm"]}

    with pytest.raises(UsageError, match="nothing that trains has a part in the loss"):
        run(tmp_path, model=model, wrap=only_words)


# ---- in fine-tuning ----


def test_a_fine_tuning_with_a_frozen_encoder_moves_the_head_alone(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    console = quiet()
    tables = {"train": text_rows(24, seed=1), "validation": text_rows(8, seed=2)}
    chosen = recipe(freeze=["embeddings", "encoder.layer.0-1", "pooler"], epochs=1)
    finetune(chosen, tmp_path / "run", model=base, runtime=CPU, console=console, **tables)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "last"))
    encoder = {name for name in after if name.startswith("bert.")}
    assert after.keys() - encoder == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert f"of them frozen ({len(encoder)} tensors), 34 train (2 tensors)" in spoken(console)


def test_an_unknown_name_leaves_nothing_behind(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    tables = {"train": text_rows(24, seed=1), "validation": text_rows(8, seed=2)}
    with pytest.raises(UsageError, match=r"encoder\.layer has 0 to 1"):
        finetune(recipe(freeze=["encoder.layer.7"]), tmp_path / "run", model=base, runtime=CPU, **tables)
    assert not (tmp_path / "run").exists()
