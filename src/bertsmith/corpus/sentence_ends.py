"""Corrections to `sentencex`: where a sentence goes on although its rules end it, and ends although they do not.

Each came up in real text; tests/unit/test_corpus_sentences.py has an example of every row.
"""

import re

# ---- ends ----

CLOSING = "”’」』）》】\"')"
# A stop, then closing marks if any, with more text behind it that does not go on with the same clause.
CHINESE_END = re.compile(f"(?:[。！？!?]+|…{{2,}}|⋯{{2,}})[{CLOSING}]*(?=\\s*[^{CLOSING}。！？!?…⋯，、；：,;:\\s])")
# An ellipsis that is one character: Hm… Well.
ENGLISH_END = re.compile("…[”’\"')]*(?=\\s+[“‘\"'(]?[A-Z])")

# ---- Chinese: the sentence goes on ----

QUOTE_END = re.compile(f"[。！？!?…⋯][{CLOSING}]+$")
# Words that go on with the sentence around a quotation: 他说“好。”的时候，“学而不厌。”这句话
AFTER_QUOTE = re.compile("的|地|得|之|等|了|时|[这那](?:句|个|种|一|些|首|段|番|几)")
PAIRS = (("“", "”"), ("‘", "’"), ("「", "」"), ("『", "』"), ("（", "）"), ("《", "》"))
# A title that ends with a mark is a part of its sentence: 我读了《怎么办？》这本书。
_TITLE_END = re.compile("[！？!?…]》$")
_MIDDLE = "，、；：,;:"
_INITIAL = re.compile(r"(?:^|[^A-Za-z])[A-Z]\.$")
_NEXT_INITIAL = re.compile(r"[A-Z]\.")

# ---- English: the sentence goes on ----

_LIST_NUMBER = re.compile(r"\(?(?:[0-9]{1,3}|[A-Za-z]|[ivxIVX]{1,5})[.)]")
_LONGEST_LIST_NUMBER = 6
_NUMBERED = re.compile(
    r"\b(?:appendix|app|approx|art|ch|chap|col|eq|ex|fig|figs|ill|no|nos|op|p|par|pl|pp|pt|sec|sect|tab|ver|vol|vols)\.$",
    re.IGNORECASE,
)
_LONGEST_NUMBERED = 12
_DASHES = "-–—"
_EXCLAIMED = re.compile(f"![{CLOSING}]*$")


def goes_on(left: str, right: str, language: str) -> bool:
    """Whether `right` belongs to the sentence that `left` begins; both without spaces around them, neither empty."""
    if len(left) <= _LONGEST_LIST_NUMBER and _LIST_NUMBER.fullmatch(left):
        return True  # 3. Third
    return _goes_on_in_chinese(left, right) if language == "zh" else _goes_on_in_english(left, right)


def _goes_on_in_chinese(left: str, right: str) -> bool:
    if right[0] in _MIDDLE:
        return True  # “走吧。”，便走了
    if left[-1] == "》":
        return _TITLE_END.search(left) is not None
    return left[-1] == "." and _INITIAL.search(left) is not None and _NEXT_INITIAL.match(right) is not None  # W.H.奥登


def _goes_on_in_english(left: str, right: str) -> bool:
    first = right[0]
    if first in _DASHES:
        first = right.lstrip(_DASHES + " ")[:1]
        return first.islower()  # it opened! --exactly like a box
    if first.islower():
        # alas! she must go. Text that is all in lower case ends its sentences so.
        return not left[0].islower() and _EXCLAIMED.search(left) is not None
    return first.isdigit() and _NUMBERED.search(left[-_LONGEST_NUMBERED:]) is not None  # vol. 3
