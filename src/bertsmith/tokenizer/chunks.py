"""Ids of many texts, fast: each word is encoded once and remembered.

BERT's normaliser and pre-tokenizer look at no character beyond a space, a mark of punctuation or a Chinese character,
and each of the latter two is a word of its own. So a text's ids are those of its words, one after another, and real
text repeats its words: most of the work is a dictionary lookup, driven from C. What a word gives is remembered as
bytes, so that the ids of a thousand texts are one `b"".join` and no Python number is made; Chinese characters are
looked up in an array, all at once. A new word is encoded here where it is ASCII, by the greedy longest match of BERT's
WordPiece (Wu et al., 2016, arXiv:1609.08144), and by `tokenizers` where it is not.
"""

import json
import re
import string
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from bertsmith.errors import UsageError

Flat = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]

UNKNOWN = "[UNK]"
LONE_SURROGATE = "a text holds half of a surrogate pair, which is no character; leave it out or replace it"
_TEXTS_AT_ONCE = 1_000
_FIRST_HAN, _LAST_HAN = "\u3400", "\u9fff"
_HAN_RUNS = re.compile("([\u3400-\u4dbf\u4e00-\u9fff]+)")
_MARKS = [mark.encode() for mark in string.punctuation]
_TYPESET_MARKS = [mark.encode() for mark in "‘’“”–—…«»"]
_CONTROLS = bytes([*range(1, 9), *range(11, 13), *range(14, 32), 127])
"""What BERT drops; Python would see a space in some of them, such as in "a\x0bb"."""
_NEXT_LINE = "\x85".encode()
"""The one such character beyond ASCII."""
_LOWER = bytes(range(256)).lower()
_END, _END_ID = "\0", -1
"""Put after each text. BERT drops this character, so no text needs it."""
_LONGEST_KEPT = 64
_MOST_KEPT = 250_000
"""Words remembered; at some 150 bytes each, 40 MB. Forgotten all at once, which changes no id."""
_INSIDE_WORD = 1 << 30
"""Set in the id of a piece that goes on with a word."""


class ChunkEncoder:
    """Encodes texts with one vocabulary, in which special tokens are plain text."""

    def __init__(
        self, backend: tokenizers.Tokenizer, vocabulary: Mapping[str, int], *, lowercase: bool, longest_word: int
    ):
        self._pieces = _Pieces(backend, vocabulary, longest_word)
        self._lower = _LOWER if lowercase else None
        self._han_ids = np.full(ord(_LAST_HAN) - ord(_FIRST_HAN) + 1, vocabulary[UNKNOWN], dtype=np.int32)
        for token, number in vocabulary.items():
            if len(token) == 1 and _FIRST_HAN <= token <= _LAST_HAN:
                self._han_ids[ord(token) - ord(_FIRST_HAN)] = number

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

    def flat(self, texts: Sequence[str], *, han_words: bool = False) -> Flat:
        """Ids of all texts end to end, (ids,); where each text ends, (texts,); True where a word begins, (ids,).

        A Chinese character is a word, or with `han_words` a part of one, as `rjieba` parts them.
        Raises `UsageError` for a lone surrogate.
        """
        starts = range(0, len(texts), _TEXTS_AT_ONCE)
        groups = [self._marked(texts[start : start + _TEXTS_AT_ONCE], han_words) for start in starts]
        marked = np.concatenate(groups) if groups else np.empty(0, dtype=np.int32)
        is_end = marked == _END_ID
        ends = np.flatnonzero(is_end) - np.arange(len(texts))
        ids = marked[~is_end]
        return ids & (_INSIDE_WORD - 1), ends, ids < _INSIDE_WORD

    def _marked(self, texts: Sequence[str], han_words: bool) -> npt.NDArray[np.int32]:
        """Ids, those inside a word with `_INSIDE_WORD`, and `_END_ID` after each text."""
        joined = self._joined(texts)
        parts = _HAN_RUNS.split(joined.decode()) if _may_have_han(joined) else [joined.decode()]
        others, runs = [self._pieces[part] for part in parts[::2]], parts[1::2]
        ids = np.frombuffer(b"".join(others), dtype=np.int32)
        if not runs:
            return ids
        counts = np.empty(len(parts), dtype=np.int64)
        counts[::2] = np.fromiter(map(len, others), dtype=np.int64) // ids.itemsize
        counts[1::2] = np.fromiter(map(len, runs), dtype=np.int64)
        is_han = np.repeat(np.arange(len(parts)) % 2 == 1, counts)
        marked = np.empty(len(is_han), dtype=np.int32)
        marked[~is_han] = ids
        marked[is_han] = self._han(runs, han_words)
        return marked

    def _joined(self, texts: Sequence[str]) -> bytes:
        """In UTF-8: each text with `_END` after it, in lower case if need be, spaces around marks of punctuation."""
        joined = f" {_END} ".join([*texts, ""])
        if joined.count(_END) > len(texts):
            joined = f" {_END} ".join([*(text.replace(_END, "") for text in texts), ""])
        try:
            data = joined.encode()
        except UnicodeEncodeError as error:
            raise UsageError(LONE_SURROGATE) from error
        data = data.translate(self._lower, _CONTROLS)
        marks = _MARKS
        if not data.isascii():
            data = data.replace(_NEXT_LINE, b"")
            marks = _MARKS + _TYPESET_MARKS
        for mark in marks:
            data = data.replace(mark, b" " + mark + b" ")
        return data

    def _han(self, runs: Sequence[str], han_words: bool) -> npt.NDArray[np.int32]:
        characters = np.frombuffer("".join(runs).encode("utf-16-le"), dtype="<u2")
        ids: npt.NDArray[np.int32] = self._han_ids[characters - ord(_FIRST_HAN)]
        if han_words:
            import rjieba  # reads its dictionary, which English does not need

            lengths = np.fromiter(map(len, chain.from_iterable(map(rjieba.cut, runs))), dtype=np.int64)
            starts = ids[np.cumsum(lengths) - lengths]
            ids |= _INSIDE_WORD
            ids[np.cumsum(lengths) - lengths] = starts
        return ids


