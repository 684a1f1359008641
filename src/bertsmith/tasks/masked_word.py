"""Masked words: which words stood at [MASK]? (Devlin et al. 2018, section 3.1, task 1)

Learned from plain texts, of which each epoch hides other words: a pure function of (seed, epoch, part of a text). What
is validated and tested always has the same 15 % hidden. A trained model fills in the [MASK]s that a text has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from bertsmith.examples.assemble import maskable
from bertsmith.examples.draws import UInt64, example_keys
from bertsmith.examples.mask import Flags, MaskBy, mask_tokens
from bertsmith.model.language import BertForMaskedLM
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.features import Features, Floats, Ints, Ragged
from bertsmith.tasks.records import Place, collect, find_data_file
from bertsmith.tasks.texts import record_text
from bertsmith.tasks.word_task import PlainRow, Tally, WordFeatures, WordTask, check_has_words, likeliest
from bertsmith.tokenizer.encode import Tokenizer

MASK = "[MASK]"
TOP = 5
SCORED_SHARE = 0.15
"""Of the words that are hidden where a model is scored."""
_AT_ONCE = 1024
_SCORED_SEED = 0


@dataclass(frozen=True, slots=True)
class Blank:
    """A hidden word."""

    guesses: tuple[tuple[str, float], ...]
    """The likeliest pieces of the vocabulary and their probabilities."""
    truth: str | None = None
    """The piece that was hidden; None where the text came with [MASK]."""
    loss: float = 0.0
    """-log p of it."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The text with its [MASK]s filled in by the likeliest words, and what is known of each."""

    text: str
    blanks: tuple[Blank, ...]


@dataclass(frozen=True)
class MaskedTexts(WordFeatures):
    """Texts with some tokens hidden, and as they were."""

    whole: npt.NDArray[np.int32] = field(kw_only=True)
    """(all tokens,) with nothing hidden."""
    word_starts: Flags = field(kw_only=True)
    """(all tokens,) True where a word begins, and for [CLS] and [SEP]."""


