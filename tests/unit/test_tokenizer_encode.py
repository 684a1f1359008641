import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.errors import CheckpointError
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend

PIECES = ["the", "play", "##ing", "##er", "s", "##s", "天", "地", ",", ".", "[", "]", "mask", "cat"]
VOCABULARY = [*SPECIAL_TOKENS, "[unused0]", *PIECES]


def make(lowercase: bool = True) -> Tokenizer:
    return Tokenizer(make_backend({token: number for number, token in enumerate(VOCABULARY)}, lowercase=lowercase))


def test_encode_batch() -> None:
    tokenizer = make()
    text = "The PLAYERS, 天地 xyz."
    encoded = tokenizer.encode_batch([text, ""])
    assert tokenizer.tokens(encoded[0].ids) == ["the", "play", "##er", "##s", ",", "天", "地", "[UNK]", "."]
    assert encoded[0].word_ids == [0, 1, 1, 1, 2, 3, 4, 5, 6]
    assert [text[start:end] for start, end in encoded[0].offsets] == [
        *("The", "PLAY", "ER", "S", ",", "天", "地", "xyz", "."),
    ]  # fmt: skip
    assert encoded[1].ids == []


def test_special_tokens_written_in_the_text() -> None:
    tokenizer = make()
    encoded = tokenizer.encode_batch(["The [MASK] plays [MASK][MASK]."])[0]
    assert tokenizer.tokens(encoded.ids) == ["the", "[MASK]", "play", "##s", "[MASK]", "[MASK]", "."]
    assert encoded.word_ids == [0, 1, 2, 2, 3, 4, 5]
    assert tokenizer.tokens(tokenizer.encode_ids(["The [MASK]."])[0]) == ["the", "[", "mask", "]", "."]
    words = tokenizer.encode_words([["[MASK]", "cat"]])[0]
    assert (tokenizer.tokens(words.ids), words.first) == (["[", "mask", "]", "cat"], [0, 3])


def test_encode_words() -> None:
    tokenizer = make()
    rows = [["Playing", "cats,", "\u200b", "天地"], [], ["\x00"]]
    first, empty, vanished = tokenizer.encode_words(rows)
    assert tokenizer.tokens(first.ids) == ["play", "##ing", "cat", "##s", ",", "[UNK]", "天", "地"]
    assert first.first == [0, 2, 5, 6]
    assert (empty.ids, empty.first) == ([], [])
    assert (vanished.ids, vanished.first) == ([tokenizer.unk_id], [0])


@given(st.lists(st.lists(st.text(max_size=12), max_size=6), min_size=1, max_size=4))
def test_every_word_has_a_first_piece(rows: list[list[str]]) -> None:
    for row, encoded in zip(rows, make().encode_words(rows), strict=True):
        assert len(encoded.first) == len(row)
        assert sorted(set(encoded.first)) == encoded.first
        assert all(number < len(encoded.ids) for number in encoded.first)


def test_flags() -> None:
    tokenizer = make()
    never = [token for token, flag in zip(VOCABULARY, tokenizer.never_drawn, strict=True) if flag]
    assert never == [*SPECIAL_TOKENS, "[unused0]"]
    continues = [token for token, flag in zip(VOCABULARY, tokenizer.continues_word, strict=True) if flag]
    assert continues == ["##ing", "##er", "##s"]
    assert tokenizer.lowercase
    assert not make(lowercase=False).lowercase


def test_decode() -> None:
    tokenizer = make()
    ids = tokenizer.encode_batch(["the players, the cat."])[0].ids
    assert tokenizer.decode(ids) == "the players, the cat."
    assert tokenizer.tokens([10_000]) == ["[UNK]"]


def test_save_and_load(tmp_path: Path) -> None:
    make().save(tmp_path)
    text = "The players, 天地 [MASK] xyz."
    expected = make().encode_batch([text])
    assert Tokenizer.load(tmp_path).encode_batch([text]) == expected
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path).encode_batch([text]) == expected  # from vocab.txt alone
    assert Tokenizer.load(str(tmp_path)).vocab_size == len(VOCABULARY)


def test_case_is_read_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\r\n".join(VOCABULARY) + "\r\n", newline="")
    assert Tokenizer.load(tmp_path).lowercase
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 128}))
    assert not Tokenizer.load(tmp_path).lowercase
    assert Tokenizer.load(tmp_path).model_max_length == 128


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    backend = make_backend({token: number for number, token in enumerate(VOCABULARY)}, lowercase=True)
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.load(tmp_path).encode_batch(["the cat plays"])[0].ids) == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds neither tokenizer.json nor vocab.txt"),
        ({"tokenizer.json": "{"}, "is not a tokenizer file"),
        ({"vocab.txt": "[PAD]\n[UNK]\na\n"}, r"the vocabulary has no \[CLS\]"),
        ({"vocab.txt": "a\nb\na\n"}, "same token on two lines"),
        ({"vocab.txt": "a\n", "tokenizer_config.json": "{"}, "not valid JSON"),
    ],
)
def test_broken_directories(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.load(tmp_path)


def test_other_models_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    Backend(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="holds a BPE model; BERT needs WordPiece"):
        Tokenizer.load(tmp_path)


def test_a_name_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"'/no/such/folder': no such directory"):
        Tokenizer.load("/no/such/folder")

    def offline(*arguments: object, **settings: object) -> str:
        assert "vocab.txt" in settings["allow_patterns"]  # type: ignore[operator]
        assert not any("safetensors" in pattern for pattern in settings["allow_patterns"])  # type: ignore[attr-defined]
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"'bert-tiny': no such directory, and the model hub did not give it"):
        Tokenizer.load("bert-tiny")