def _may_have_han(data: bytes) -> bool:
    """False where no byte begins a character from U+3000 on, as in English: a search for them would take long."""
    return bool(np.frombuffer(data, dtype=np.uint8).max(initial=0) >= _FIRST_HAN.encode()[0])


class _Pieces(dict[str, bytes]):
    """Remembers the ids of words as bytes of int32, up to a number of them; a text without Chinese is its words."""

    def __init__(self, backend: tokenizers.Tokenizer, vocabulary: Mapping[str, int], longest_word: int):
        super().__init__()
        self.backend, self.longest_word, self.unknown = backend, longest_word, vocabulary[UNKNOWN]
        self.beginning = dict(vocabulary)
        self.inside = {token[2:]: n | _INSIDE_WORD for token, n in vocabulary.items() if token.startswith("##")}
        self.continuing = {number & ~_INSIDE_WORD for number in self.inside.values()}
        self.longest_inside = max(map(len, self.inside), default=0)

    def __missing__(self, text: str) -> bytes:
        words = text.split()
        if words != [text]:
            ids = b"".join(map(self.__getitem__, words))
        elif text == _END:
            ids = array("i", [_END_ID]).tobytes()
        elif text.isascii():
            ids = self.match(text).tobytes()
        else:
            found = self.backend.encode(text, add_special_tokens=False).ids
            ids = array("i", [n | _INSIDE_WORD if n in self.continuing else n for n in found]).tobytes()
        if len(text) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[text] = ids
        return ids

    def match(self, word: str) -> "array[int]":
        """The longest piece that begins the word, then the longest that goes on; `[UNK]` where there is none."""
        length = len(word)
        if length > self.longest_word:
            return array("i", [self.unknown])
        ids = array("i")
        start, pieces, longest = 0, self.beginning, length
        while start < length:
            for end in range(min(length, start + longest), start, -1):
                found = pieces.get(word[start:end])
                if found is not None:
                    break
            else:
                return array("i", [self.unknown])
            ids.append(found)
            start, pieces, longest = end, self.inside, self.longest_inside
        return ids
