"""The optimizer that a recipe asks for."""

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from bertsmith.config import OptimizerConfig
from bertsmith.training.groups import parameter_groups
from bertsmith.training.lamb import Lamb
from bertsmith.training.lazy_rows import LazyRowsAdamW

_LONG_AGO = 2.0**100
"""A step count at which bias correction is over for any beta (1 - beta^step is 1), and to which 1 adds nothing."""


def make_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    head_learning_rate: float | None = None,
    lazy_rows: nn.Embedding | None = None,
) -> Optimizer:
    """What `config.optimizer` names, over `model`'s trainable parameters in their groups.

    adamw   Loshchilov and Hutter 2019, arXiv:1711.05101; all parameters in one fused pass
    adam    Kingma and Ba 2015, arXiv:1412.6980; decay is added to the gradient; fused
    lamb    You et al. 2020, arXiv:1904.00962
    sgd     with momentum; decay is added to the gradient

    lazy_rows: an embedding of AdamW's whose rows wait until they are read (`lazy_rows`).
    head_learning_rate: of what stands on the encoder, where it has one of its own.

    Without `config.bias_correction` Adam's running means are used as they are, as in the original BERT, whose
    optimizer is then AdamW to the letter.
    """
    head_factor = 1.0 if head_learning_rate is None else head_learning_rate / config.learning_rate
    groups = parameter_groups(
        model, weight_decay=config.weight_decay, layer_decay=config.layer_decay, head_factor=head_factor
    )
    rate, betas, eps = config.learning_rate, config.betas, config.eps
    if config.optimizer == "sgd":
        return SGD(groups, lr=rate, momentum=config.momentum)
    if config.optimizer == "lamb":
        return Lamb(groups, lr=rate, betas=betas, eps=eps, bias_correction=config.bias_correction)
    if lazy_rows is not None:
        return LazyRowsAdamW(groups, lazy_rows, lr=rate, betas=betas, eps=eps, fused=True)
    kind = AdamW if config.optimizer == "adamw" else Adam
    optimizer = kind(groups, lr=rate, betas=betas, eps=eps, fused=True)
    if not config.bias_correction:
        _begin_long_ago(optimizer)
    return optimizer


def _begin_long_ago(optimizer: Adam) -> None:
    """The state that Adam's first step would make, with a step count that leaves nothing to correct."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.full((), _LONG_AGO, dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
