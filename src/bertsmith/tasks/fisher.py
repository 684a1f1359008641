"""Which weights a trained model's answers hang on: the diagonal of the Fisher information.

    F_i = 1/N sum_n (d log p(y_n | x_n) / d theta_i)^2                                over N rows

true        y_n is drawn from the model's own p(y | x_n): the Fisher information proper, up to one draw a row
empirical   y_n is the row's label

-log p(y | x) is the task's loss summed over the row's targets (its words, for a tagger), of the model without dropout.
Several labels of a text, and start and end of an answer, have their mean for a loss, so F is smaller by their number
squared, which `learn_on.ewc` has to make good. A number's is that of a normal distribution of variance 1/2 around the
output, for which it is (output - y)^2.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bertsmith.runtime import Runtime, derive_seed
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import assemble
from bertsmith.tasks.features import Features

Kind = Literal["true", "empirical"]


def fisher_diagonal(
    model: nn.Module,
    task: Task[Any, Any],
    features: Features,
    *,
    pad_id: int,
    kind: Kind,
    seed: int,
    runtime: Runtime,
) -> dict[str, Tensor]:
    """Name -> F of each parameter that has a gradient; a backward pass for each example, since squares do not add up.

    Draws are a pure function of the seed and the example's number. The model is left as it was, without gradients.
    """
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sums = {name: torch.zeros_like(parameter) for name, parameter in names.items()}
    was_training = model.training
    model.eval()
    for example in range(len(features)):
        batch = assemble(features, np.array([example]), objective=task.name, pad_id=pad_id).to(runtime.device)
        outputs = task.item_outputs(model, batch)
        if not len(outputs):
            continue
        targets, groups = batch.targets, batch.item_groups
        assert targets is not None, "old rows have labels"
        if kind == "true":
            generator = torch.Generator().manual_seed(derive_seed("fisher", seed, example))
            on_cpu = None if groups is None else groups.cpu()
            targets = task.outputs.drawn(outputs.detach().cpu(), on_cpu, generator).to(outputs.device)
        loss = task.outputs.losses(outputs, targets, groups).sum()
        gradients = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                sums[name] += gradient.detach() ** 2
    model.train(was_training)
    return {name: total / max(1, len(features)) for name, total in sums.items()}
