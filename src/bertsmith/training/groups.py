"""Which parameters decay, and how fast each learns: the one place that says so."""

import re
from typing import Any

from torch import nn

_LAYER = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)embeddings\.")


def parameter_groups(
    model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0, head_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters, each once however often it is tied, in a decayed and an undecayed group per learning rate.

    Undecayed are the parameters of every LayerNorm and every vector (all biases), as in the BERT paper's code.

    `lr_factor` of a group is what the learning rate is multiplied by in it: of a network of n layers, with
    d = `layer_decay`, 1 for heads and pooler, d for the highest layer, d^n for the lowest, d^(n + 1) for embeddings
    (Howard and Ruder 2018, arXiv:1801.06146; for BERT, Sun et al. 2019, arXiv:1905.05583). A decoder tied to the word
    embeddings is one of them. `head_factor` is that of heads, but not of the pooler, which belongs to the encoder.
    """
    undecayed = undecayed_names(model)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    factors = {name: layer_decay**depth for name, depth in _depths(model).items() if name in trainable}
    factors |= {name: head_factor for name in factors if not name.startswith("bert.") and hasattr(model, "bert")}
    return [
        {
            "params": [p for name, p in trainable.items() if factors[name] == factor and (name in undecayed) != decays],
            "weight_decay": weight_decay if decays else 0.0,
            "decays": decays,
            "lr_factor": factor,
        }
        for factor in sorted(set(factors.values()))
        for decays in (True, False)
    ]


def undecayed_names(model: nn.Module) -> set[str]:
    """Names of the parameters on which there is no weight decay, frozen ones too."""
    of_norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    return {name for name, parameter in model.named_parameters() if parameter.ndim < 2 or id(parameter) in of_norms}


def _depths(model: nn.Module) -> dict[str, int]:
    """Parameter's name -> how many layers lie between it and the head: 0 for the head itself, n + 1 for embeddings."""
    names = [name for name, _ in model.named_parameters()]
    layers = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    num_layers = 1 + max(layers.values(), default=-1)
    in_embeddings = {name: num_layers + 1 for name in names if _EMBEDDINGS.search(name)}
    return {name: in_embeddings.get(name, num_layers - layers.get(name, num_layers)) for name in names}
