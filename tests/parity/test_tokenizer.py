"""Our ids are those of `transformers.AutoTokenizer` for the same directory, ours and theirs alike."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from bertsmith.tokenizer.encode import Tokenizer
from examples_case import build_all

TEXTS = [
    "Hello, World! It's a café in Zürich; naïve façade.",
    "天安门广场在北京, 他用 Python 写程序。",
    "tabs\tand\nnew lines\u00a0and\u3000wide spaces",
    "zero\u200bwidth \x00 control \ufffd and a \ufeff mark",
    "emoji 👩‍🚀🚀 and 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁ ① Å ß İstanbul ΌΣΟΣ",
    "[MASK] is [SEP] in the [CLS] text [UNK][PAD]",
    "a" * 101 + " " + "b" * 100,
    "(e.g. https://example.org/a?b=c#d) 1,234.5€ ±3% C++ x_y",
    "кириллица हिन्दी العربية ไทย 한국어 にほんご",
    "",
    "   ",
]


def check(ours: Tokenizer, theirs: Any, texts: list[str]) -> None:
    expected = theirs(texts, add_special_tokens=False, return_offsets_mapping=True)
    for text, found, ids, offsets in zip(
        texts, ours.encode_batch(texts), expected["input_ids"], expected["offset_mapping"], strict=True
    ):
        assert found.ids == ids, text
        assert found.offsets == [tuple(pair) for pair in offsets], text
        assert ours.tokens(ids) == theirs.convert_ids_to_tokens(ids)
    plain = [text for text in texts if "[" not in text]
    assert ours.encode_ids(plain) == theirs(plain, add_special_tokens=False)["input_ids"]


def test_the_real_checkpoint(minilm_dir: Path) -> None:
    ours, theirs = Tokenizer.load(minilm_dir), AutoTokenizer.from_pretrained(str(minilm_dir))
    check(ours, theirs, TEXTS)
    assert (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == (
        *(theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id),
    )  # fmt: skip
    assert ours.vocab_size == len(theirs)
    assert ours.lowercase


def test_words(minilm_dir: Path) -> None:
    ours, theirs = Tokenizer.load(minilm_dir), AutoTokenizer.from_pretrained(str(minilm_dir))
    rows = [["Angela", "Merkel's", "unbelievable", "天安门", "!!"], ["x"]]
    for row, found in zip(rows, ours.encode_words(rows), strict=True):
        expected = theirs(row, is_split_into_words=True, add_special_tokens=False)
        assert found.ids == expected["input_ids"]
        word_ids = expected.word_ids()
        assert found.first == [word_ids.index(number) for number in range(len(row))]


def test_a_saved_copy_of_the_real_one(minilm_dir: Path, tmp_path: Path) -> None:
    ours = Tokenizer.load(minilm_dir)
    ours.save(tmp_path)
    check(ours, AutoTokenizer.from_pretrained(str(tmp_path)), TEXTS)


def test_one_that_we_trained(tmp_path: Path) -> None:
    build_all(tmp_path)
    ours, theirs = Tokenizer.load(tmp_path / "tokenizer"), AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"))
    check(ours, theirs, [*TEXTS, "Bakerlo minsha, vexpon!"])
    assert type(theirs).__name__.startswith("Bert")
    assert theirs.model_max_length == 512
    assert theirs("ba ker", "lo")["token_type_ids"][-2:] == [1, 1]
    encoded = theirs("ba ker", "lo")["input_ids"]
    assert encoded[0] == ours.cls_id
    assert encoded[-1] == ours.sep_id


def test_from_vocab_txt_alone(minilm_dir: Path, tmp_path: Path) -> None:
    whole = Tokenizer.load(minilm_dir)
    (tmp_path / "vocab.txt").write_bytes((minilm_dir / "vocab.txt").read_bytes())
    assert Tokenizer.load(tmp_path).encode_batch(TEXTS) == whole.encode_batch(TEXTS)


@pytest.mark.data
@pytest.mark.parametrize("name", ["corpus/en/reuters.txt", "corpus/zh/modern.jsonl", "thucnews/dev.txt", "wnut17"])
def test_real_text(shared_data: Path, minilm_dir: Path, name: str) -> None:
    path = shared_data / name
    path = path if path.is_file() else min(path.iterdir())
    with path.open(encoding="utf-8") as file:
        lines = list(islice(file, 200))
    check(Tokenizer.load(minilm_dir), AutoTokenizer.from_pretrained(str(minilm_dir)), [line[:1000] for line in lines])
