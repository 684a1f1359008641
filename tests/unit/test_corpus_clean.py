import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.corpus.clean import clean_text
from bertsmith.corpus.dedup import Seen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("caf\u0065\u0301", "café"),
        ("doesnâ€™t", "doesn’t"),
        ("å¥½çš„", "好的"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\ufeffzero\u200bwidth\x00 \x07bell\x7f", "zerowidth bell"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("a \t\u00a0\u3000 b  ", "a b"),
        ("one\n \n\n\ntwo\n", "one\n\ntwo"),
        ("“引号”——好……", "“引号”——好……"),
        ("naïve façade, Übung", "naïve façade, Übung"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean_text(text) == expected


@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_clean_text_is_writable_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(character) == "Cc" for character in cleaned if character not in "\n")


def test_seen() -> None:
    seen = Seen()
    assert not seen.add("One  two\nthree")
    assert seen.add("one two THREE ")
    assert not seen.add("one two four")
