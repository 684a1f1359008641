"""`BertTokenizer` gives what `transformers`' own gives: the same columns, cut, padded and marked alike."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

import bertsmith
from bertsmith.errors import UsageError

TEXTS = [
    "Hello, World! It's a café in Zürich; naïve façade.",
    "天安门广场在北京, 他用 Python 写程序。",
    "A [MASK] in the text, [CLS][SEP] and [UNK] too; [mask] is none.",
    "emoji 👩‍🚀🚀 and العربية עברית \x00 \x85 \x0b end",
    "unbelievably " * 7,
    "a",
    "",
    "   ",
]
PAIRS = [*TEXTS[3:], *TEXTS[:3]]
COLUMNS = {"return_special_tokens_mask": True, "return_offsets_mapping": True}


@pytest.fixture(scope="module")
def ours(minilm_dir: Path) -> bertsmith.BertTokenizer:
    return bertsmith.BertTokenizer.from_pretrained(minilm_dir)


@pytest.fixture(scope="module")
def theirs(minilm_dir: Path) -> Any:
    return BertTokenizerFast.from_pretrained(str(minilm_dir))


def plain(encoding: Any) -> dict[str, Any]:
    """Columns by name, with pairs as tuples and arrays as lists."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in encoding.items()}


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
@pytest.mark.parametrize("special", [True, False], ids=["special", "bare"])
@pytest.mark.parametrize("padding", [False, True, "longest", "max_length"])
@pytest.mark.parametrize(("truncation", "max_length"), [
    *itertools.product((None, False, True, "longest_first"), (None, 3, 4, 9, 16, 31)),
    ("only_first", 64), ("only_second", 64),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:`max_length` is ignored")
def test_batches(
    ours: Any,
    theirs: Any,
    pairs: list[str] | None,
    special: bool,
    padding: Any,
    truncation: Any,
    max_length: int | None,
) -> None:
    choices = {"add_special_tokens": special, "padding": padding, "truncation": truncation, "max_length": max_length}
    expected = theirs(TEXTS, pairs, **choices, **COLUMNS)
    assert plain(ours(TEXTS, pairs, **choices, **COLUMNS)) == plain(expected)
    fast = plain(ours(TEXTS, pairs, **choices, return_special_tokens_mask=True))
    assert fast == {name: value for name, value in plain(expected).items() if name != "offset_mapping"}


@pytest.mark.parametrize("cut", ["only_first", "only_second"])
@pytest.mark.parametrize("max_length", range(3, 20))
def test_cutting_one_of_a_pair(ours: Any, theirs: Any, cut: Any, max_length: int) -> None:
    """Where the peer cannot, nor can we."""
    for text, pair in itertools.product(TEXTS[:6], PAIRS[:6]):
        choices = {"truncation": cut, "max_length": max_length, **COLUMNS}
        try:
            expected = theirs(text, pair, **choices)
        except Exception:  # the library raises bare Exception
            with pytest.raises(UsageError, match="give a larger max_length, or truncation='longest_first'"):
                ours(text, pair, **choices)
        else:
            assert plain(ours(text, pair, **choices)) == plain(expected)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=40)] * 2), min_size=1, max_size=4
    ),
    max_length=st.integers(3, 24),
    cut=st.sampled_from([True, False]),
)
def test_any_pairs(ours: Any, theirs: Any, texts: list[tuple[str, str]], max_length: int, cut: bool) -> None:
    firsts, seconds = map(list, zip(*texts, strict=True))
    choices = {"padding": "max_length", "truncation": cut, "max_length": max_length, **COLUMNS}
    assert plain(ours(firsts, seconds, **choices)) == plain(theirs(firsts, seconds, **choices))


@pytest.mark.parametrize("text", TEXTS)
def test_one_text(ours: Any, theirs: Any, text: str) -> None:
    assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.tokenize(text, "a pair", add_special_tokens=True) == theirs.tokenize(
        text, "a pair", add_special_tokens=True
    )
    assert plain(ours(text, **COLUMNS)) == plain(theirs(text, **COLUMNS))
    for pair in (None, "", "a pair"):
        ids = ours.encode(text, pair)
        assert ids == theirs.encode(text, pair)
        assert ours.encode(text, pair, max_length=8) == theirs.encode(text, pair, max_length=8)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
        assert ours.convert_ids_to_tokens(ids, skip_special_tokens=True) == theirs.convert_ids_to_tokens(
            ids, skip_special_tokens=True
        )


def test_tokens_and_ids(ours: Any, theirs: Any) -> None:
    tokens = ["hello", "##ing", "[MASK]", "no such piece", "天"]
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_tokens_to_ids("hello") == theirs.convert_tokens_to_ids("hello")
    assert ours.convert_ids_to_tokens(2000) == theirs.convert_ids_to_tokens(2000)
    assert ours.convert_ids_to_tokens(np.array([101, 2000])) == theirs.convert_ids_to_tokens([101, 2000])
    assert (len(ours), ours.get_vocab()) == (len(theirs), theirs.get_vocab())
    for name in ("pad", "unk", "cls", "sep", "mask"):
        for end in ("token", "token_id"):
            assert getattr(ours, f"{name}_{end}") == getattr(theirs, f"{name}_{end}")


def test_random_ids_decoded(ours: Any, theirs: Any) -> None:
    draw = random.Random(3)
    rows = [[draw.randrange(len(theirs)) for _ in range(draw.randint(0, 30))] for _ in range(200)]
    for skip in (False, True):
        expected = theirs.batch_decode(rows, skip_special_tokens=skip)
        assert ours.batch_decode(rows, skip_special_tokens=skip) == expected
    assert ours.batch_decode(torch.tensor([[101, 2000, 102]])) == theirs.batch_decode([[101, 2000, 102]])


@pytest.mark.parametrize("kind", ["np", "pt"])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[0]], ids=["batch", "one"])
def test_tensors(ours: Any, theirs: Any, kind: Any, texts: Any) -> None:
    choices = {"padding": True, "return_tensors": kind, **COLUMNS}
    found, expected = ours(texts, **choices), theirs(texts, **choices)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert (found[name] == value).all()
        assert (getattr(found, name) == value).all()


def test_columns_left_out(ours: Any, theirs: Any) -> None:
    choices = {"return_token_type_ids": False, "return_attention_mask": False}
    assert plain(ours(TEXTS, **choices)) == plain(theirs(TEXTS, **choices))


def test_saved_and_read_by_the_peer(ours: Any, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path)
    assert plain(BertTokenizerFast.from_pretrained(str(tmp_path))(TEXTS, PAIRS)) == plain(ours(TEXTS, PAIRS))
    (tmp_path / "tokenizer.json").unlink()
    assert plain(bertsmith.BertTokenizer.from_pretrained(tmp_path)(TEXTS, PAIRS)) == plain(ours(TEXTS, PAIRS))
