"""AdamW in two groups: matrices decay, biases and LayerNorm do not."""

from typing import Any

import torch
from torch import nn

from bertsmith.config import OptimizerConfig


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in a decayed and an undecayed group, each parameter once however often it is tied.

    Undecayed are the parameters of every LayerNorm and every vector (all biases), as in the BERT paper's code.
    """
    undecayed = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2 or id(parameter) in undecayed]["params"].append(parameter)
    return groups


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that updates all parameters in one fused pass."""
    return torch.optim.AdamW(
        parameter_groups(model, weight_decay=config.weight_decay),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )
