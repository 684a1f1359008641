"""Our pair merging finds what the trainer of `tokenizers` finds for the same words, ties and all."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from bertsmith.tokenizer.count import bert_splitter, count_words
from bertsmith.tokenizer.merges import learn_merges


def alphabet_of(words: Mapping[str, int]) -> list[str]:
    first = sorted({character for word in words for character in word})
    return [*first, *(f"##{character}" for character in sorted({c for word in words for c in word[1:]}))]


def theirs(words: Mapping[str, int], alphabet: list[str], *, size: int, min_count: int) -> set[str]:
    """The alphabet goes in as special tokens, which get their ids in order; theirs would be random ones."""
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_count, special_tokens=alphabet, show_progress=False
    )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator((" ".join([word] * count) for word, count in words.items()), trainer)
    return set(learner.get_vocab()) - set(alphabet)


@settings(max_examples=300, deadline=None)
@given(
    words=st.dictionaries(st.text("abc", min_size=1, max_size=14), st.integers(1, 12), min_size=1, max_size=40),
    more=st.integers(0, 80),
    min_count=st.integers(1, 6),
)
def test_any_words(words: dict[str, int], more: int, min_count: int) -> None:
    """Three letters and small counts: repeated letters that overlap, ties, and pieces reached in two ways."""
    alphabet = alphabet_of(words)
    size = len(alphabet) + more
    found = learn_merges(words, alphabet, size=size, min_count=min_count)
    assert set(found) == theirs(words, alphabet, size=size, min_count=min_count)
    assert len(found) == len(set(found)) <= more


def test_nothing_to_join() -> None:
    assert learn_merges({"a": 5, "天": 9}, ["a", "天"], size=100, min_count=1) == []
    assert learn_merges({}, ["a"], size=100, min_count=1) == []
    assert learn_merges({"ab": 5}, ["a", "b", "##b"], size=3, min_count=1) == []


def test_the_most_frequent_first() -> None:
    words = {"hugs": 5, "pug": 12, "hug": 10, "bun": 4, "pun": 12}
    alphabet = alphabet_of(words)
    found = learn_merges(words, alphabet, size=len(alphabet) + 4, min_count=1)
    assert found == ["##ug", "##un", "hug", "pug"]  # seen 27, 16, 15 and 12 times; pun is seen 12 times too


@pytest.mark.data
def test_real_words(shared_data: Path) -> None:
    with (shared_data / "corpus/en/movie_reviews.txt").open(encoding="utf-8") as file:
        words = count_words(islice(file, 20_000), bert_splitter(lowercase=True)).words
    alphabet = alphabet_of(words)
    found = learn_merges(words, alphabet, size=8000, min_count=2)
    assert len(found) == 8000 - len(alphabet)
    assert set(found) == theirs(words, alphabet, size=8000, min_count=2)
