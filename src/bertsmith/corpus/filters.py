"""What a document is made of, as far as its characters and lines tell: letters, scripts, repetition."""

import functools
import sys
import typing
import unicodedata
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from bertsmith.config import Script

_SCRIPTS: tuple[str, ...] = typing.get_args(Script)
_PAST_LETTERS = 0x34000
"""Unicode 17 has no letter from here on."""
_CHARACTERS_AT_ONCE = 1_000_000
_SPACE, _NO_LETTER, _OTHER_LETTER, _FIRST_SCRIPT = range(4)


def character_counts(text: str) -> npt.NDArray[np.int64]:
    """(3 + scripts,): spaces, characters that are neither space nor letter, letters of no named script, then of each
    script of `config.Script`. Marks that belong to a letter, such as vowel signs, count as letters.
    """
    counts = np.zeros(_FIRST_SCRIPT + len(_SCRIPTS), np.int64)
    for start in range(0, len(text), _CHARACTERS_AT_ONCE):
        piece = text[start : start + _CHARACTERS_AT_ONCE]
        codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
        counts += np.bincount(_classes()[codes], minlength=len(counts))
    return counts


def non_letter_share(counts: npt.NDArray[np.int64]) -> float:
    """Share of the characters, spaces aside, that are digits, punctuation or symbols; 1 for no characters."""
    visible = int(counts[_NO_LETTER:].sum())
    return int(counts[_NO_LETTER]) / visible if visible else 1.0


def script_share(counts: npt.NDArray[np.int64], scripts: Collection[str]) -> float:
    """Share of the letters that are written in one of `scripts`; 0 for no letters."""
    letters = int(counts[_OTHER_LETTER:].sum())
    wanted = sum(int(counts[_FIRST_SCRIPT + number]) for number, name in enumerate(_SCRIPTS) if name in scripts)
    return wanted / letters if letters else 0.0


def repeated_line_share(text: str) -> float:
    """Share of the characters of all lines that is in lines which stood earlier in the same text."""
    lines = [line for line in text.split("\n") if line]
    distinct = set(lines)
    if len(distinct) == len(lines):
        return 0.0
    return 1 - sum(map(len, distinct)) / sum(map(len, lines))


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """The class of each code point. A letter's script is the first word of its Unicode name that names one, so that
    FULLWIDTH LATIN and HALFWIDTH KATAKANA are found; Chinese characters are called CJK.
    """
    numbers = {name.upper(): _FIRST_SCRIPT + number for number, name in enumerate(_SCRIPTS)}
    numbers["CJK"] = numbers["HAN"]
    classes = np.full(sys.maxunicode + 1, _NO_LETTER, np.uint8)
    for code in range(_PAST_LETTERS):
        character = chr(code)
        category = unicodedata.category(character)
        if character.isspace():
            classes[code] = _SPACE
        elif category[0] in "LM":
            words = unicodedata.name(character, "").split(" ", 2)[:2]
            classes[code] = next((numbers[word] for word in words if word in numbers), _OTHER_LETTER)
    return classes
