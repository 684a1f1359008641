"""What an answer costs: the loss of each target, of which a batch's loss is the sum, in float32 at least."""

import torch
import torch.nn.functional as F
from torch import Tensor


def item_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(outputs)[target] of each item: (items, labels) and (items,) -> (items,)."""
    return F.cross_entropy(_precise(outputs), targets, reduction="none")


def item_binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over labels of -log sigmoid(±output), + where the target is 1: (items, labels) twice -> (items,)."""
    precise = _precise(outputs)
    return F.binary_cross_entropy_with_logits(precise, targets.to(precise.dtype), reduction="none").mean(-1)


def item_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(output - target)² of each item: (items, 1) and (items,) -> (items,)."""
    precise = _precise(outputs).squeeze(-1)
    return F.mse_loss(precise, targets.to(precise.dtype), reduction="none")


def alternatives_cross_entropy(outputs: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
    """-log softmax over the items of an example [target], mean over kinds (such as start and end).

    outputs: (items, kinds); groups: (items,) the example of each, ascending; targets: (examples, kinds), numbers of
    items counted from the example's first. Returns (examples,).
    """
    counts = torch.bincount(groups, minlength=len(targets))
    position = torch.arange(len(groups), device=groups.device) - (counts.cumsum(0) - counts)[groups]
    precise = _precise(outputs)
    table = precise.new_full((len(targets), int(counts.max()), outputs.shape[-1]), -torch.inf)
    table = table.index_put((groups, position), precise)
    return F.cross_entropy(table, targets, reduction="none").mean(-1)


def _precise(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
