"""Rows of tokens to a padded, masked batch of tensors, all rows at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertsmith.examples.draws import Int64, example_keys
from bertsmith.examples.mask import Flags, MaskBy, budgets, mask_tokens
from bertsmith.examples.pairs import NO_PAIR, Segments
from bertsmith.examples.spans import Spans
from bertsmith.tokenizer.encode import Tokenizer

_FILLED_UP = -100


@dataclass(frozen=True)
class PretrainBatch:
    """One micro-batch of examples, masked."""

    input_ids: Tensor
    """(batch, seq) int64."""
    attention_mask: Tensor
    """(batch, seq) int64: 1 for tokens, 0 for padding."""
    token_type_ids: Tensor
    """(batch, seq) int64: 0 for [CLS] A [SEP], 1 for B [SEP]."""
    masked_positions: Tensor
    """(masks,) int64 into the flattened (batch * seq); filled up with 0 to a count given by the shape alone."""
    masked_labels: Tensor
    """(masks,) int64: the hidden token; -100 where filled up."""
    next_sentence_label: Tensor
    """(batch,) int64: 0 = B follows A, 1 = B is from elsewhere or (sentence order) goes before A, -100 = no pair."""
    same_document_negative: Tensor
    """(batch,) bool: B is from elsewhere in the same document."""
    counts: dict[str, int]
    """Items each objective's loss is summed over: {"mlm": masked tokens, "nsp" or "sop": labelled pairs, "agreement":
    tokens, "smoothness": neighbouring tokens}."""
    num_tokens: int
    """Tokens without padding."""
    example_ids: tuple[int, ...]

    @property
    def example_kind(self) -> str:
        return "example"

    def take(self, rows: Sequence[int]) -> "PretrainBatch":
        """These of its examples alone, with no masks filled up."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        length = self.input_ids.shape[1]
        place = torch.full((len(self.input_ids),), -1).index_put((chosen,), torch.arange(len(rows)))
        of_row = place[self.masked_positions // length]
        is_kept = (self.masked_labels != _FILLED_UP) & (of_row >= 0)
        mask, labels = self.attention_mask[chosen], self.next_sentence_label[chosen]
        num_tokens, num_pairs = int(mask.sum()), int((labels != NO_PAIR).sum())
        items = {
            "mlm": int(is_kept.sum()),
            "nsp": num_pairs,
            "sop": num_pairs,
            "agreement": num_tokens,
            "smoothness": num_tokens - len(rows),
        }
        return PretrainBatch(
            input_ids=self.input_ids[chosen],
            attention_mask=mask,
            token_type_ids=self.token_type_ids[chosen],
            masked_positions=(of_row * length + self.masked_positions % length)[is_kept],
            masked_labels=self.masked_labels[is_kept],
            next_sentence_label=labels,
            same_document_negative=self.same_document_negative[chosen],
            counts={name: items[name] for name in self.counts},
            num_tokens=num_tokens,
            example_ids=tuple(self.example_ids[row] for row in rows),
        )

    def to(self, device: torch.device | str) -> "PretrainBatch":
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Rows:
    """Examples with their tokens; starts in `segments` count in `tokens`."""

    segments: Segments
    tokens: npt.NDArray[np.int32]
    word_starts: Flags

    def __len__(self) -> int:
        return len(self.segments.ids)

    def take(self, rows: npt.NDArray[np.int64]) -> "Rows":
        return replace(self, segments=self.segments.take(rows))

    def layout(self, length: int) -> tuple[Flags, Int64]:
        """(batch, length) what is text in `[CLS] A [SEP] B [SEP]`, and (text tokens,) where in `tokens` each is."""
        segments, column = self.segments, np.arange(length)
        a_ends, b_ends = segments.a_lengths[:, None] + 1, segments.lengths[:, None] - 1
        in_text = (column > 0) & (column != a_ends) & (column < b_ends)
        from_a, from_b = segments.a_starts[:, None] - 1, segments.b_starts[:, None] - a_ends - 1
        return in_text, (np.where(column > a_ends, from_b, from_a) + column)[in_text]

    @classmethod
    def read(cls, spans: Spans, segments: Segments) -> "Rows":
        """Read the tokens of all segments; each begins a word, if only the rest of one longer than an example."""
        starts = np.concatenate([segments.a_starts, segments.b_starts])
        lengths = np.concatenate([segments.a_lengths, segments.b_lengths])
        tokens, word_starts = spans.read(starts, lengths)
        places = np.cumsum(lengths) - lengths
        word_starts[places[lengths > 0]] = True
        a_starts, b_starts = np.split(places, 2)
        return cls(replace(segments, a_starts=a_starts, b_starts=b_starts), tokens, word_starts)


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(part.tokens) for part in parts)])
    moved = [
        replace(part.segments, a_starts=part.segments.a_starts + start, b_starts=part.segments.b_starts + start)
        for part, start in zip(parts, before, strict=False)
    ]
    names = Segments.__dataclass_fields__
    segments = Segments(**{name: np.concatenate([getattr(part, name) for part in moved]) for name in names})
    tokens = np.concatenate([part.tokens for part in parts])
    return Rows(segments, tokens, np.concatenate([part.word_starts for part in parts]))


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden; `share` is None where none are."""

    by: MaskBy
    share: float | None
    replacements: Int64
    """Ids that may stand in for a token."""
    most: float = 0.0
    """Share by which slots for masks are counted, where that is more than `share`: one shape while shares change."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, by: MaskBy, share: float | None) -> "Masking":
        return cls(by, share, np.flatnonzero(~tokenizer.never_drawn))

    def with_share(self, share: float) -> "Masking":
        return self if self.share is None else replace(self, share=share)


