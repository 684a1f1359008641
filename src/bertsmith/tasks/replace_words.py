"""Words replaced by those that a masked language model puts in their place (Kobayashi 2018, arXiv:1805.06201).

The words to be replaced are masked, all of a row at once, and each is drawn from the `top_k` likeliest whole words of
the vocabulary, by their probability, never the word itself. A Chinese word of n characters has n masks; the words
proposed for it are those of the training rows with as many characters, and a word is as likely as the product over its
characters. In tagged sentences words of entities stay: the model does not know of what type its proposals are.

Unlike Kobayashi's, the model is not told the row's label, so that a proposal may speak against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch.nn import functional as F

from bertsmith.errors import UsageError
from bertsmith.runtime import Runtime, detect
from bertsmith.tasks.edits import HAN_RUN, OUTSIDE, Draws, Segments
from bertsmith.tasks.features import Floats, Ints
from bertsmith.tasks.fill import MaskFiller


@dataclass(frozen=True)
class _Place:
    """A word that may be replaced."""

    segment: int
    word: int
    chunk: int
    """Its number in what the model reads."""
    masks: int


@dataclass(frozen=True)
class Words:
    """Words that may be proposed, of as many pieces each."""

    texts: tuple[str, ...]
    ids: Ints
    """(words, pieces)"""

    @cached_property
    def alike(self) -> Mapping[str, list[int]]:
        """Word without capitals -> numbers of the words that it is."""
        found: dict[str, list[int]] = {}
        for number, text in enumerate(self.texts):
            found.setdefault(text.casefold(), []).append(number)
        return found


@dataclass(frozen=True)
class WordReplacer:
    """A masked language model, ready to propose."""

    filler: MaskFiller
    top_k: int
    chinese: Mapping[int, Words]
    """Characters -> words of the training rows."""

    @classmethod
    def load(cls, name: str | Path, rows: Sequence[Segments], *, top_k: int, runtime: Runtime | None = None) -> Self:
        """The model of a directory, run or hub name; `rows` are those whose Chinese words are proposed.

        Raises `CheckpointError` where its language head was never trained, `UsageError` where its vocabulary has fewer
        than two whole words.
        """
        runtime = detect(dtype="float32") if runtime is None else replace(runtime, dtype=torch.float32)
        filler = MaskFiller.load(name, runtime=runtime)
        found = sorted(
            {word.text for row in rows for segment in row for word in segment.words if _is_chinese(word.text)}
        )
        by_length: dict[int, list[tuple[str, list[int]]]] = {}
        for text, ids in zip(found, filler.tokenizer.encode_ids(found), strict=True):
            if len(ids) == len(text) and filler.tokenizer.unk_id not in ids:
                by_length.setdefault(len(ids), []).append((text, ids))
        chinese = {
            length: Words(tuple(text for text, _ in words), np.array([ids for _, ids in words], dtype=np.int64))
            for length, words in by_length.items()
        }
        made = cls(filler, top_k, chinese)
        if len(made.vocabulary.alike) < 2 and not chinese:
            raise UsageError(f"the vocabulary of {name} has no whole words to propose; give another model")
        return made

    @cached_property
    def vocabulary(self) -> Words:
        """Whole words of letters in the model's vocabulary; Chinese characters are no words."""
        tokenizer = self.filler.tokenizer
        tokens = tokenizer.tokens(range(tokenizer.vocab_size))
        chosen = [
            number
            for number, token in enumerate(tokens)
            if token.isalpha() and not _is_chinese(token) and not tokenizer.never_drawn[number]
        ]
        return Words(tuple(tokens[number] for number in chosen), np.array(chosen, dtype=np.int64).reshape(-1, 1))

    def replace(self, segments: Segments, draws: Draws, changes: int) -> Segments | None:
        """`changes` words replaced; None where there is none that can be."""
        chunks, places = self._read(segments)
        if not places:
            return None
        chosen = [places[number] for number in draws.sample(len(places), min(changes, len(places)))]
        logs = self._log_probabilities(chunks, chosen, second_from=_second_from(segments))
        found = [list(segment.words) for segment in segments]
        for place in chosen:
            own, logs = logs[: place.masks], logs[place.masks :]
            old = found[place.segment][place.word]
            found[place.segment][place.word] = replace(old, text=self._proposal(old.text, own, draws))
        return tuple(replace(segment, words=tuple(words)) for segment, words in zip(segments, found, strict=True))

    def _proposal(self, old: str, logs: Floats, draws: Draws) -> str:
        """logs: (masks, vocab)"""
        words = self._proposed_for(old)
        assert words is not None, "a place"
        scores = logs[np.arange(len(logs)), words.ids].sum(axis=1, dtype=np.float64)  # (words,)
        scores[words.alike.get(old.casefold(), [])] = -np.inf
        others = np.flatnonzero(np.isfinite(scores))
        best = others[np.argsort(-scores[others], kind="stable")[: self.top_k]]
        shares = np.exp(scores[best] - scores[best].max())
        at = draws.below(1 << 53) / (1 << 53) * shares.sum()
        drawn = min(int(np.searchsorted(np.cumsum(shares), at, side="right")), len(best) - 1)
        return _in_the_case_of(old, words.texts[best[drawn]])

    def _proposed_for(self, text: str) -> Words | None:
        """What may stand in a word's place; None where nothing may but itself."""
        words = self.chinese.get(len(text)) if _is_chinese(text) else self.vocabulary
        return words if words is not None and len(words.alike) > 1 else None

    def _read(self, segments: Segments) -> tuple[list[list[int]], list[_Place]]:
        """Token ids of each word, and of what stands between, [SEP] last; and the words that may be replaced, as far as
        the model can read.
        """
        tokenizer = self.filler.tokenizer
        texts = [
            text
            for each in segments
            for text in (each.before, *(part for w in each.words for part in (w.text, w.after)))
        ]
        encoded = iter(tokenizer.encode_ids(texts))
        room = self.filler.model.config.max_position_embeddings - 1
        chunks, places, length = [[tokenizer.cls_id]], [], 1
        for number, segment in enumerate(segments):
            chunks.append(next(encoded))
            length += len(chunks[-1])
            is_fixed = bool(segment.tags) and segment.pool != OUTSIDE
            for place, word in enumerate(segment.words):
                chunks += [next(encoded), next(encoded)]
                masks = len(word.text) if _is_chinese(word.text) else 1
                is_word = any(map(str.isalpha, word.text)) and self._proposed_for(word.text) is not None
                if is_word and not is_fixed and length + max(masks, len(chunks[-2])) <= room:
                    places.append(_Place(number, place, len(chunks) - 2, masks))
                length += len(chunks[-2]) + len(chunks[-1])
            if not segment.tags or number == len(segments) - 1:
                chunks.append([tokenizer.sep_id])
                length += 1
        return chunks, places

    def _log_probabilities(self, chunks: list[list[int]], chosen: Sequence[_Place], *, second_from: int) -> Floats:
        """(masks, vocab) of the chosen words' masks, in order; a row alone, so that they hang on nothing else."""
        tokenizer, config = self.filler.tokenizer, self.filler.model.config
        masks = {place.chunk: place.masks for place in chosen}
        ids: list[int] = []
        types: list[int] = []
        positions: list[int] = []
        for number, chunk in enumerate(chunks):
            if number in masks:
                positions += range(len(ids), len(ids) + masks[number])
                chunk = [tokenizer.mask_id] * masks[number]
            ids += chunk
            types += [int(second_from <= number)] * len(chunk)
        longest = config.max_position_embeddings
        if len(ids) > longest:
            ids, types = [*ids[: longest - 1], tokenizer.sep_id], types[:longest]
        model, device = self.filler.model, self.filler.runtime.device
        with torch.no_grad():
            hidden = model.masked_states(
                torch.tensor([ids], device=device),
                torch.tensor(positions, device=device),
                token_type_ids=torch.tensor([types], device=device),
            ).hidden
            logits = F.linear(hidden, model.decoder_weight, model.decoder_bias)
        found: Floats = logits.float().log_softmax(dim=-1).cpu().numpy()
        return found


def _second_from(segments: Segments) -> int:
    """Number of the chunk with which the second text of a pair begins; past all others where there is none."""
    is_pair = len(segments) == 2 and not segments[0].tags
    return 3 + 2 * len(segments[0].words) if is_pair else 1 << 30


def _is_chinese(text: str) -> bool:
    return bool(HAN_RUN.fullmatch(text))


def _in_the_case_of(old: str, new: str) -> str:
    """A word of a vocabulary without capitals, written as the one in whose place it stands."""
    if not new.islower():
        return new
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[:1].isupper() else new
