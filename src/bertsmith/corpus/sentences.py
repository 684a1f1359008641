"""Where sentences end, in English and Chinese text.

`sentencex` (rules for 244 languages) does the work; a small layer mends what it misses in Chinese: the end after "……",
the end after a stop with a closing quote behind it, and stray closing marks that belong to the sentence before.
"""

import re

import sentencex

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN = re.compile("[A-Za-z]")
_LANGUAGE_SAMPLE = 1000
_CLOSING = "”’」』）》】\"')"
# A stop, then closing marks if any, with more text behind it that does not go on with the same clause.
_CHINESE_END = re.compile(f"(?:[。！？!?]+|…{{2,}}|⋯{{2,}})[{_CLOSING}]*(?=[^{_CLOSING}。！？!?…⋯，、；：,;:\\s])")
_QUOTE_END = re.compile(f"[。！？!?…⋯][{_CLOSING}]+$")
# Words that go on with the sentence around a quotation: 他说“好。”的时候
_GOES_ON = re.compile("的|地|得|之|等|这|那|了|时")
_PAIRS = (("“", "”"), ("‘", "’"), ("「", "」"), ("『", "』"), ("（", "）"), ("《", "》"))
_STRAY = re.compile("[”’」』）》】]+")
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
    found: list[str] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        in_line: list[str] = []
        for sentence in sentencex.segment(language, line):
            for part in _split_chinese(sentence) if language == "zh" else (sentence,):
                stripped = part.strip()
                stray = _STRAY.match(stripped)
                if in_line and stray:
                    in_line[-1] += stray.group()
                    stripped = stripped[stray.end() :].strip()
                if in_line and not _TEXT.search(stripped):
                    in_line[-1] += stripped  # a lone stop or quote
                elif stripped:
                    in_line.append(stripped)
        found.extend(in_line)
    return tuple(found)


def _split_chinese(sentence: str) -> list[str]:
    parts: list[str] = []
    start = 0
    for match in _CHINESE_END.finditer(sentence):
        part = sentence[start : match.end()]
        goes_on = _QUOTE_END.search(part) and _GOES_ON.match(sentence, match.end())
        # Inside a quotation a stop ends a sentence of the quotation, not the one around it.
        if not goes_on and all(part.count(opening) <= part.count(closing) for opening, closing in _PAIRS):
            parts.append(part)
            start = match.end()
    return [*parts, sentence[start:]]
