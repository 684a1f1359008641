"""New words: old ids stay, old pieces are remembered, and what could never be found is refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.errors import UsageError
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend
from bertsmith.tokenizer.extend import extend_vocabulary, propose_words

PIECES = ("c", "##a", "##r", "##d", "##i", "##o", "car", "##dio", "heart", "天", "é", "e", "##g", "##m")
TOKENS = (*SPECIAL_TOKENS, "[unused0]", "[unused10]", "[unused2]", *PIECES)


def tokenizer_of(*tokens: str, lowercase: bool = True) -> Tokenizer:
    return Tokenizer(make_backend({token: number for number, token in enumerate(tokens)}, lowercase=lowercase))


OLD = tokenizer_of(*TOKENS)


def test_new_words_come_after_the_last_id() -> None:
    extended = extend_vocabulary(OLD, ["Cardio", "heart", "##dimo", "cardio", "地"])
    size = len(TOKENS)
    assert extended.added == {"cardio": size, "##dimo": size + 1, "地": size + 2}
    assert extended.known == ("heart",)
    new = extended.tokenizer
    assert new.tokens(range(size)) == list(TOKENS)
    assert new.vocab_size == size + 3
    assert [new.tokens(ids) for ids in new.encode_ids(["Cardio", "cardiogram", "car", "地天"])] == [
        ["cardio"],
        ["cardio", "##g", "##r", "##a", "##m"],
        ["car"],
        ["地", "天"],
    ]
    assert OLD.vocab_size == size  # the old one is as it was
    assert OLD.encode_ids(["cardio"]) != new.encode_ids(["cardio"])


def test_old_pieces_are_remembered() -> None:
    extended = extend_vocabulary(OLD, ["cardio", "##dioa", "地", "##zz", "heartzz"])
    number = OLD.token_id
    assert {token: extended.old_ids[added] for token, added in extended.added.items()} == {
        "cardio": [number("car"), number("##dio")],
        "##dioa": [number("##dio"), number("##a")],
        "地": [OLD.unk_id],
        "##zz": [OLD.unk_id],
        "heartzz": [OLD.unk_id],
    }


def test_free_slots_first_where_asked() -> None:
    extended = extend_vocabulary(OLD, ["cardio", "cardi", "card", "cara"], use_unused=True)
    assert extended.added == {"cardio": 5, "cardi": 7, "card": 6, "cara": len(TOKENS)}
    assert extended.tokenizer.token_id("[unused0]") is None
    assert extended.tokenizer.tokens([8, 9]) == list(TOKENS[8:10])
    assert extend_vocabulary(OLD, ["cardio"]).added == {"cardio": len(TOKENS)}


def test_saved_and_loaded(tmp_path: Path) -> None:
    extended = extend_vocabulary(OLD, ["cardio", "地"])
    extended.tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    texts = ["A cardio 天地 [MASK]", "heart cardi"]
    assert again.encode_batch(texts) == extended.tokenizer.encode_batch(texts)
    assert again.encode_ids(texts) == extended.tokenizer.encode_ids(texts)
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines() == [*TOKENS, "cardio", "地"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("heart attack", "'heart attack' is 2 words to this tokenizer: heart attack; an entry is one word"),
        ("covid-19", "3 words to this tokenizer: covid - 19"),
        ("心脏", r"2 words to this tokenizer: 心 脏 \(each Chinese character is a word to BERT\)"),
        ("\x00", "holds no character that the tokenizer keeps"),
        ("a" * 101, "has 101 characters; a word has 100 at most"),
        ("[unused0]", "3 words"),
    ],
)
def test_what_is_no_word(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        extend_vocabulary(OLD, [word])


def test_proposals_are_those_that_save_most() -> None:
    words = {"cardio": 10, "cardi": 10, "heart": 999, "cargo": 4, "地": 15, "car9": 99, "caro": 5, "card": 5}
    found = propose_words(OLD, words, 10)
    # 地 is [UNK] and counts as two pieces; heart is one already; cargo is rare; car9 has a digit
    assert [(one.word, one.saved) for one in found] == [
        ("cardi", 20),
        ("地", 15),
        ("cardio", 10),
        ("card", 5),
        ("caro", 5),
    ]
    assert found[2].pieces == ("car", "##dio")
    assert propose_words(OLD, words, 2) == found[:2]
    assert propose_words(OLD, words, 10, min_count=16) == []


@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(st.text("cardioheg天地é", min_size=1, max_size=8), max_size=12),
    text=st.text("cardiohegm 天地éX", max_size=40),
)
def test_texts_without_the_new_words_keep_their_ids(words: list[str], text: str) -> None:
    alone = [word for word in words if len(word) == 1 or not any(character in "天地" for character in word)]
    extended = extend_vocabulary(OLD, alone)
    new = extended.tokenizer
    assert new.tokens(range(OLD.vocab_size)) == OLD.tokens(range(OLD.vocab_size))
    assert sorted(extended.added.values()) == list(range(OLD.vocab_size, new.vocab_size))
    for token in extended.added:
        assert new.encode_ids([token]) == [[extended.added[token]]]
    ids = new.encode_ids([text])[0]
    if not set(ids) & set(extended.added.values()):
        assert ids == OLD.encode_ids([text])[0]
