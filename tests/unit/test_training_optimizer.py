"""Which parameters decay."""

import torch

from bertsmith.config import OptimizerConfig
from bertsmith.training.optimizer import make_optimizer, parameter_groups
from training_case import TinyModel


def test_only_matrices_decay_and_tied_ones_are_there_once() -> None:
    model = TinyModel()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, undecayed = ([names[id(p)] for p in g["params"]] for g in parameter_groups(model, weight_decay=0.1))
    assert sorted(decayed) == ["dense.weight", "embedding.weight", "pair.weight"]
    assert sorted(undecayed) == ["decoder.bias", "dense.bias", "norm.bias", "norm.weight", "pair.bias"]


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
