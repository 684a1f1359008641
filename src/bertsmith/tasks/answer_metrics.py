"""Exact match and F1 of answers found in texts, as the official scripts of SQuAD 2 and CMRC 2018 count them.

    English    (Rajpurkar et al. 2018) lower case, no punctuation, no articles; F1 over words that both have
    Chinese    (Cui et al. 2019) no punctuation; F1 over the longest run of characters, or of words in other scripts,
               that both have

Of several true answers the nearest counts. Where there is none, the answer must be empty.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_MARKS = frozenset(string.punctuation)
_CHINESE_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""Those that the script of CMRC 2018 leaves out."""
_CHINESE_PARTS = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,'][^\W\u4e00-\u9fa5]+)*|[^\w\s]")


def exact_match(truth: Sequence[str], answer: str, *, chinese: bool) -> float:
    """1 where the answer is one of the true ones, but for case, marks and articles; else 0."""
    bare = _bare_chinese if chinese else _bare_english
    return float(any(bare(one) == bare(answer) for one in truth or ("",)))


def f1(truth: Sequence[str], answer: str, *, chinese: bool) -> float:
    """2 P R / (P + R) of what the answer and a true one share, of the nearest true one."""
    score = _f1_chinese if chinese else _f1_english
    return max(score(one, answer) for one in truth or ("",))


ANSWER_SCORES: dict[str, Callable[..., float]] = {"f1": f1, "exact_match": exact_match}
"""Metric -> function of a question's true answers, the answer, and whether the texts are Chinese."""


def _bare_english(text: str) -> str:
    kept = "".join(character for character in text.lower() if character not in _ASCII_MARKS)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _bare_chinese(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _CHINESE_MARKS)


def _f1_english(truth: str, answer: str) -> float:
    expected, found = _bare_english(truth).split(), _bare_english(answer).split()
    if not expected or not found:
        return float(expected == found)
    return _harmonic((Counter(expected) & Counter(found)).total(), len(expected), len(found))


def _f1_chinese(truth: str, answer: str) -> float:
    expected, found = _CHINESE_PARTS.findall(_bare_chinese(truth)), _CHINESE_PARTS.findall(_bare_chinese(answer))
    if not expected or not found:
        return float(expected == found)
    return _harmonic(_longest_run(expected, found), len(expected), len(found))


def _harmonic(shared: int, expected: int, found: int) -> float:
    """2 P R / (P + R), with P = shared / found and R = shared / expected."""
    return 2 * shared / (expected + found)


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Parts of the longest run that stands in both."""
    best, before = 0, [0] * (len(other) + 1)
    for part in one:
        row = [0] * (len(other) + 1)
        for place, other_part in enumerate(other, start=1):
            if part == other_part:
                row[place] = before[place - 1] + 1
        best, before = max(best, *row), row
    return best
