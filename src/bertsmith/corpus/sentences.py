"""Where sentences end, in English and Chinese text.

`sentencex` (rules of 244 languages) does the work; a small layer mends what it misses in Chinese: the end after "……"
and after a closing quote behind a stop.
"""

import re

import sentencex

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[A-Za-z]")
_CLOSING = "”’」』）》】\"')"
# A stop, then closing marks if any, with more text behind it that does not go on with the clause.
_CHINESE_END = re.compile(f"(?:[。！？!?]+|…{{2,}}|⋯{{2,}})[{_CLOSING}]*(?=[^{_CLOSING}。！？!?…⋯，、；：,;:\\s])")
_OPEN_AFTER_QUOTE = re.compile(f"[。！？!?…⋯][{_CLOSING}]+$")
# What follows a quotation within the same sentence: he said, 's, and the like.
_GOES_ON = re.compile(
    "^(?:的|地|得|之|等|这|那|了|说|道|问|答|云|曰|他说|她说|我说|他道|她道|我问|他问|她问|他喊|她喊|喊|叫)"
)


def language_of(text: str) -> str:
    """`zh` where Chinese characters are more than half as many as Latin letters, else `en`."""
    han = len(_HAN.findall(text))
    return "zh" if han * 2 > len(_LETTER.findall(text)) else "en"


def split_sentences(text: str) -> tuple[str, ...]:
    """Sentences of a text; a line break always ends one."""
    language = language_of(text[:10_000])
    found: list[str] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        for sentence in sentencex.segment(language, line):
            if language == "zh":
                found.extend(_split_chinese(sentence))
            else:
                found.append(sentence.strip())
    return tuple(sentence for sentence in found if sentence)


def _split_chinese(sentence: str) -> list[str]:
    parts: list[str] = []
    start = 0
    for match in _CHINESE_END.finditer(sentence):
        part, rest = sentence[start : match.end()], sentence[match.end() :]
        if _OPEN_AFTER_QUOTE.search(part) and _GOES_ON.match(rest):
            continue
        if not _balanced(part):
            continue
        parts.append(part.strip())
        start = match.end()
    parts.append(sentence[start:].strip())
    return parts


def _balanced(part: str) -> bool:
    """False inside a quotation: a stop there ends a sentence of the quotation, not the one around it."""
    return all(
        part.count(opening) <= part.count(closing) for opening, closing in ("“”", "「」", "『』", "（）", "《》")
    )
