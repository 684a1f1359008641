"""Sentences whose double backticks became labels."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.artifact import Artifact, open_artifact, write_artifact
from bertsmith.config import CodeWords
from bertsmith.corpus.document import Document, Split
from bertsmith.errors import DataError
from bertsmith.tasks.code_words import (
    MOST_PER_MODULE,
    Sentence,
    build_code_words,
    choose,
    find_sentences,
    take_marks_out,
)
from bertsmith.tasks.tag_tables import read_tagged_rows
from bertsmith.tasks.words import split_words

NOUNS = ("array", "matrix", "graph", "tensor", "sample", "weight", "vector", "symbol", "number", "window")


def sentence_of(number: int) -> str:
    """A different sentence for each number, in words that are not code."""
    first, second, third = number % 10, number // 10 % 10, number // 100
    return f"The ``axis_{number}`` of each {NOUNS[first]} and {NOUNS[second]} is like {NOUNS[third]} here."


def document(number: int, split: Split, sentences: list[str]) -> Document:
    return Document(f"package/module{number}", "\n".join(sentences), "package", tuple(sentences), split)


def write_corpus(folder: Path, documents: list[Document]) -> Path:
    rows = [
        {"id": one.id, "text": one.text, "source": one.source, "sentences": list(one.sentences), "split": one.split}
        for one in documents
    ]
    with write_artifact(folder, kind="corpus", config={}, inputs={}, environment={}) as draft:
        pq.write_table(pa.Table.from_pylist(rows), draft.path / "part-00000.parquet")
    return folder


def three_splits() -> list[Document]:
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return [
        document(100 * part + number, split, [sentence_of(300 * part + 10 * number + row) for row in range(10)])
        for part, split in enumerate(splits)
        for number in range(5)
    ]


def build(tmp_path: Path, documents: list[Document], config: CodeWords, seed: int = 1) -> Artifact:
    environment: Mapping[str, Any] = {}
    corpus = write_corpus(tmp_path / "corpus", documents)
    return build_code_words(config, corpus, tmp_path / "labels", seed=seed, environment=environment)


def test_marks_become_labels_of_words_and_marks_of_punctuation_do_not() -> None:
    found = take_marks_out(
        "If ``shape=(n, 2)`` or ``np.nan`` is given by the user, then of all the arrays here ``x_1`` isn't used.", "m"
    )
    assert isinstance(found, Sentence)
    assert " ".join(found.words) == (
        "If shape = ( n , 2 ) or np . nan is given by the user , then of all the arrays here x_1 isn ' t used ."
    )
    code = [word for word, label in zip(found.words, found.labels, strict=True) if label == "CODE"]
    assert code == ["shape", "n", "2", "np", "nan", "x_1"]


def test_words_are_those_a_tagger_is_given_for_the_plain_text() -> None:
    text = "Returns ``None`` unless ``max_iter-1`` steps (or more) were done before."
    found = take_marks_out(text, "m")
    assert isinstance(found, Sentence)
    assert list(found.words) == split_words(text.replace("``", ""))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Use ``axis`` as in :func:`numpy.sum` of the array.", "other backticks"),
        ("Use ``axis`` and `other` when you sum the array.", "other backticks"),
        ("Use ``axis when you sum the whole array.", "other backticks"),
        ("See the example below:: ``axis`` is what we sum over.", "markup"),
        (".. note:: The ``axis`` is what we sum over.", "markup"),
        ("The ``axis`` over which we sum — or not — is given.", "not ASCII"),
        ("over the ``axis`` we sum all of the values.", "not a whole sentence"),
        ("Sum all of the values over the ``axis``:", "not a whole sentence"),
        ("All ``Tensor``s of the list are moved at once.", "marks inside a word"),
        ("Default is ``None``.", "too short or too long"),
        ("The ``axis`` " + "and more " * 30 + "is given.", "too short or too long"),
        ("``f(a, b, c)`` and ``g(d, e, f)`` or ``h``.", "not prose"),
        ("The operator ``*`` is used for all of these.", "no word between the marks"),
    ],
)
def test_what_is_left_out_and_why(text: str, reason: str) -> None:
    assert take_marks_out(text, "m") == reason


def test_sentences_that_differ_only_in_case_or_code_are_one() -> None:
    sentences = ["The ``axis`` of the array is given.", "The ``dim`` of the Array is given.", "The ``axis`` is given."]
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    found = list(find_sentences([document(0, "test", sentences)], seen, left_out))
    assert [one.words[1] for one in found] == ["axis", "axis"]
    assert left_out == {"repeated": 1}
    assert not list(find_sentences([document(1, "train", sentences)], seen, left_out))


def test_choice_is_of_content_alone_and_spread_over_modules() -> None:
    sentences = [
        Sentence((f"w{number}", "x"), ("O", "CODE"), "big" if number < 500 else f"small{number}")
        for number in range(600)
    ]
    taken = choose(sentences, 80, seed=1)
    assert taken == choose(sentences[::-1], 80, seed=1)
    assert taken != choose(sentences, 80, seed=2)
    assert taken[:40] == choose(sentences, 40, seed=1)
    assert len(taken) == 80
    assert sum(one.module == "big" for one in taken) == MOST_PER_MODULE


def test_files_have_the_sentences_of_their_split(tmp_path: Path) -> None:
    artifact = build(tmp_path, three_splits(), CodeWords(train=30, validation=20, test=50))
    assert artifact.kind == "labels"
    first_word = {"train": range(300), "validation": range(300, 600), "test": range(600, 900)}
    for split, count in (("train", 30), ("validation", 20), ("test", 50)):
        rows = read_tagged_rows(artifact.path / f"{split}.conll")
        assert len(rows) == count == artifact.counts[split]["sentences"]
        for row in rows:
            assert row.labels is not None
            assert row.labels.count("CODE") == 1
            number = int(row.words[row.labels.index("CODE")].removeprefix("axis_"))
            assert number in first_word[split]
    assert open_artifact(artifact.path, "labels").digest == artifact.digest


def test_same_seed_same_artifact(tmp_path: Path) -> None:
    first = build(tmp_path / "a", three_splits(), CodeWords(train=30, validation=20, test=20))
    again = build(tmp_path / "b", three_splits(), CodeWords(train=30, validation=20, test=20))
    other = build(tmp_path / "c", three_splits(), CodeWords(train=30, validation=20, test=20), seed=2)
    assert first.digest == again.digest
    assert (first.path / "train.conll").read_bytes() != (other.path / "train.conll").read_bytes()


def test_a_sentence_of_two_splits_is_kept_for_the_test(tmp_path: Path) -> None:
    documents = three_splits()
    documents.append(document(900, "train", [sentence_of(600 + number) for number in range(50)]))
    artifact = build(tmp_path, documents, CodeWords(train=1000, validation=20, test=1000))
    words = {split: read_tagged_rows(artifact.path / f"{split}.conll") for split in ("train", "test")}
    assert not {row.words for row in words["train"]} & {row.words for row in words["test"]}
    assert artifact.counts["train"] == {
        "sentences": 50,
        "asked": 1000,
        "found": 50,
        "modules": 5,
        "words": 50 * 12,
        "code_words": 50,
        "left_out": {"repeated": 50},
    }
    assert artifact.counts["test"]["sentences"] == 50


def test_a_corpus_without_a_test_split_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    documents = [one for one in three_splits() if one.split != "test"]
    with pytest.raises(
        DataError, match=r"0 sentences .* in its test split, at least 20 .* or raise corpus\.test_share"
    ):
        build(tmp_path, documents, CodeWords())
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
