"""What `BertTokenizer` refuses, and what its result can do."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from bertsmith.errors import UsageError
from bertsmith.tokenizer.bert import BertTokenizer
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, make_backend

VOCABULARY = [*SPECIAL_TOKENS, "the", "play", "##ing", "##s", "天", "地", ",", ".", "cat"]


def make(*added: AddedToken) -> BertTokenizer:
    backend = make_backend({token: number for number, token in enumerate(VOCABULARY)}, lowercase=True)
    backend.add_tokens(list(added))
    return BertTokenizer(backend)


def test_a_pair() -> None:
    tokenizer = make()
    found = tokenizer("the cats", "天地", padding="max_length", max_length=9, return_special_tokens_mask=True)
    assert tokenizer.convert_ids_to_tokens(found.input_ids) == [
        *("[CLS]", "the", "cat", "##s", "[SEP]", "天", "地", "[SEP]", "[PAD]"),
    ]  # fmt: skip
    assert found.token_type_ids == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert found.attention_mask == [1] * 8 + [0]
    assert found.special_tokens_mask == [1, 0, 0, 0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "choices", "message"),
    [
        (("not \ud800 fine",), {}, "half of a surrogate pair"),
        (("not [MASK] \udfff fine",), {}, "half of a surrogate pair"),
        ((["fine", "not \ud800 fine"],), {"return_offsets_mapping": True}, "half of a surrogate pair"),
        ((["fine", 3.5],), {"return_offsets_mapping": True}, "must be a string, and 3.5 is float"),
        (("the", ["cat"]), {}, "a text takes a text as its pair"),
        ((["the"], "cat"), {}, "a text takes a text as its pair"),
        ((["the"], ["a", "b"]), {}, "1 texts and 2 pairs"),
        (("the",), {"truncation": "middle"}, "truncation='middle': allowed are True, False, 'longest_first'"),
        (("the",), {"padding": "left"}, "padding='left': allowed are True, False, 'longest', 'max_length'"),
        (("the",), {"return_tensors": "tf"}, "return_tensors='tf': allowed are 'np', 'pt'"),
        ((["the", "the cat"],), {"return_tensors": "np"}, "rows of 3 to 4 tokens make no 'np' tensor"),
        (("the", "cat"), {"max_length": 2}, "max_length=2 has no room for the 3 special tokens"),
        (("the cat", "cat"), {"truncation": "only_second", "max_length": 5}, "cannot take 1 tokens from a text of 1"),
    ],
)
def test_refusals(arguments: tuple[Any, ...], choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()(*arguments, **choices)


def test_no_texts() -> None:
    assert make()([], padding=True) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}


def test_the_result() -> None:
    found = make()(["the"], return_tensors="pt").to("meta")
    assert found.input_ids.device == torch.device("meta")
    with pytest.raises(AttributeError, match="this encoding has no 'labels'; it has input_ids, token_type_ids"):
        _ = found.labels


@pytest.mark.parametrize(
    "added", [AddedToken("Cat", normalized=True), AddedToken("<x>", normalized=False)], ids=lambda token: token.content
)
def test_tokens_that_somebody_added(added: AddedToken) -> None:
    """The backend's word goes: a token found in the normalised text, or one that is not special."""
    tokenizer = make(added)
    texts = ["the CATs <x> play", "the <x>cat, cats", "plays"]
    assert tokenizer(texts, add_special_tokens=False).input_ids == [
        found.ids for found in tokenizer._backend.encode_batch(texts, add_special_tokens=False)
    ]


def test_lists_do_without_torch() -> None:
    code = "import sys, bertsmith; bertsmith.BertTokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
