"""Counting words: those of BERT, in bounded memory, the same however the work is cut."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from bertsmith.tokenizer.count import WordCounts, bert_splitter, count_words, split_words

ALPHABET = "abAB \t\n\x0b\x1c\x85\u00a0\u3000\u200b天安\U00020000\uf900,.!é\u0301İﬁ"


def test_words_are_those_of_bert() -> None:
    texts = ["Don't STOP, the Cafe\u0301 at 天安门!", "don't\x00 stop"]
    counts = count_words(texts, bert_splitter(lowercase=True))
    assert counts.words == Counter(
        {"don": 2, "'": 2, "t": 2, "stop": 2, ",": 1, "the": 1, "cafe": 1, "at": 1, "天": 1, "安": 1, "门": 1, "!": 1}
    )
    assert counts.total == counts.words.total() == 16
    assert counts.han_words == 3
    assert counts.characters["o"] == 4
    assert "STOP" in count_words(texts, bert_splitter(lowercase=False)).words


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(ALPHABET, max_size=30), max_size=8), lowercase=st.booleans())
def test_the_short_way_counts_what_the_long_way_does(texts: list[str], lowercase: bool) -> None:
    splitter = bert_splitter(lowercase=lowercase)
    counts = count_words(texts, splitter)
    assert counts.words == Counter(word for text in texts for word in split_words(text, splitter))
    assert counts.characters == Counter("".join(counts.words.elements()))


def test_another_pre_tokenizer_is_taken_at_its_word() -> None:
    splitter = bert_splitter(lowercase=True)
    splitter.normalizer = normalizers.Lowercase()
    splitter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert count_words(["Don't 天安门 don't"], splitter).words == Counter({"don't": 2, "天安门": 1})


def test_very_long_words_are_counted_but_not_kept() -> None:
    counts = count_words(["a" * 100 + " " + "b" * 101 + " c"], bert_splitter(lowercase=True))
    assert set(counts.words) == {"a" * 100, "c"}
    assert (counts.total, counts.too_long, counts.characters["b"]) == (3, 1, 101)


def test_the_rarest_are_dropped_in_a_stated_way(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = WordCounts(Counter(a=5, b=1, c=3, d=1), Counter(), total=10)
    counts.add(WordCounts(Counter(a=1, e=1), Counter("aaaaae"), total=2), most_words=4)
    assert counts.words == Counter(a=6, c=3)
    assert (counts.total, counts.dropped) == (12, 3)
    assert counts.characters["e"] == 1  # of dropped words too
    tie = WordCounts(Counter(d=2, c=2, b=2, a=2), Counter(), total=8)
    tie.drop_rarest(3)
    assert tie.words == Counter(a=2)
    monkeypatch.setattr("bertsmith.tokenizer.count._CHUNKS_AT_ONCE", 3)
    within = count_words(["x y x", "z w v u", "x x x"], bert_splitter(lowercase=True), most_words=4)
    assert within.words["x"] == 5
    assert within.total == within.words.total() + within.dropped == 10
