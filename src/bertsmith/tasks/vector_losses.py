"""What makes vectors of texts useful: losses of an example's vectors, which are its text's, its partner's and, where
rows have one, that of a text that does not belong with it.

    in-batch   -log of softmax over the batch's partners of cos / temperature (Henderson et al. 2017, arXiv:1705.00652)
    cosine     (cos - score)² (Reimers & Gurevych 2019, arXiv:1908.10084, section 3)
    margin     max(0, cos of the stranger - cos of the partner + margin) (Schroff et al. 2015, arXiv:1503.03832)

Where a text is its own partner, in-batch is SimCSE (Gao et al. 2021, arXiv:2104.08821): two dropouts of one text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.errors import UsageError
from bertsmith.tasks.losses import Outputs

_ANCHORS_AT_ONCE = 1024
"""Scores against all partners are a table; so many of its rows are held at a time."""


class Vectors(Outputs):
    """outputs: (examples * vectors, hidden), an example's vectors one after the other; targets: (examples, ...)."""

    def _losses(self, outputs: Tensor, targets: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        vectors = F.normalize(outputs, dim=-1).view(len(targets), -1, outputs.shape[-1])
        with torch.autocast(outputs.device.type, enabled=False):  # bfloat16 cannot tell near cosines apart
            return self._of(vectors, targets)

    def _of(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """(examples,) of unit vectors (examples, vectors, hidden)."""
        raise NotImplementedError

    def _divergences(self, one: Tensor, other: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        raise UsageError("r_drop is for outputs that are probabilities or numbers, not for vectors of texts")

    def _distances(self, old: Tensor, new: Tensor, groups: Tensor | None) -> Tensor:  # noqa: ARG002
        raise UsageError("distillation is for outputs that are probabilities or numbers, not for vectors of texts")

    def drawn(self, outputs: Tensor, groups: Tensor | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        raise UsageError("nothing is drawn from vectors of texts, which are no probabilities")


class InBatch(Vectors):
    """Every other example's partner and stranger, and the own stranger, are what the text does not belong with.

    targets: (examples, vectors) int64, equal where texts are equal: a text is never to be told apart from itself.
    """

    is_of_whole_batch = True

    def __init__(self, temperature: float):
        self.temperature = temperature

    def _of(self, vectors: Tensor, targets: Tensor) -> Tensor:
        anchors, candidates = vectors[:, 0], vectors[:, 1:].transpose(0, 1).flatten(0, 1)  # partners first
        texts = targets[:, 1:].t().flatten()
        found = []
        for start in range(0, len(anchors), _ANCHORS_AT_ONCE):
            rows = slice(start, start + _ANCHORS_AT_ONCE)
            right = torch.arange(len(anchors), device=vectors.device)[rows]
            scores = anchors[rows] @ candidates.t() / self.temperature
            same = (texts == targets[rows, 1, None]) | (texts == targets[rows, 0, None])
            same[torch.arange(len(right), device=vectors.device), right] = False
            found.append(F.cross_entropy(scores.masked_fill(same, -torch.inf), right, reduction="none"))
        return torch.cat(found)


class Cosine(Vectors):
    """targets: (examples, 1) scores from 0 (nothing in common) to 1 (the same)."""

    def _of(self, vectors: Tensor, targets: Tensor) -> Tensor:
        cosines = (vectors[:, 0] * vectors[:, 1]).sum(-1)
        return (cosines - targets[:, 0].to(cosines.dtype)) ** 2


class Margin(Vectors):
    """targets: (examples, ...) that are not looked at."""

    def __init__(self, margin: float):
        self.margin = margin

    def _of(self, vectors: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        partner, stranger = ((vectors[:, 0] * vectors[:, number]).sum(-1) for number in (1, 2))
        return F.relu(stranger - partner + self.margin)
