"""Runs of words as numbers: what near duplicates and overlaps are found by.

A token is a word (letters, digits and marks, case folded) or a single Chinese, Japanese or Thai character, which stand
without spaces. Punctuation parts tokens and is none. All of it is arithmetic on whole arrays, modulo 2**64.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_PRIME = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: odd, and with no pattern in its bits (Knuth, vol. 3, 6.4)."""
_NOTHING, _IN_WORD, _ALONE = range(3)
_WRITTEN_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI")
_PAST_LETTERS = 0x34000
"""Unicode 17 has no letter from here on."""
_CHARACTERS_AT_ONCE = 1_000_000
"""Some 50 MB of arrays, however long the document."""
_BORDER = re.compile(r"\W")
_POWERS = np.array([pow(int(_PRIME), power, 2**64) for power in range(256)], np.uint64)


def token_hashes(text: str) -> Hashes:
    """(tokens,): a hash of each token, in order. Words are told apart by their characters and places, modulo 256."""
    pieces, start = [np.empty(0, np.uint64)], 0
    while start < len(text):
        border = _BORDER.search(text, start + _CHARACTERS_AT_ONCE)
        stop = border.start() if border else len(text)
        pieces.append(_token_hashes(text[start:stop]))
        start = stop
    return np.concatenate(pieces)


def _token_hashes(text: str) -> Hashes:
    codes = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[codes]
    starts_token = kinds == _ALONE
    in_word = kinds == _IN_WORD
    starts_token[:1] |= in_word[:1]
    starts_token[1:] |= in_word[1:] & ~in_word[:-1]
    belongs = np.flatnonzero(kinds)
    if not len(belongs):
        return np.empty(0, np.uint64)
    starts = np.flatnonzero(starts_token[belongs])
    places = np.arange(len(belongs)) - np.repeat(starts, np.diff(starts, append=len(belongs)))
    hashes = (codes[belongs] + np.uint64(1)) * _POWERS[(places + 1) & 255]
    return _mixed(np.add.reduceat(hashes, starts))


def gram_hashes(tokens: Hashes, length: int) -> Hashes:
    """(tokens - length + 1,): a hash of each run of `length` tokens; none where there are fewer tokens."""
    *_, grams = growing_grams(tokens, length)
    return grams


def growing_grams(tokens: Hashes, longest: int) -> Iterator[Hashes]:
    """Hashes of the runs of 1, 2, ... `longest` tokens: polynomials in the tokens, each a step from the one before."""
    grams = tokens
    yield grams
    for length in range(2, longest + 1):
        grams = grams[:-1] * _PRIME + tokens[length - 1 :] if len(grams) else grams
        yield grams


def _mixed(hashes: Hashes) -> Hashes:
    """Every bit of each number to every other: the last step of SplitMix64 (Steele, Lea and Flood 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is to a token."""
    kinds = np.zeros(sys.maxunicode + 1, np.uint8)
    for code in range(_PAST_LETTERS):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            alone = unicodedata.name(character, "").startswith(_WRITTEN_WITHOUT_SPACES)
            kinds[code] = _ALONE if alone else _IN_WORD
    return kinds
