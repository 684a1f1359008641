from itertools import chain, pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.artifact import open_artifact
from bertsmith.config import ExamplesConfig
from bertsmith.corpus.build import build_corpus, read_documents
from bertsmith.errors import ArtifactError, DataError
from bertsmith.examples import shards
from bertsmith.examples.shards import build_examples, open_spans, tile
from bertsmith.tokenizer.encode import Tokenizer
from examples_case import build_all, corpus_config, made_up_text


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    limit=st.integers(8, 30),
    targets=st.lists(st.integers(1, 30), max_size=8),
    word_length=st.integers(1, 40),
)
def test_spans_tile_a_document(lengths: list[int], limit: int, targets: list[int], word_length: int) -> None:
    sentence_ends = np.cumsum(lengths).tolist()
    total = sentence_ends[-1]
    word_starts = np.arange(total) % word_length == 0
    wanted = [min(target, limit) for target in targets]
    ends, num_cut = tile(sentence_ends, word_starts, limit=limit, targets=chain(wanted, repeat(limit)))
    assert ends[-1] == total
    spans = list(pairwise([0, *ends]))
    assert all(0 < end - start <= limit for start, end in spans)
    assert num_cut == sum(length > limit for length in lengths)
    borders = {0, *sentence_ends}
    long = [(end - length, end) for end, length in zip(sentence_ends, lengths, strict=True) if length > limit]
    for end in ends:
        assert end in borders or any(start < end < stop for start, stop in long)


def test_spans_are_as_long_as_they_can_be() -> None:
    ends, _ = tile([5, 9, 12, 20], np.ones(20, dtype=bool), limit=10, targets=repeat(10))
    assert ends == [9, 12, 20]


def test_a_long_sentence_is_cut_before_a_word() -> None:
    word_starts = np.zeros(25, dtype=bool)
    word_starts[[0, 7, 8, 13]] = True
    ends, num_cut = tile([25], word_starts, limit=10, targets=repeat(10))
    assert (ends, num_cut) == ([8, 13, 23, 25], 1)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("examples"))


def test_every_token_of_every_document_is_there_in_order(examples: Path) -> None:
    artifact = open_artifact(examples, "examples")
    tokenizer = Tokenizer.load(examples.parent / "tokenizer")
    for split in ("train", "validation"):
        spans = open_spans(artifact, split)
        documents = list(read_documents(examples.parent / "corpus", split))
        encoded = [tokenizer.encode_ids(document.sentences) for document in documents]
        tokens = [number for document in encoded for sentence in document for number in sentence]
        assert np.concatenate(spans.shards).tolist() == tokens
        assert spans.ends[-1] == len(tokens)
        assert spans.sentence_ends.tolist() == np.cumsum([len(x) for document in encoded for x in document]).tolist()
        starts = ~tokenizer.continues_word[np.array(tokens)]
        assert np.concatenate(spans.word_starts).tolist() == starts.astype(int).tolist()
        counts = artifact.counts[split]
        assert counts["tokens"] == len(tokens)
        assert counts["documents"] == len(documents)
        assert counts["spans"] == len(spans)
        assert counts["sentences"] == sum(map(len, encoded))


def test_a_span_is_of_one_document_and_fits(examples: Path) -> None:
    artifact = open_artifact(examples, "examples")
    spans = open_spans(artifact, "train")
    ids = np.arange(len(spans))
    starts, ends = spans.bounds(ids)
    assert (ends - starts).max() == 61
    assert (starts[1:] == ends[:-1]).all()
    first, end = spans.document_spans(ids)
    for number in ids:
        assert first[number] <= number < end[number]
        assert (spans.document[first[number] : end[number]] == spans.document[number]).all()
    assert spans.document_spans_end[-1] == len(spans)
    document_ends = starts[np.flatnonzero(np.diff(spans.document)) + 1]
    assert np.isin(document_ends, spans.sentence_ends).all()


def test_short_spans(tmp_path: Path) -> None:
    examples = build_all(tmp_path)
    means = {}
    for share in (0.0, 0.9):
        config = ExamplesConfig(max_length=64, short_share=share)
        out = tmp_path / f"share-{share}"
        artifact = build_examples(
            config, tmp_path / "corpus", examples.parent / "tokenizer", out, seed=1, environment={}
        )
        means[share] = artifact.counts["train"]["mean_span_tokens"]
    assert means[0.9] < 0.8 * means[0.0]


def test_several_shards_hold_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_spans(open_artifact(build_all(tmp_path / "one"), "examples"), "train")
    monkeypatch.setattr(shards, "_SHARD_TOKENS", 2000)
    monkeypatch.setattr(shards, "_SENTENCES_AT_ONCE", 50)
    (tmp_path / "many").mkdir()
    many = open_spans(open_artifact(build_all(tmp_path / "many"), "examples"), "train")
    assert len(many.shards) > 3
    for spans in (one, many):
        assert spans.shard_starts[-1] == spans.ends[-1]
    ids = np.arange(len(one))
    starts, ends = one.bounds(ids)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        assert one.tokens(start, end - start).tolist() == many.tokens(start, end - start).tolist()
        assert one.starts_word(start, end - start).tolist() == many.starts_word(start, end - start).tolist()


def test_tokens_are_mapped_not_read(examples: Path) -> None:
    spans = open_spans(open_artifact(examples, "examples"), "train")
    assert spans.shards[0].dtype == np.uint16
    assert not spans.shards[0].flags.owndata
    assert not spans.shards[0].flags.writeable


def test_a_large_vocabulary_takes_wider_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "vocab_size", property(lambda self: 70_000))
    monkeypatch.setattr(Tokenizer, "never_drawn", np.zeros(70_000, dtype=bool))
    spans = open_spans(open_artifact(build_all(tmp_path), "examples"), "train")
    assert spans.shards[0].dtype == np.int32


def test_special_tokens_written_in_the_text_are_plain_text(tmp_path: Path) -> None:
    examples = build_all(tmp_path, text=made_up_text() + "\n\nThe [SEP] and the [MASK] are here.\n")
    spans = open_spans(open_artifact(examples, "examples"), "train")
    assert np.concatenate(spans.shards).min() >= 5 or np.bincount(np.concatenate(spans.shards))[[0, 2, 3, 4]].sum() == 0


def test_no_training_text_and_unknown_splits(tmp_path: Path, examples: Path) -> None:
    (tmp_path / "text.txt").write_text("Only one document is in here.\n")
    build_corpus(corpus_config(tmp_path / "text.txt", validation_share=1.0), tmp_path / "corpus", environment={})
    tokenizer = examples.parent / "tokenizer"
    with pytest.raises(DataError, match="no training text"):
        build_examples(ExamplesConfig(), tmp_path / "corpus", tokenizer, tmp_path / "out", seed=1, environment={})
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArtifactError, match="no split 'test'"):
        open_spans(open_artifact(examples, "examples"), "test")
