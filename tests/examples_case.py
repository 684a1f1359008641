"""A small corpus, tokenizer and examples made of random words, for tests of what reads them."""

import random
from pathlib import Path

from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.shards import build_examples
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.train import train_tokenizer

SYLLABLES = ("ba", "ker", "lo", "min", "tu", "sha", "re", "pon", "di", "vex")


def made_up_text(*, documents: int = 60, sentences: int = 24, seed: int = 3) -> str:
    """Documents parted by blank lines, a sentence a line; the first document is long, the last one short."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(400)]
    blocks = []
    for number in range(documents):
        count = {0: 4 * sentences, documents - 1: 1}.get(number, draw.randint(2, sentences))
        lines = [" ".join(draw.choices(words, k=draw.randint(2, 40))).capitalize() + "." for _ in range(count)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def corpus_config(path: Path, **changes: object) -> CorpusConfig:
    sources = (Source(kind="text", paths=(str(path),), layout="sentences"),)
    return CorpusConfig.model_validate({"sources": sources, "validation_share": 0.2, "min_characters": 5, **changes})


def build_all(folder: Path, *, text: str | None = None, max_length: int = 64, validation_share: float = 0.2) -> Path:
    """Corpus, tokenizer and examples under `folder`; returns the examples' directory."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "text.txt"
    source.write_text(text or made_up_text(), encoding="utf-8")
    build_corpus(corpus_config(source, validation_share=validation_share), folder / "corpus", environment={})
    config = TokenizerConfig(vocab_size=300, alphabet_coverage=1.0, unused_slots=3)
    train_tokenizer(config, folder / "corpus", folder / "tokenizer", environment={})
    sizes = ExamplesConfig(max_length=max_length)
    build_examples(sizes, folder / "corpus", folder / "tokenizer", folder / "examples", seed=7, environment={})
    return folder / "examples"


def open_data(examples: Path, *, split: str = "train", seed: int = 11, **settings: object) -> PretrainData:
    tokenizer = Tokenizer.load(examples.parent / "tokenizer")
    return PretrainData(examples, split=split, tokenizer=tokenizer, seed=seed, **settings)  # type: ignore[arg-type]
