"""What outputs mean, and so what they cost: the loss of each target, of which a batch's loss is the sum, and how far
two outputs for one target are apart. All in float32 at least.

    one of classes    a softmax over the outputs of an item
    any of labels     a sigmoid of each output of an item
    a number          the one output of an item
    one of items      a softmax over the items of an example (its choices; its tokens, as start and as end)
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """How training changes the loss of classes; validation loss is never changed."""

    smoothing: float = 0.0
    """Share of each target that is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    focal_gamma: float = 0.0
    """The loss is multiplied by (1 - p)^gamma, p the target's probability (Lin et al. 2017, arXiv:1708.02002)."""
    weights: tuple[float, ...] | None = None
    """By which a target's loss is multiplied: that of its class."""

    @property
    def is_plain(self) -> bool:
        return self == Shape()


class Outputs(ABC):
    """outputs: (items, outputs); targets: (targets, ...); groups: (items,) the example of each item, ascending, where
    items are alternatives.
    """

    is_of_whole_batch: ClassVar[bool] = False
    """Whether an example's loss hangs on the outputs of the batch's other examples."""

    def losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None, shape: Shape | None = None) -> Tensor:
        """(targets,)"""
        if shape is not None and not shape.is_plain:
            raise UsageError("label_smoothing, focal_gamma and class_weights are for classes and labels")
        return self._losses(_precise(outputs), targets, groups)

    def divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor:
        """(targets,) (KL(p || q) + KL(q || p)) / 2 of two outputs for the same items; for numbers (p - q)²."""
        return self._divergences(_precise(one), _precise(other), groups)

    def distances(self, old: Tensor, new: Tensor, groups: Tensor | None, *, temperature: float) -> Tensor:
        """(targets,) T² KL(p_old || p_new) of outputs divided by the temperature T (Hinton et al. 2015,
        arXiv:1503.02531; T² keeps gradients of like size); for numbers (old - new)².
        """
        return self._distances(_precise(old) / temperature, _precise(new) / temperature, groups) * temperature**2

    @abstractmethod
    def drawn(self, outputs: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:
        """Targets drawn from what the outputs say, of the shape that `losses` takes."""

    @abstractmethod
    def _losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _distances(self, old: Tensor, new: Tensor, groups: Tensor | None) -> Tensor: ...


class OneOfClasses(Outputs):
    """-log softmax(outputs)[target] of each item; targets (items,)."""

    def losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None, shape: Shape | None = None) -> Tensor:
        if shape is None or shape.is_plain:
            return self._losses(_precise(outputs), targets, groups)
        precise = _precise(outputs)
        found = F.cross_entropy(
            precise, targets, _weights(shape, precise), label_smoothing=shape.smoothing, reduction="none"
        )
        if not shape.focal_gamma:
            return found
        right = precise.softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
        return found * (1 - right) ** shape.focal_gamma

    def _losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(outputs, targets, reduction="none")

    def _divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        return _symmetric(one.log_softmax(-1), other.log_softmax(-1)).sum(-1)

    def _distances(self, old: Tensor, new: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        return _one_way(old.log_softmax(-1), new.log_softmax(-1)).sum(-1)

    def drawn(self, outputs: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return _draw(_precise(outputs).softmax(-1), generator)


class AnyOfLabels(Outputs):
    """Mean over labels of -log sigmoid(±output), + where the target is 1; targets (items, labels)."""

    def losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None, shape: Shape | None = None) -> Tensor:
        if shape is None or shape.is_plain:
            return self._losses(_precise(outputs), targets, groups)
        precise = _precise(outputs)
        marks = targets.to(precise.dtype)
        soft = marks * (1 - shape.smoothing) + shape.smoothing / 2
        found = F.binary_cross_entropy_with_logits(precise, soft, reduction="none")
        if (weights := _weights(shape, precise)) is not None:
            found = found * torch.where(marks > 0, weights, 1.0)
        if shape.focal_gamma:
            found = found * torch.where(marks > 0, precise.neg(), precise).sigmoid() ** shape.focal_gamma
        return found.mean(-1)

    def _losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none").mean(-1)

    def _divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        parts = [_symmetric(F.logsigmoid(sign * one), F.logsigmoid(sign * other)) for sign in (1, -1)]
        return torch.stack(parts).sum(0).mean(-1)

    def _distances(self, old: Tensor, new: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        parts = [_one_way(F.logsigmoid(sign * old), F.logsigmoid(sign * new)) for sign in (1, -1)]
        return torch.stack(parts).sum(0).mean(-1)

    def drawn(self, outputs: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return torch.bernoulli(_precise(outputs).sigmoid(), generator=generator)


class Number(Outputs):
    """(output - target)² of each item; one output, targets (items,)."""

    def _losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        return F.mse_loss(outputs.squeeze(-1), targets.to(outputs.dtype), reduction="none")

    def _divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        return (one - other).squeeze(-1) ** 2

    def _distances(self, old: Tensor, new: Tensor, groups: Tensor | None) -> Tensor:
        return self._divergences(old, new, groups)

    def drawn(self, outputs: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        numbers = _precise(outputs).squeeze(-1)
        noise = torch.randn(numbers.shape, generator=generator, dtype=numbers.dtype)
        return numbers + noise * math.sqrt(0.5)


class OneOfItems(Outputs):
    """-log softmax over the items of an example [target], mean over outputs (such as start and end).

    targets: (examples, outputs), numbers of items counted from the example's first.
    """

    def _losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None) -> Tensor:
        return F.cross_entropy(_alternatives(outputs, groups), targets, reduction="none").mean(-1)

    def _divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor:
        logs = [_alternatives(outputs, groups).log_softmax(1) for outputs in (one, other)]
        is_item = torch.isfinite(logs[0])
        first, second = (torch.where(is_item, log, 0.0) for log in logs)
        return torch.where(is_item, _symmetric(first, second), 0.0).sum(1).mean(-1)

    def _distances(self, old: Tensor, new: Tensor, groups: Tensor | None) -> Tensor:
        logs = [_alternatives(outputs, groups).log_softmax(1) for outputs in (old, new)]
        is_item = torch.isfinite(logs[0])
        first, second = (torch.where(is_item, log, 0.0) for log in logs)
        return torch.where(is_item, _one_way(first, second), 0.0).sum(1).mean(-1)

    def drawn(self, outputs: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:
        shares = _alternatives(_precise(outputs), groups).softmax(1)  # (examples, most items, outputs)
        return torch.stack([_draw(shares[..., number], generator) for number in range(shares.shape[-1])], dim=-1)


ONE_OF_CLASSES, ANY_OF_LABELS, NUMBER, ONE_OF_ITEMS = OneOfClasses(), AnyOfLabels(), Number(), OneOfItems()


def by_group(outputs: Tensor, groups: Tensor, *, filled: float) -> Tensor:
    """(items, outputs) to (groups, most items, outputs), with `filled` where a group has fewer; groups: ascending."""
    counts = torch.bincount(groups)
    position = torch.arange(len(groups), device=groups.device) - (counts.cumsum(0) - counts)[groups]
    found = _precise(outputs)
    table = found.new_full((len(counts), int(counts.max()), found.shape[-1]), filled)
    return table.index_put((groups, position), found)


def _alternatives(outputs: Tensor, groups: Tensor | None) -> Tensor:
    assert groups is not None, "these items are alternatives"
    return by_group(outputs, groups, filled=-torch.inf)


def _symmetric(log_p: Tensor, log_q: Tensor) -> Tensor:
    """What each outcome adds to (KL(p || q) + KL(q || p)) / 2: (p - q) (log p - log q) / 2."""
    return (log_p.exp() - log_q.exp()) * (log_p - log_q) / 2


def _one_way(log_p: Tensor, log_q: Tensor) -> Tensor:
    """What each outcome adds to KL(p || q)."""
    return log_p.exp() * (log_p - log_q)


def _draw(shares: Tensor, generator: torch.Generator) -> Tensor:
    """(rows, outcomes) probabilities -> (rows,) an outcome each."""
    return torch.multinomial(shares, 1, generator=generator).squeeze(-1)


def _weights(shape: Shape, like: Tensor) -> Tensor | None:
    return None if shape.weights is None else like.new_tensor(shape.weights)


def _precise(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
