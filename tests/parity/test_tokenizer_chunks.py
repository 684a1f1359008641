"""The fast way to ids gives those of `tokenizers`, on any text, cased and uncased."""

import itertools
import random
import re
import unicodedata
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import rjieba
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.errors import UsageError
from bertsmith.tokenizer import chunks
from bertsmith.tokenizer.encode import Tokenizer, make_backend

# Of each kind of character some that are treated in their own way: controls and odd spaces, accents and marks, Chinese
# in and beside the common ranges, full-width forms, right-to-left letters, emoji and joiners, cases that change length.
KINDS = (
    "abcxyzABCXYZ0123",
    " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000\u200b\ufeff",
    "\x00\x01\x08\x0e\x7f\x9f\u00ad\ufffd\ue000\ufdd0",
    ".,;:!?'\"()[]{}#@_-+*/\\^~`|<>=$%&",
    "éüñçÅßİıſΣσςﬁǅ\u0301\u0308\u0327",
    "天安门广场\u4dbf\u4dc0\u4e00\u9fff\uf900\ufa30\U00020000\U0002b740",
    "，。！？「」ＡＢ１２ぁアㄅ한글ไทย",
    "العربيةעבריתहिन्दी",
    "👩\u200d🚀😀𝔘①½",
)


@pytest.fixture(scope="module", params=["uncased", "cased"])
def tokenizer(request: pytest.FixtureRequest, minilm_dir: Path) -> Tokenizer:
    """The real vocabulary; cased, with what makes letters and Chinese characters known there too."""
    whole = Tokenizer.load(minilm_dir)
    if request.param == "uncased":
        return whole
    tokens = dict.fromkeys([*whole.tokens(range(whole.vocab_size)), *"ABCXYZÉé天安门"])
    return Tokenizer(make_backend({token: number for number, token in enumerate(tokens)}, lowercase=False))


def check(tokenizer: Tokenizer, texts: list[str]) -> None:
    ids, ends = tokenizer.encode_flat(texts)
    expected = [found.ids for found in tokenizer._plain.encode_batch(texts, add_special_tokens=False)]
    for text, found, wanted in zip(texts, np.split(ids, ends)[:-1], expected, strict=True):
        assert found.tolist() == wanted, repr(text)
    with_words, same_ends, starts = tokenizer.encode_with_words(texts)
    assert np.array_equal(with_words, ids)
    assert np.array_equal(same_ends, ends)
    assert not (starts & tokenizer.continues_word[ids]).any()
    firsts = [0, *ends.tolist()][:-1]
    assert all(starts[first] for first, end in zip(firsts, ends.tolist(), strict=True) if first < end)


def test_ten_thousand_generated_texts(tokenizer: Tokenizer) -> None:
    draw = random.Random(7)
    texts = []
    for _ in range(10_000):
        kinds = draw.sample(KINDS, k=draw.randint(1, 4))
        texts.append("".join(draw.choice(draw.choice(kinds)) for _ in range(draw.randint(0, 40))))
    check(tokenizer, texts)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=4))
def test_any_text(tokenizer: Tokenizer, texts: list[str]) -> None:
    check(tokenizer, texts)


def test_every_character_alone_and_in_a_word(tokenizer: Tokenizer) -> None:
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    chosen = [character for character in every if ord(character) < 0x3400 or ord(character) % 37 == 0]
    check(tokenizer, [text for character in chosen for text in (character, f"a{character}b 天{character}天")])


def test_words_longer_than_any_and_caches_that_are_full(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MOST_KEPT", 3)
    check(tokenizer, ["a" * 100, "a" * 101, "b" * 5000, " ".join(f"word{number}" for number in range(200)), ""])
    assert tokenizer._chunks is not None
    assert len(tokenizer._chunks._pieces) <= 3
    tokenizer._chunks._pieces.clear()  # what was kept under another bound
    check(tokenizer, [" ".join(f"word{number}" for number in range(50))])
    assert len(tokenizer._chunks._pieces) <= 3


def test_more_texts_than_are_joined_at_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_TEXTS_AT_ONCE", 3)
    texts = ["", "a", "", "天", "b 天安门 c", "", "\x00", "a\x00 \x00b", "", ""]
    for number in range(len(texts) + 1):
        check(tokenizer, texts[:number])


def test_special_tokens_are_plain_text(tokenizer: Tokenizer) -> None:
    check(tokenizer, ["[MASK] and [UNK], [CLS]天[SEP] ##ing ## [PAD]\x00"])


def test_a_lone_surrogate_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="half of a surrogate pair"):
        tokenizer.encode_flat(["fine", "not \ud800 fine"])


def test_chinese_words(tokenizer: Tokenizer) -> None:
    ids, _, starts = tokenizer.encode_with_words(["我们在天安门广场 playing unbelievably"])
    pieces = tokenizer.tokens(ids.tolist())
    words: list[list[str]] = []
    for piece, begins in zip(pieces, starts, strict=True):
        words.append([piece]) if begins else words[-1].append(piece)
    assert [len(word) for word in words[:3]] == [2, 1, 5]
    assert words[3] == ["playing"]
    assert words[4][0] == "un"


def test_words_are_those_of_rjieba_and_of_the_pre_tokenizer(tokenizer: Tokenizer) -> None:
    """Put together again from the two witnesses themselves, run by run."""
    draw = random.Random(11)
    known = [
        "我们",
        "在",
        "天安门",
        "广场",
        "机器学习",
        "，",
        " ",
        "GPT-4o",
        "playing",
        "Zürich",
        "3.14",
        "é",
        "𠀀",
        "研究生命起源",
    ]
    texts = ["".join(draw.choices(known, k=12)) for _ in range(200)]
    _, ends, starts = tokenizer.encode_with_words(texts)
    place = 0
    for text, end in zip(texts, ends.tolist(), strict=True):
        words: list[int] = []
        for part in re.findall("[\u4e00-\u9fff]+|[^\u4e00-\u9fff]+", text):
            if "\u4e00" <= part[0] <= "\u9fff":
                words += map(len, rjieba.cut(part))
            else:
                word_ids = tokenizer._plain.encode(part, add_special_tokens=False).word_ids
                words += [len(list(same)) for _, same in itertools.groupby(word_ids)]
        expected = np.zeros(end - place, dtype=bool)
        expected[np.cumsum([0, *words[:-1]])] = True
        assert starts[place:end].tolist() == expected.tolist(), text
        place = end


@pytest.mark.data
@pytest.mark.parametrize("name", ["corpus/en/reuters.txt", "corpus/zh/modern.jsonl", "thucnews/dev.txt"])
def test_real_text(tokenizer: Tokenizer, shared_data: Path, name: str) -> None:
    with (shared_data / name).open(encoding="utf-8") as file:
        check(tokenizer, list(islice(file, 300)))
