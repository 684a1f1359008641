"""Where sentences end, in English and Chinese text.

`sentencex` (rules for 244 languages) does the work; sentence_ends.py corrects it. A Chinese line without Latin stops
and quotes needs nothing of it: there, marks that only end sentences, and the quotes around them, tell all.
"""

import re
from collections.abc import Iterator

import sentencex

from bertsmith.corpus.sentence_ends import (
    AFTER_QUOTE,
    CHINESE_END,
    ENGLISH_END,
    PAIRS,
    QUOTE_END,
    goes_on,
)

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN = re.compile("[A-Za-z]")
_LANGUAGE_SAMPLE = 1000
_STRAY = re.compile("[”’」』）》】]+")
_LATIN_MARK = re.compile("[.\"']")
_TEXT = re.compile(r"\w")


def language_of(text: str) -> str:
    """`zh` where Chinese characters are more than half as many as Latin letters at the text's start, else `en`."""
    start = text[:_LANGUAGE_SAMPLE]
    if start.isascii():
        return "en"
    return "zh" if len(_HAN.findall(start)) * 2 > len(_LATIN.findall(start)) else "en"


def split_sentences(text: str) -> tuple[str, ...]:
    """Sentences of a text, without the spaces around them; a line break always ends one."""
    language = language_of(text)
    split = _chinese_parts if language == "zh" else _english_parts
    found: list[str] = []
    for line in text.split("\n"):
        parts = split(line)
        if len(parts) == 1:
            found.append(line.strip())
        else:
            found.extend(_joined(parts, language))
    return tuple(filter(None, found))


def _english_parts(line: str) -> list[str]:
    parts: list[str] = sentencex.segment("en", line)
    return [half for part in parts for half in _cut(part, _ellipses(part))] if "…" in line else parts


def _chinese_parts(line: str) -> list[str]:
    if _LATIN_MARK.search(line):
        return [half for part in sentencex.segment("zh", line) for half in _cut(part, _chinese_ends(part))]
    return _cut(line, _chinese_ends(line)) if CHINESE_END.search(line) else [line]


def _cut(text: str, ends: Iterator[int]) -> list[str]:
    borders = [0, *ends]
    return [text[start:stop] for start, stop in zip(borders, [*borders[1:], len(text)], strict=True)]


def _ellipses(text: str) -> Iterator[int]:
    return (match.end() for match in ENGLISH_END.finditer(text))


def _chinese_ends(text: str) -> Iterator[int]:
    # A mark without its partner says nothing about where a quotation ends.
    pairs = [pair for pair in PAIRS if 0 < text.count(pair[0]) == text.count(pair[1])]
    start = 0
    for match in CHINESE_END.finditer(text):
        if pairs:
            part = text[start : match.end()]
            if QUOTE_END.search(part) and AFTER_QUOTE.match(text, match.end()):
                continue
            # Inside a quotation a stop ends a sentence of the quotation, not the one around it.
            if any(part.count(opening) > part.count(closing) for opening, closing in pairs):
                continue
        start = match.end()
        yield start


def _joined(parts: list[str], language: str) -> Iterator[str]:
    """The parts, with those put together again that are no sentences by themselves."""
    whole = ""
    for part in parts:
        text = part.strip()
        stray = _STRAY.match(text)
        if whole and stray:
            whole = whole.rstrip() + stray.group()
            part = part.lstrip()[stray.end() :]
            text = part.strip()
        left = whole.rstrip()
        if not left or not text:
            whole += part
        elif not _TEXT.search(text):
            whole = left + part.strip()  # a lone stop or quote
        elif goes_on(left, text, language):
            whole += part
        else:
            yield whole.strip()
            whole = part
    yield whole.strip()