@dataclass(frozen=True)
class MaskedWord(WordTask[Filled]):
    """Text -> its hidden words."""

    mask_share: float = SCORED_SHARE
    """Of a text's tokens, in training."""
    mask_by: MaskBy = "token"

    name = "masked-word"
    head = BertForMaskedLM
    expected = f"a text with {MASK} in it"
    top = TOP

    @property
    def options(self) -> dict[str, Any]:
        return {"mask_share": self.mask_share, "mask_by": self.mask_by}

    def with_options(self, **options: Any) -> Self:
        return replace(self, **options)

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[PlainRow]:
        rows = super().read(source, columns, require_labels=require_labels)
        if require_labels:
            return rows
        place = Place(find_data_file(source) if isinstance(source, str | Path) else None)

        def with_mask(row: PlainRow) -> PlainRow:
            if MASK not in row.text:
                raise place.error(f"no {MASK} in the text; write one where a word is to be filled in", row.line)
            return row

        return collect(rows, with_mask)

    def row(self, given: object, line: int) -> PlainRow | None:
        return super().row(given, line) if isinstance(given, str) and MASK in given else None

    def encode(
        self, rows: Sequence[PlainRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> WordFeatures:
        """Texts in parts of at most `max_length` tokens; with `labels` words are hidden, else the [MASK]s are items."""
        if labels is None:
            return _with_given_masks(rows, tokenizer, max_length)
        ids, ends, starts = tokenizer.encode_with_words([row.text for row in rows])
        sequences: list[list[int]] = []
        word_starts: list[npt.NDArray[np.bool_]] = []
        owners: list[int] = []
        for number, (text, flags) in enumerate(zip(np.split(ids, ends[:-1]), np.split(starts, ends[:-1]), strict=True)):
            for start in range(0, len(text), max_length - 2):
                part = slice(start, start + max_length - 2)
                sequences.append([tokenizer.cls_id, *text[part].tolist(), tokenizer.sep_id])
                # A part begins a word, if only the rest of one; so does what is no word.
                word_starts.append(np.concatenate([[True, True], flags[part][1:], [True]]))
                owners.append(number)
        check_has_words(owners)
        tokens = Ragged.of(sequences)
        plain = MaskedTexts(
            tokens=tokens,
            items=Ragged.of([[]] * len(sequences)),
            targets=np.zeros(0, dtype=np.int64),
            cut_tokens=np.zeros(len(sequences), dtype=np.int64),
            rows=np.array(owners, dtype=np.int64),
            tokenizer=tokenizer,
            whole=tokens.values,
            word_starts=np.concatenate(word_starts),
        )
        return self._scored(plain)

    def redraw(self, batch: TaskBatch, features: Features, *, seed: int, epoch: int) -> TaskBatch:
        assert isinstance(features, MaskedTexts), "made by encode"
        examples = np.array(batch.example_ids, dtype=np.int64)
        keys = example_keys(self.name, seed, np.full(len(examples), epoch), examples)
        seq = batch.input_ids.shape[1]
        whole, hidden, chosen = self._hide(features, examples, keys, share=self.mask_share, seq=seq)
        items = np.flatnonzero(chosen)
        return replace(
            batch,
            input_ids=torch.from_numpy(hidden),
            items=torch.from_numpy(items),
            targets=torch.from_numpy(whole.reshape(-1)[items]),
            counts=dict.fromkeys(batch.counts, len(items)),
        )

    def decode(
        self,
        rows: Sequence[PlainRow],
        features: Features,
        outputs: Floats,
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[Filled]:
        assert isinstance(features, WordFeatures), "made by encode"
        probabilities, ids = likeliest(outputs)
        words = features.tokenizer.tokens(ids.reshape(-1).tolist())
        top = ids.shape[1]
        guesses = [
            tuple(zip(words[number * top : (number + 1) * top], shares, strict=True))
            for number, shares in enumerate(np.round(probabilities, 6).tolist())
        ]
        if features.targets is None:
            blanks = [Blank(some) for some in guesses]
        else:
            truths, losses = features.tokenizer.tokens(features.targets.tolist()), outputs[:, 0].tolist()
            blanks = [Blank(*found) for found in zip(guesses, truths, losses, strict=True)]
        starts = features.item_starts(len(rows))
        found = [tuple(blanks[low:high]) for low, high in pairwise(starts)]
        return [Filled(_fill(row.text, some), some) for row, some in zip(rows, found, strict=True)]

    def tally(self, answer: Filled) -> Tally:
        right = sum(blank.guesses[0][0] == blank.truth for blank in answer.blanks)
        return Tally(sum(blank.loss for blank in answer.blanks), len(answer.blanks), right)

    def record(self, number: int, row: PlainRow, answer: Filled) -> dict[str, Any]:
        blanks = [
            {
                **({} if blank.truth is None else {"truth": blank.truth, "loss": round(blank.loss, 6)}),
                "guesses": dict(blank.guesses),
            }
            for blank in answer.blanks
        ]
        filled = answer.text if MASK in row.text else None
        return {**record_text(number, row), "filled": filled, "blanks": blanks}

    def told(self, row: PlainRow, answer: Filled) -> tuple[str, str]:  # noqa: ARG002
        truths = " ".join(blank.truth or MASK for blank in answer.blanks)
        return truths, " ".join(blank.guesses[0][0] for blank in answer.blanks)

    def _scored(self, plain: MaskedTexts) -> MaskedTexts:
        """With the words hidden that are scored: as many, and the same, whatever the seed."""
        values = plain.whole.copy()
        items: list[list[int]] = []
        targets: list[Ints] = []
        for start in range(0, len(plain), _AT_ONCE):
            examples = np.arange(start, min(start + _AT_ONCE, len(plain)))
            keys = example_keys(self.name, _SCORED_SEED, np.zeros_like(examples), examples)
            seq = int(plain.tokens.lengths[examples].max())
            whole, hidden, chosen = self._hide(plain, examples, keys, share=SCORED_SHARE, seq=seq)
            inside = np.arange(seq) < plain.tokens.lengths[examples][:, None]
            values[plain.tokens.indices(examples)[0]] = hidden[inside]
            items += [np.flatnonzero(row).tolist() for row in chosen]
            targets.append(whole[chosen])
        tokens = Ragged(values, plain.tokens.starts)
        return replace(plain, tokens=tokens, items=Ragged.of(items), targets=np.concatenate(targets))

    def _hide(
        self, features: MaskedTexts, examples: Ints, keys: UInt64, *, share: float, seq: int
    ) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """Ids, padded to `seq`, as they are and with words hidden, and where they are hidden: (batch, seq) each."""
        tokenizer, lengths = features.tokenizer, features.tokens.lengths[examples]
        column = np.arange(seq)
        inside = column < lengths[:, None]
        source, _ = features.tokens.indices(examples)
        whole = np.full(inside.shape, tokenizer.pad_id, dtype=np.int64)
        whole[inside] = features.whole[source]
        word_starts = np.ones(inside.shape, dtype=bool)
        word_starts[inside] = features.word_starts[source]
        in_text = (column > 0) & (column < lengths[:, None] - 1)
        hidden, chosen = mask_tokens(
            whole,
            maskable(whole, in_text, tokenizer),
            keys,
            share=share,
            mask_id=tokenizer.mask_id,
            replacements=np.flatnonzero(~tokenizer.never_drawn),
            by=self.mask_by,
            word_starts=word_starts,
        )
        return whole, hidden, chosen


def _with_given_masks(rows: Sequence[PlainRow], tokenizer: Tokenizer, max_length: int) -> WordFeatures:
    sequences: list[list[int]] = []
    items: list[list[int]] = []
    owners: list[int] = []
    for number, encoded in enumerate(tokenizer.encode_batch([row.text for row in rows])):
        for start in range(0, len(encoded.ids), max_length - 2):
            part = encoded.ids[start : start + max_length - 2]
            sequences.append([tokenizer.cls_id, *part, tokenizer.sep_id])
            items.append([place for place, piece in enumerate(part, start=1) if piece == tokenizer.mask_id])
            owners.append(number)
    return WordFeatures(
        tokens=Ragged.of(sequences),
        items=Ragged.of(items),
        targets=None,
        cut_tokens=np.zeros(len(sequences), dtype=np.int64),
        rows=np.array(owners, dtype=np.int64),
        tokenizer=tokenizer,
    )


def _fill(text: str, blanks: Sequence[Blank]) -> str:
    """The text with the likeliest words at its [MASK]s; a piece that continues a word is joined to it."""
    first, *rest = text.split(MASK)
    filled = first
    for blank, after in zip(blanks, rest, strict=False):
        guess = blank.guesses[0][0]
        filled = (filled.rstrip() + guess.removeprefix("##") if guess.startswith("##") else filled + guess) + after
    return filled
