"""Language model: which word comes next? Learned and scored from left to right, each token from those before it alone.

A text is `[CLS] text [SEP]`: all of its tokens are learned, and [SEP], where it ends, which the model need not read. A
text that is too long goes on in parts that begin with [CLS] again; only the last ends. `continuation` writes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bertsmith.model.language import BertLMHeadModel
from bertsmith.tasks.features import Features, Floats, Ragged
from bertsmith.tasks.texts import record_text
from bertsmith.tasks.word_task import PlainRow, Tally, WordFeatures, WordTask, likeliest, perplexity
from bertsmith.tokenizer.encode import Tokenizer


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the model holds a text, its end included."""

    loss: float
    """Mean over its tokens of -log p, in nats."""
    tokens: int
    right: int
    """Tokens that are the likeliest there."""

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


class Generate(WordTask[Likelihood]):
    """Text -> how likely it is, from left to right."""

    name = "language-model"
    head = BertLMHeadModel
    expected = "a string"
    top = 1

    def encode(
        self,
        rows: Sequence[PlainRow],
        tokenizer: Tokenizer,
        *,
        labels: Sequence[str] | None,  # noqa: ARG002 - the words to learn stand in the text
        max_length: int,
    ) -> WordFeatures:
        parts: list[list[int]] = []
        owners: list[int] = []
        for number, ids in enumerate(tokenizer.encode_ids([row.text for row in rows])):
            text = [*ids, tokenizer.sep_id]
            for start in range(0, len(text), max_length):
                parts.append(text[start : start + max_length])
                owners.append(number)
        targets = Ragged.of(parts)
        return WordFeatures(
            tokens=Ragged.of([[tokenizer.cls_id, *part[:-1]] for part in parts]),
            items=Ragged.of([range(len(part)) for part in parts]),
            targets=targets.values.astype(np.int64),
            cut_tokens=np.zeros(len(parts), dtype=np.int64),
            rows=np.array(owners, dtype=np.int64),
            tokenizer=tokenizer,
        )

    def decode(
        self,
        rows: Sequence[PlainRow],
        features: Features,
        outputs: Floats,
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[Likelihood]:
        assert isinstance(features, WordFeatures), "made by encode"
        is_right = likeliest(outputs)[1][:, 0] == features.targets
        starts = features.item_starts(len(rows))
        return [
            Likelihood(float(outputs[low:high, 0].mean(dtype=np.float64)), high - low, int(is_right[low:high].sum()))
            for low, high in pairwise(starts)
        ]

    def tally(self, answer: Likelihood) -> Tally:
        return Tally(answer.loss * answer.tokens, answer.tokens, answer.right)

    def record(self, number: int, row: PlainRow, answer: Likelihood) -> dict[str, Any]:
        return {
            **record_text(number, row),
            "loss": round(answer.loss, 6),
            "perplexity": round(answer.perplexity, 4),
            "tokens": answer.tokens,
            "right": answer.right,
        }

    def told(self, row: PlainRow, answer: Likelihood) -> tuple[str, str]:  # noqa: ARG002
        return "", f"perplexity {answer.perplexity:.4g}"
