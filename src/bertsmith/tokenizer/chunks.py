"""Ids of many texts, fast: what stands between spaces is encoded once and remembered.

BERT's normaliser and pre-tokenizer look at no character beyond a space, nor beyond a Chinese one, which is always a
word of its own. So a text's ids are those of its chunks, one after another, and real text repeats its chunks: most of
the work is a dictionary lookup, driven from C. What is new is encoded here where it is ASCII, by the same greedy
longest match (Wu et al., 2016, arXiv:1609.08144; BERT's tokenization.py), and by `tokenizers` where it is not.
"""

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import rjieba
import tokenizers

from bertsmith.errors import UsageError

Ids = tuple[int, ...]

UNKNOWN = "[UNK]"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_HAS_HAN = re.compile(f"[{_HAN}]")
_RUNS = re.compile(f"[{_HAN}]+|[^\\s{_HAN}]+")
# Where Python sees a space and BERT a control character, which it drops: "a\x0bb" is one word.
_ODD_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_PUNCTUATION = str.maketrans({character: f" {character} " for character in string.punctuation})
_CONTROLS = str.maketrans(dict.fromkeys([*range(9), *range(14, 32), 127]))
_LONGEST_KEPT = 64
_MOST_KEPT = 250_000
"""Chunks remembered; at some 250 bytes each, under 70 MB. Forgotten all at once, which changes no id."""
_INSIDE_WORD = 1 << 30
"""Set in an id whose character goes on with a Chinese word."""


class ChunkEncoder:
    """Encodes texts with one vocabulary, in which special tokens are plain text."""

    def __init__(
        self, backend: tokenizers.Tokenizer, vocabulary: Mapping[str, int], *, lowercase: bool, longest_word: int
    ):
        self._backend = backend
        self._chunks = _Chunks(_Words(vocabulary, longest_word), lowercase=lowercase, rest=self._by_backend)
        self._characters = _Characters(vocabulary)

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> "ChunkEncoder | None":
        """An encoder with the ids of `backend`, or None where it does not do as BERT does."""
        parts: dict[str, Any] = json.loads(backend.to_str())
        normalizer, model = parts["normalizer"] or {}, parts["model"]
        is_standard = (
            normalizer.get("type") == "BertNormalizer"
            and normalizer["clean_text"]
            and normalizer["handle_chinese_chars"]
            and (parts["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
            and model["type"] == "WordPiece"
            and model["continuing_subword_prefix"] == "##"
            and model["unk_token"] == UNKNOWN
            and all(token["special"] for token in parts["added_tokens"])
        )
        if not is_standard:
            return None
        longest = model["max_input_chars_per_word"]
        return cls(backend, model["vocab"], lowercase=normalizer["lowercase"], longest_word=longest)

    def flat(self, texts: Iterable[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Ids of all texts end to end, (ids,), and where each text ends, (texts,)."""
        character = self._characters.__getitem__
        return self._flat(texts, lambda run: map(character, run))

    def flat_with_han_words(
        self, texts: Iterable[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """As `flat`, and (ids,) True where a Chinese character goes on with a word, as `rjieba` parts them."""
        words, cut = _HanWords(self._characters), rjieba.cut
        word = words.__getitem__
        marked, ends = self._flat(texts, lambda run: chain.from_iterable(map(word, cut(run))))
        return marked & np.int32(~_INSIDE_WORD), ends, (marked & np.int32(_INSIDE_WORD)) != 0

    def _flat(
        self, texts: Iterable[str], han: Callable[[str], Iterable[int]]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        ids: list[int] = []
        ends: list[int] = []
        chunk = self._chunks.__getitem__
        for text in texts:
            if _ODD_SPACES.search(text):
                ids += self._by_backend(text)
            elif text.isascii() or not _HAS_HAN.search(text):
                ids += chain.from_iterable(map(chunk, text.split()))
            else:
                for run in _RUNS.findall(text):
                    ids += han(run) if "\u4e00" <= run[0] <= "\u9fff" or "\u3400" <= run[0] <= "\u4dbf" else chunk(run)
            ends.append(len(ids))
        return np.array(ids, dtype=np.int32), np.array(ends, dtype=np.int64)

    def _by_backend(self, text: str) -> Sequence[int]:
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise UsageError(
                "a text holds half of a surrogate pair, which is no character; leave it out or replace it"
            ) from error


class _Kept(dict[str, Ids]):
    """Remembers the ids of texts, up to a number of them; a subclass says how they are found."""

    def find(self, text: str) -> Ids:
        raise NotImplementedError

    def __missing__(self, text: str) -> Ids:
        ids = self.find(text)
        if len(text) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[text] = ids
        return ids


class _Chunks(_Kept):
    """Text without spaces and without Chinese characters: words and punctuation."""

    def __init__(self, words: "_Words", *, lowercase: bool, rest: Callable[[str], Sequence[int]]):
        super().__init__()
        self.words, self.lowercase, self.rest = words, lowercase, rest

    def find(self, text: str) -> Ids:
        if not text.isascii():
            return tuple(self.rest(text))
        if not text.isprintable():
            text = text.translate(_CONTROLS)
        lowered = text.lower() if self.lowercase else text
        return tuple(chain.from_iterable(map(self.words.__getitem__, lowered.translate(_PUNCTUATION).split())))


class _Words(_Kept):
    """A word: the longest piece that begins it, then the longest that goes on, or `[UNK]` where there is none."""

    def __init__(self, vocabulary: Mapping[str, int], longest_word: int):
        super().__init__()
        self.vocabulary, self.longest_word = vocabulary, longest_word
        self.unknown = (vocabulary[UNKNOWN],)

    def find(self, text: str) -> Ids:
        if len(text) > self.longest_word:
            return self.unknown
        pieces: list[int] = []
        start, prefix = 0, ""
        while start < len(text):
            for end in range(len(text), start, -1):
                found = self.vocabulary.get(prefix + text[start:end])
                if found is not None:
                    break
            else:
                return self.unknown
            pieces.append(found)
            start, prefix = end, "##"
        return tuple(pieces)


class _Characters(dict[str, int]):
    """A Chinese character: itself, or `[UNK]`. There are some 30,000, so all are kept."""

    def __init__(self, vocabulary: Mapping[str, int]):
        super().__init__()
        self.vocabulary, self.unknown = vocabulary, vocabulary[UNKNOWN]

    def __missing__(self, character: str) -> int:
        number = self[character] = self.vocabulary.get(character, self.unknown)
        return number


class _HanWords(_Kept):
    """A Chinese word: its characters, all but the first marked."""

    def __init__(self, characters: _Characters):
        super().__init__()
        self.characters = characters

    def find(self, text: str) -> Ids:
        first, *others = (self.characters[character] for character in text)
        return (first, *(number | _INSIDE_WORD for number in others))
