"""A vocabulary that we extended, as transformers reads it: same ids as ours, old ids as they were."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tokenizer import TEXTS, check
from transformers import AutoModel, AutoTokenizer

from bertsmith.model import BertModel
from bertsmith.model.extend import save_extended
from bertsmith.tokenizer.count import count_words, splitter_of
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.extend import Extended, extend_vocabulary, propose_words

WORDS = ["Cardiomyopathy", "angioplasty", "##ectomies", "naïveté", "👩", "𝔘", "鬱", "the"]
NEW_TEXTS = [
    "CARDIOMYOPATHY after angioplasty; angioplasties, appendectomies and cardiomyopathy's naivete 鬱 👩 𝔘x",
    "cardiomyopathyangioplasty [MASK] angioplastyectomies",
]


@pytest.fixture(scope="module", params=[False, True], ids=["new ids", "unused slots"])
def extended(request: pytest.FixtureRequest, minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("extended") / "model"
    found = extend_vocabulary(Tokenizer.load(minilm_dir), WORDS, use_unused=request.param)
    save_extended(minilm_dir, found, directory)
    return found, directory


def test_ids_are_those_of_transformers(extended: tuple[Extended, Path]) -> None:
    found, directory = extended
    theirs = AutoTokenizer.from_pretrained(str(directory))
    check(Tokenizer.load(directory), theirs, [*TEXTS, *NEW_TEXTS])
    assert len(theirs) == found.tokenizer.vocab_size
    for token, number in found.added.items():
        assert theirs.convert_tokens_to_ids(token) == number
    assert theirs.tokenize("CARDIOMYOPATHY") == ["cardiomyopathy"]
    assert theirs.tokenize("appendectomies")[-1] == "##ectomies"


def test_vocab_txt_alone_says_the_same(extended: tuple[Extended, Path], tmp_path: Path) -> None:
    _, directory = extended
    (tmp_path / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes())
    check(Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(str(directory)), [*TEXTS, *NEW_TEXTS])


def test_old_ids_are_as_they_were(extended: tuple[Extended, Path], minilm_dir: Path) -> None:
    found, directory = extended
    old, new = (AutoTokenizer.from_pretrained(str(one)) for one in (minilm_dir, directory))
    taken = set(found.added.values())
    before = old.convert_ids_to_tokens(list(range(len(old))))
    after = new.convert_ids_to_tokens(list(range(len(old))))
    assert [token for token in before if not token.startswith("[unused")] == [
        token for number, token in enumerate(after) if number not in taken and not token.startswith("[unused")
    ]
    assert all(before[number].startswith("[unused") for number in taken if number < len(before))
    assert found.known == ("the",)


def test_the_model_answers_alike_in_transformers(extended: tuple[Extended, Path], minilm_dir: Path) -> None:
    found, directory = extended
    theirs, ours = AutoModel.from_pretrained(str(directory)).eval(), BertModel.from_pretrained(directory)
    before = AutoModel.from_pretrained(str(minilm_dir)).eval()
    assert theirs.config.vocab_size == found.tokenizer.vocab_size
    rows, old_rows = theirs.get_input_embeddings().weight, before.get_input_embeddings().weight
    for number, pieces in found.old_ids.items():
        torch.testing.assert_close(rows[number], old_rows[list(pieces)].mean(dim=0), rtol=0, atol=1e-7)
    ids = torch.tensor([Tokenizer.load(directory).encode_ids([NEW_TEXTS[0]])[0]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).last_hidden_state, theirs(ids).last_hidden_state, rtol=0, atol=1e-5)
        plain = torch.tensor([[101, 1996, 4419, 102]])
        torch.testing.assert_close(theirs(plain).last_hidden_state, before(plain).last_hidden_state, rtol=0, atol=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("name", ["corpus/en/reuters.txt", "corpus/zh/modern.jsonl"])
def test_proposed_words_save_what_they_promise(shared_data: Path, minilm_dir: Path, name: str) -> None:
    """Within one token in a hundred: other words that begin with a new one are parted anew as well."""
    with (shared_data / name).open(encoding="utf-8") as file:
        lines = [line[:2000] for line in islice(file, 4000)]
    old = Tokenizer.load(minilm_dir)
    proposals = propose_words(old, count_words(lines, splitter_of(old.backend)).words, 500)
    new = extend_vocabulary(old, [one.word for one in proposals]).tokenizer
    before, after = old.encode_flat(lines)[0], new.encode_flat(lines)[0]
    shorter = sum(one.saved for one in proposals if one.pieces != ("[UNK]",))
    known = sum(one.count for one in proposals if one.pieces == ("[UNK]",))
    assert len(proposals) == 500
    assert shorter + known > 0.05 * len(before)
    assert abs(len(before) - len(after) - shorter) <= 0.01 * len(before)
    assert int((before == old.unk_id).sum()) - int((after == new.unk_id).sum()) >= known
