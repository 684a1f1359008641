"""Which parameters decay and how fast they learn; each optimizer against its formula, written out in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertsmith.config import FinetuneConfig, LoopConfig, OptimizerConfig, PretrainConfig, parse_recipe
from bertsmith.errors import RecipeError
from bertsmith.model.config import BertConfig
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.model.language import BertForPreTraining
from bertsmith.training.groups import parameter_groups, undecayed_names
from bertsmith.training.optimizer import make_optimizer
from training_case import TinyModel


def test_only_matrices_decay_and_tied_ones_are_there_once() -> None:
    model = TinyModel()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, undecayed = ([names[id(p)] for p in g["params"]] for g in parameter_groups(model, weight_decay=0.1))
    assert sorted(decayed) == ["dense.weight", "embedding.weight", "pair.weight"]
    assert sorted(undecayed) == ["decoder.bias", "dense.bias", "norm.bias", "norm.weight", "pair.bias"]
    assert undecayed_names(model) == set(undecayed)


def test_a_layer_norm_over_a_matrix_does_not_decay_and_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Sequential(torch.nn.LayerNorm((2, 3)), torch.nn.Linear(3, 3))
    model[1].weight.requires_grad_(False)
    decayed, undecayed = (g["params"] for g in parameter_groups(model, weight_decay=0.1))
    assert decayed == []
    assert [tuple(p.shape) for p in undecayed] == [(2, 3), (2, 3), (3,)]


def test_the_optimizer_is_fused_and_has_the_recipe_s_numbers() -> None:
    config = OptimizerConfig(learning_rate=0.5, weight_decay=0.25, betas=(0.8, 0.9), eps=1e-5)
    optimizer = make_optimizer(TinyModel(), config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    for group in optimizer.param_groups:
        assert (group["fused"], group["lr"], group["betas"], group["eps"]) == (True, 0.5, (0.8, 0.9), 1e-5)


@pytest.mark.parametrize("kind", [LoopConfig, PretrainConfig, FinetuneConfig])
def test_defaults_are_those_of_the_docs(kind: type[LoopConfig]) -> None:
    fields = {name: field.default for name, field in kind.model_fields.items()}
    assert (fields["optimizer"], fields["weight_decay"], fields["clip"]) == ("adamw", 0.01, 1.0)
    assert fields["clip_by"] == "norm"
    assert (fields["betas"], fields["bias_correction"], fields["layer_decay"]) == ((0.9, 0.999), True, 1.0)


# ---- layer by layer ----


def _rates(model: nn.Module, layer_decay: float) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.01, layer_decay=layer_decay)
    found = [(names[id(p)], group["lr_factor"]) for group in groups for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values()), "each once"
    return dict(found)


def _bert(head: Callable[[BertConfig], nn.Module]) -> nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    return head(BertConfig(vocab_size=11, max_position_embeddings=8, **sizes))


@pytest.mark.parametrize("head", [BertForPreTraining, BertForSequenceClassification])
def test_the_rate_falls_from_the_head_to_the_embeddings(head: Callable[[BertConfig], nn.Module]) -> None:
    for name, factor in _rates(_bert(head), 0.5).items():
        part = name.removeprefix("bert.")
        if part.startswith("embeddings."):
            assert factor == 0.5**4, name
        elif part.startswith("encoder.layer."):
            assert factor == 0.5 ** (3 - int(part.split(".")[2])), name
        else:
            assert factor == 1.0, f"{name} is of the head or the pooler"


def test_decay_and_layer_decay_go_together() -> None:
    model = _bert(BertForPreTraining)
    undecayed = undecayed_names(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.9)
    assert len(groups) == 2 * 5, "embeddings, three layers, head"
    for group in groups:
        assert group["params"], "none is empty"
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if names[id(parameter)] in undecayed else 0.1)


def test_without_layer_decay_all_learn_alike() -> None:
    assert set(_rates(_bert(BertForPreTraining), 1.0).values()) == {1.0}


# ---- formulas, in float64 ----

STEPS = 30
SHAPES = {"matrix": (4, 3), "zero_matrix": (2, 2), "bias": (5,)}


def _problem() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """A module of three tensors, of which one begins at 0, and gradients of each for some steps."""
    draw = torch.Generator().manual_seed(7)
    model = nn.Module()
    for name, shape in SHAPES.items():
        start = torch.zeros(shape) if name == "zero_matrix" else torch.randn(shape, generator=draw)
        model.register_parameter(name, nn.Parameter(start.double()))
    gradients = [{n: torch.randn(s, generator=draw).double() for n, s in SHAPES.items()} for _ in range(STEPS)]
    gradients[0]["bias"].zero_()
    return model, gradients


Reference = Callable[[Tensor, list[Tensor], float], Tensor]
LR, BETAS, EPS, DECAY = 0.05, (0.8, 0.95), 1e-3, 0.1


def _adam(start: Tensor, gradients: list[Tensor], decay: float, *, corrected: bool, coupled: bool) -> Tensor:
    x, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for number, gradient in enumerate(gradients, start=1):
        g = gradient + decay * x if coupled else gradient
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        m_hat = m / (1 - BETAS[0] ** number) if corrected else m
        v_hat = v / (1 - BETAS[1] ** number) if corrected else v
        x = x - LR * (m_hat / (v_hat.sqrt() + EPS) + (0.0 if coupled else decay * x))
    return x


def _lamb(start: Tensor, gradients: list[Tensor], decay: float, *, corrected: bool) -> Tensor:
    x, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for number, g in enumerate(gradients, start=1):
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        m_hat = m / (1 - BETAS[0] ** number) if corrected else m
        v_hat = v / (1 - BETAS[1] ** number) if corrected else v
        r = m_hat / (v_hat.sqrt() + EPS) + decay * x
        sizes = math.sqrt(float((x**2).sum())), math.sqrt(float((r**2).sum()))
        adapts = x.ndim == 2 and min(sizes) > 0
        x = x - LR * (sizes[0] / sizes[1] if adapts else 1.0) * r
    return x


def _sgd(start: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    x, velocity = start.clone(), torch.zeros_like(start)
    for gradient in gradients:
        velocity = 0.7 * velocity + gradient + decay * x
        x = x - LR * velocity
    return x


CASES: dict[str, tuple[dict[str, Any], Callable[..., Tensor]]] = {
    "adamw": ({}, lambda *a: _adam(*a, corrected=True, coupled=False)),
    "adamw, original BERT": ({"bias_correction": False}, lambda *a: _adam(*a, corrected=False, coupled=False)),
    "adam": ({"optimizer": "adam"}, lambda *a: _adam(*a, corrected=True, coupled=True)),
    "adam, uncorrected": (
        {"optimizer": "adam", "bias_correction": False},
        lambda *a: _adam(*a, corrected=False, coupled=True),
    ),
    "lamb": ({"optimizer": "lamb"}, lambda *a: _lamb(*a, corrected=True)),
    "lamb, uncorrected": ({"optimizer": "lamb", "bias_correction": False}, lambda *a: _lamb(*a, corrected=False)),
    "sgd": ({"optimizer": "sgd", "momentum": 0.7}, _sgd),
}


@pytest.mark.parametrize("case", CASES)
def test_an_optimizer_does_what_its_formula_says(case: str) -> None:
    settings, reference = CASES[case]
    model, gradients = _problem()
    starts = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adaptive = {} if settings.get("optimizer") == "sgd" else {"betas": BETAS, "eps": EPS}
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=LR, weight_decay=DECAY, **adaptive, **settings))
    for one in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = one[name].clone()
        optimizer.step()
    for name, parameter in model.named_parameters():
        decay = 0.0 if name == "bias" else DECAY
        expected = reference(starts[name], [one[name] for one in gradients], decay)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-11, atol=1e-11)
        assert not torch.equal(parameter.detach(), starts[name])
    for state in optimizer.state.values():
        assert all(isinstance(value, Tensor) for value in state.values()), "checkpoints keep tensors"


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 - 1e-9])
def test_without_bias_correction_no_step_is_corrected_whatever_beta(beta: float) -> None:
    parameter = nn.Parameter(torch.ones(3, 1, dtype=torch.float64))
    model = nn.Module()
    model.register_parameter("x", parameter)
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.0, betas=(beta, beta), eps=1.0, bias_correction=False)
    optimizer = make_optimizer(model, config)
    parameter.grad = torch.full((3, 1), 2.0, dtype=torch.float64)
    optimizer.step()
    expected = 1.0 - (1 - beta) * 2.0 / (math.sqrt((1 - beta) * 4.0) + 1.0)
    torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected), rtol=1e-12, atol=1e-14)


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    for name in ("adamw", "adam", "sgd", "lamb"):
        model, gradients = _problem()
        before = model.get_parameter("matrix").detach().clone()
        optimizer = make_optimizer(model, OptimizerConfig(optimizer=name, learning_rate=0.1))  # type: ignore[arg-type]
        model.get_parameter("bias").grad = gradients[1]["bias"]
        optimizer.step()
        assert torch.equal(model.get_parameter("matrix").detach(), before), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.5}, "optimizer = 'adamw' takes no momentum; that is of sgd"),
        ({"optimizer": "sgd", "eps": 1e-3}, "optimizer = 'sgd' takes no eps; that is of adamw and adam and lamb"),
        ({"optimizer": "sgd", "bias_correction": False}, "'sgd' takes no bias_correction"),
        ({"betas": [0.9, 1.0]}, "betas.1: Input should be less than 1"),
        ({"layer_decay": 0.0}, "layer_decay: Input should be greater than 0"),
        ({"optimizer": "adamax"}, "Input should be 'adamw', 'adam', 'sgd' or 'lamb'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"name": "r", "finetune": {"model": "m", **settings}})
    assert message in str(raised.value)