def assemble(
    rows: Rows, tokenizer: Tokenizer, masking: Masking, *, length: int, seed: int, objectives: Sequence[str]
) -> PretrainBatch:
    """`[CLS] A [SEP] B [SEP]` of each row, padded to `length`, masked under `seed`."""
    segments = rows.segments
    in_text, source = rows.layout(length)
    column = np.arange(length)
    real = column < segments.lengths[:, None]  # (batch, seq)
    is_b = real & (column > segments.a_lengths[:, None] + 1)
    input_ids = np.where(real, tokenizer.sep_id, tokenizer.pad_id)  # what is neither text nor padding is [SEP]
    input_ids[:, 0] = tokenizer.cls_id
    input_ids[in_text] = rows.tokens[source]

    hidden = input_ids
    masked, labels, num_masked = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0
    if masking.share is not None:
        word_starts = ~in_text
        word_starts[in_text] = rows.word_starts[source]
        hidden, chosen = mask_tokens(
            input_ids,
            maskable(input_ids, in_text, tokenizer),
            example_keys("mask", seed, segments.epochs, segments.ids),
            share=masking.share,
            mask_id=tokenizer.mask_id,
            replacements=masking.replacements,
            by=masking.by,
            word_starts=word_starts,
        )
        num_masked = int(chosen.sum())
        masked, labels = _filled_up(input_ids, chosen, max(masking.share, masking.most))
    counts = {} if masking.share is None else {"mlm": num_masked}
    items = {
        "nsp": int((segments.labels != NO_PAIR).sum()),
        "sop": int((segments.labels != NO_PAIR).sum()),
        "agreement": int(segments.lengths.sum()),
        "smoothness": int((segments.lengths - 1).sum()),
    }
    counts |= {name: count for name, count in items.items() if name in objectives}
    return PretrainBatch(
        input_ids=torch.from_numpy(hidden),
        attention_mask=torch.from_numpy(real.astype(np.int64)),
        token_type_ids=torch.from_numpy(is_b.astype(np.int64)),
        masked_positions=torch.from_numpy(masked),
        masked_labels=torch.from_numpy(labels),
        next_sentence_label=torch.from_numpy(segments.labels),
        same_document_negative=torch.from_numpy(segments.same_document),
        counts=counts,
        num_tokens=int(segments.lengths.sum()),
        example_ids=tuple(segments.ids.tolist()),
    )


def maskable(input_ids: Int64, in_text: Flags, tokenizer: Tokenizer) -> Flags:
    """All text but unknown and unused tokens; these too where there is nothing else, so that something is masked."""
    known = in_text & ~tokenizer.never_drawn[input_ids]
    return np.where(known.any(axis=1, keepdims=True), known, in_text)


def _filled_up(input_ids: Int64, chosen: Flags, share: float) -> tuple[Int64, Int64]:
    """Flat positions and tokens that are hidden, filled up to a number that the shape alone gives.

    A word longer than an example's whole budget may take more than that example's slots, and others hardly ever leave
    it none; should they, there are twice as many, or so many times.
    """
    found = np.flatnonzero(chosen)
    num_rows, length = chosen.shape
    slots = num_rows * int(budgets(np.array([length - 2]), share)[0])
    slots *= max(1, -(-len(found) // slots))
    positions, labels = np.zeros(slots, dtype=np.int64), np.full(slots, _FILLED_UP, dtype=np.int64)
    positions[: len(found)], labels[: len(found)] = found, input_ids.reshape(-1)[found]
    return positions, labels
