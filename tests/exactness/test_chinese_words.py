"""Whole word masking of real Chinese: no sentence without something to guess, no word torn, 15 % within one word."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rjieba

from bertsmith.artifact import open_artifact
from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.examples.look import count, open_examples
from bertsmith.examples.shards import build_examples
from bertsmith.examples.spans import open_spans
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.train import train_tokenizer

CHAPTERS = 150


@pytest.fixture(scope="module")
def build(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Examples of at most so many tokens, from some chapters."""
    folder = tmp_path_factory.mktemp("zh")
    source = shared_data / "corpus" / "zh" / "modern.jsonl"
    with source.open(encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(CHAPTERS), strict=False)]
    (folder / "text.jsonl").write_text("".join(lines), encoding="utf-8")
    sources = (Source(kind="jsonl", paths=(str(folder / "text.jsonl"),)),)
    build_corpus(CorpusConfig(sources=sources), folder / "corpus", environment={})
    train_tokenizer(TokenizerConfig(vocab_size=6000), folder / "corpus", folder / "tokenizer", environment={})

    def examples(max_length: int) -> Path:
        sizes = ExamplesConfig(max_length=max_length)
        build_examples(sizes, folder / "corpus", folder / "tokenizer", folder / "examples", seed=1, environment={})
        return folder

    return examples


@pytest.mark.data
@pytest.mark.parametrize("mask_by", ["word", "span"])
@pytest.mark.parametrize("max_length", [16, 32, 128])
def test_masks_of_chinese_sentences(build: Callable[[int], Path], max_length: int, mask_by: str) -> None:
    """At 16 tokens most examples are one sentence, or a part of one."""
    data = open_examples(build(max_length), mask_by=mask_by, pairs="none")  # type: ignore[arg-type]
    counts = count(data, range(min(20_000, data.num_examples)))
    assert counts.examples > 5000
    assert counts.nothing_hidden == 0
    assert counts.words_hidden_in_part == 0
    assert counts.furthest_in_words <= 1
    assert abs(counts.hidden_share - 0.15) < 0.02
    assert abs(counts.how["mask"] - 0.8) < 0.02


@pytest.mark.data
def test_the_words_are_those_of_rjieba(build: Callable[[int], Path]) -> None:
    """Words that are put together again from what is stored, against rjieba on the sentences themselves."""
    folder = build(128)
    artifact = open_artifact(folder / "examples", "examples")
    spans, tokenizer = open_spans(artifact, "train"), Tokenizer.load(folder / "tokenizer")
    ids, begins = spans.read(spans.starts, spans.ends - spans.starts)
    missed = total = 0
    for start, end in pairwise([0, *spans.sentence_ends[:2000].tolist()]):
        tokens = tokenizer.tokens(ids[start:end].tolist())
        if any(len(token) != 1 for token in tokens):
            continue
        words = np.cumsum([0, *map(len, rjieba.cut("".join(tokens)))])[:-1]
        is_han = np.array(["一" <= token <= "鿿" for token in tokens])
        inside = np.flatnonzero(is_han[1:] & is_han[:-1]) + 1
        missed += int((begins[start:end][inside] != np.isin(inside, words)).sum())
        total += len(inside)
    assert total > 10_000
    assert missed / total < 0.001
