from pathlib import Path

import numpy as np
import pytest

from bertsmith.artifact import open_artifact
from bertsmith.config import ExamplesConfig
from bertsmith.corpus.build import build_corpus, read_documents
from bertsmith.errors import ArtifactError, DataError
from bertsmith.examples import shards
from bertsmith.examples.shards import build_examples
from bertsmith.examples.spans import Spans, open_spans
from bertsmith.tokenizer.encode import Tokenizer
from examples_case import build_all, corpus_config, made_up_text


def everything(spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Ids and word starts of all that is open."""
    return spans.read(spans.starts, spans.ends - spans.starts)


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
        found, word_starts = everything(spans)
        assert found.tolist() == tokens
        assert spans.ends[-1] == len(tokens)
        assert spans.sentence_ends.tolist() == np.cumsum([len(x) for document in encoded for x in document]).tolist()
        sentences = [sentence for document in documents for sentence in document.sentences]
        assert word_starts.tolist() == tokenizer.encode_with_words(sentences)[2].tolist()
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


def test_several_blocks_hold_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_spans(open_artifact(build_all(tmp_path / "one"), "examples"), "train")
    monkeypatch.setattr(shards, "_BLOCK_TOKENS", 2000)
    monkeypatch.setattr(shards, "_SENTENCES_AT_ONCE", 50)
    artifact = open_artifact(build_all(tmp_path / "many"), "examples")
    many = open_spans(artifact, "train")
    assert len(one.blocks) == 1
    assert len(many.blocks) == artifact.counts["train"]["blocks"] > 3
    for name in ("numbers", "starts", "ends", "document", "document_spans_end", "sentence_ends"):
        assert np.array_equal(getattr(one, name), getattr(many, name)), name
    for mine, theirs in zip(everything(one), everything(many), strict=True):
        assert np.array_equal(mine, theirs)
    backwards = one.starts[::-1], (one.ends - one.starts)[::-1]
    assert np.array_equal(one.read(*backwards)[0], many.read(*backwards)[0])


def test_some_blocks_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_BLOCK_TOKENS", 2000)
    artifact = open_artifact(build_all(tmp_path), "examples")
    everything, some = open_spans(artifact, "train"), open_spans(artifact, "train", [1, 3])
    assert len(some.blocks) == 2
    for name in ("starts", "ends"):
        assert np.array_equal(getattr(some, name), getattr(everything, name)[some.numbers])
    lengths = some.ends - some.starts
    assert np.array_equal(some.read(some.starts, lengths)[0], everything.read(some.starts, lengths)[0])
    first, end = some.document_spans(np.arange(len(some)))
    assert (some.document[first] == some.document).all()
    assert (some.document[end - 1] == some.document).all()
    assert np.isin(some.sentence_ends, everything.sentence_ends).all()


def test_tokens_are_mapped_not_read(examples: Path) -> None:
    spans = open_spans(open_artifact(examples, "examples"), "train")
    for column in spans.blocks[0].columns().values():
        assert not column.flags.owndata
        assert not column.flags.writeable
    assert spans.blocks[0].tokens.dtype == np.uint16


def test_a_large_vocabulary_takes_wider_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "vocab_size", property(lambda self: 70_000))
    monkeypatch.setattr(Tokenizer, "never_drawn", np.zeros(70_000, dtype=bool))
    spans = open_spans(open_artifact(build_all(tmp_path), "examples"), "train")
    assert spans.blocks[0].tokens.dtype == np.int32


def test_special_tokens_written_in_the_text_are_plain_text(tmp_path: Path) -> None:
    examples = build_all(tmp_path, text=made_up_text() + "\n\nThe [SEP] and the [MASK] are here.\n")
    spans = open_spans(open_artifact(examples, "examples"), "train")
    ids, _ = everything(spans)
    assert np.bincount(ids, minlength=5)[[0, 2, 3, 4]].sum() == 0


def test_no_training_text_and_unknown_splits(tmp_path: Path, examples: Path) -> None:
    (tmp_path / "text.txt").write_text("Only one document is in here.\n")
    build_corpus(corpus_config(tmp_path / "text.txt", validation_share=1.0), tmp_path / "corpus", environment={})
    tokenizer = examples.parent / "tokenizer"
    with pytest.raises(DataError, match="no training text"):
        build_examples(ExamplesConfig(), tmp_path / "corpus", tokenizer, tmp_path / "out", seed=1, environment={})
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArtifactError, match="no split 'test'"):
        open_spans(open_artifact(examples, "examples"), "test")
