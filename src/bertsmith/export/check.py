"""Whether what was written answers as what it was written from: on random tokens, and on the user's own rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertsmith.errors import BertsmithError
from bertsmith.model.config import BertConfig
from bertsmith.model.heads import BertForMultipleChoice, SentenceEncoder
from bertsmith.model.pretrained import Pretrained
from bertsmith.runtime import detect
from bertsmith.tasks.evaluate import score_outputs
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.own_rows import own_validation_rows
from bertsmith.tasks.predict import Predictor, rows_to_answer
from bertsmith.tasks.word_task import WordTask

Outputs = Callable[..., Sequence[Tensor]]
TOLERANCE = 1e-4
"""Of float32 outputs, times max(1, |output|): promise 7 of the design."""
MOST_ROWS = 256
"""Validation rows that are answered by both, at most."""


@dataclass(frozen=True)
class Checked:
    """How far two networks are apart."""

    difference: float
    """Largest |theirs - ours| / max(1, |ours|) of any output at a real position."""
    rows: int = 0
    """Validation rows that both answered; 0 where there are none."""
    texts: int = 0
    """Texts that both answered, given for that."""
    metric: str = ""
    before: float | None = None
    after: float | None = None

    def require(self, what: str | Path, tolerance: float = TOLERANCE) -> None:
        """Raise `BertsmithError` where the difference is more than rounding."""
        if not self.difference <= tolerance:  # NaN too
            raise BertsmithError(
                f"{what} answers otherwise than the model that it was written from: outputs differ by "
                f"{self.difference:.2g}, more than {tolerance:g}; it is not kept. Please report this"
            )

    def to_card(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        said = f"largest difference {self.difference:.1e}"
        if self.texts:
            said += f", {self.texts:,} given texts among what both answered"
        if self.before is None or self.after is None:
            return said
        return f"{said}; {self.metric} {self.before:.4f} -> {self.after:.4f} on {self.rows:,} validation rows"


def check_networks(ours: Pretrained, theirs: Pretrained, *, seed: int = 0) -> Checked:
    """Both on random tokens; see `check_outputs`."""
    takes = 2 if isinstance(ours, SentenceEncoder) else 3

    def outputs_of(network: Pretrained) -> Outputs:
        return lambda *given: _tensors(network(*given[:takes]))

    has_choices = isinstance(ours, BertForMultipleChoice)
    return check_outputs(ours.config, outputs_of(ours), outputs_of(theirs), has_choices=has_choices, seed=seed)


def check_outputs(config: BertConfig, ours: Outputs, theirs: Outputs, *, has_choices: bool, seed: int = 0) -> Checked:
    """All outputs of both, of a text alone, texts of unequal length, and one as long as the model reads.

    ours, theirs: called with token ids, mask and token types, (batch, seq) each, or (batch, 1, seq) for choices.
    """
    largest = 0.0
    for batch in _random_batches(config, seed):
        given = [one[:, None] for one in batch] if has_choices else batch
        with torch.no_grad():
            pairs = list(zip(ours(*given), theirs(*given), strict=True))
        is_token = batch[1].bool()
        for mine, other in pairs:
            if mine.shape[:2] == is_token.shape and mine.dim() > 1 and not has_choices:
                mine, other = mine[is_token], other[is_token]
            largest = max(largest, _difference(mine.numpy(), other.float().numpy()))
    return Checked(largest)


def check_predictors(ours: Predictor, theirs: Predictor, *, texts: str | Path | Iterable[Any] = ()) -> Checked:
    """Both networks on random tokens, and both models on the validation rows of the run, where they can be had, and on
    `texts`, a file or what `predict` takes.
    """
    found = _check_texts(ours, theirs, list(rows_to_answer(ours, texts)), check_networks(ours.model, theirs.model))
    rows, metric = own_validation_rows(ours, detect(dtype="float32", threads=ours.runtime.threads))
    rows = rows[:MOST_ROWS]
    if not rows:
        return found
    (before, mine), (after, other) = (_scored(one, rows, metric) for one in (ours, theirs))
    difference = max(found.difference, _difference(mine, other))
    return replace(found, difference=difference, rows=len(rows), metric=metric, before=before, after=after)


def _check_texts(ours: Predictor, theirs: Predictor, rows: Sequence[Any], found: Checked) -> Checked:
    if not rows:
        return found
    mine, other = (_outputs(one, one.encode(rows)) for one in (ours, theirs))
    return replace(found, difference=max(found.difference, _difference(mine, other)), texts=len(rows))


def _scored(model: Predictor, rows: Sequence[Any], metric: str) -> tuple[float, Floats]:
    features = model.encode(rows, labelled=True)
    outputs = _outputs(model, features)
    answers = score_outputs(model.task, rows, features, outputs / model.temperature, model.labels)
    return answers.scores[metric], outputs


def _outputs(model: Predictor, features: Features) -> Floats:
    """Of all items; of tasks that predict words their probabilities alone, after which the words' numbers stand."""
    outputs = model.outputs(features)
    return outputs[:, : (outputs.shape[1] + 1) // 2] if isinstance(model.task, WordTask) else outputs


def _difference(ours: Any, theirs: Any) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.size:
        return 0.0
    return float(np.max(np.abs(theirs - ours) / np.maximum(1, np.abs(ours))))


def _tensors(outputs: Any) -> list[Tensor]:
    """Those of a head's outputs that are tensors, in their order."""
    found = [outputs] if isinstance(outputs, Tensor) else vars(outputs).values()
    return [one for one in found if isinstance(one, Tensor)]


def _random_batches(config: BertConfig, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(batch, seq) each: token ids, mask, token types."""
    generator = torch.Generator().manual_seed(seed)
    longest = config.max_position_embeddings
    batches = []
    for lengths in ([1], [min(5, longest)], [min(n, longest) for n in (17, 3, 9)], [longest, longest // 2 or 1]):
        seq = max(lengths)
        ids = torch.randint(config.vocab_size, (len(lengths), seq), generator=generator)
        mask = (torch.arange(seq) < torch.tensor(lengths)[:, None]).long()
        second = torch.arange(seq) >= torch.tensor(lengths)[:, None] // 2
        types = second.long() * mask if config.type_vocab_size > 1 else torch.zeros_like(mask)
        batches.append((ids, mask, types))
    return batches
