"""Words of a plain text, as a tagger is given them."""

import re

_CHINESE = "㐀-䶿一-鿿豈-﫿"
_WORD = re.compile(rf"[{_CHINESE}]|[^\W{_CHINESE}]+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, single Chinese characters, single marks."""
    return _WORD.findall(text)


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """(word, start, end) of the same, in characters; `end` not included."""
    return [(found.group(), found.start(), found.end()) for found in _WORD.finditer(text)]
