"""Vocabularies of real text: English, Chinese, and both, each looked at on text held out."""

from pathlib import Path

import pytest

from bertsmith.config import CorpusConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.report import VocabularyReport, report_on_corpus
from bertsmith.tokenizer.train import train_tokenizer

pytestmark = pytest.mark.data
FILES = {"en": ("corpus/en/reuters.txt",), "zh": ("thucnews/dev.txt", "thucnews/test.txt")}
FILES["mixed"] = FILES["en"] + FILES["zh"]


@pytest.fixture(scope="module", params=list(FILES))
def corpus(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = tuple(str(shared_data / file) for file in FILES[request.param])
    source = Source(kind="text", paths=paths, layout="paragraphs")
    config = CorpusConfig(sources=(source,), validation_share=0.1, min_characters=5, deduplicate=False)
    out = tmp_path_factory.mktemp(request.param) / request.param
    return build_corpus(config, out, environment={}).path


def look(tokenizer: Tokenizer, corpus: Path) -> VocabularyReport:
    return report_on_corpus(tokenizer, corpus, "validation")


@pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
def test_the_size_asked_for(corpus: Path, tmp_path: Path, lowercase: bool) -> None:
    config = TokenizerConfig(vocab_size=6000, lowercase=lowercase, unused_slots=10)
    artifact = train_tokenizer(config, corpus, tmp_path / "tokenizer", environment={})
    tokenizer = Tokenizer.load(artifact.path)
    assert tokenizer.vocab_size == artifact.counts["vocab_size"] == 6000 or "smaller_because" in artifact.counts
    assert (tokenizer.vocab_size == 6000) == (corpus.name != "zh")
    assert artifact.counts["alphabet_coverage"] >= 0.9995
    held_out = look(tokenizer, corpus)
    assert held_out.unknown_share < 0.01
    assert held_out.coverage > 0.99
    assert (held_out.han_words > held_out.words / 2) == (corpus.name == "zh")
    assert held_out.fertility < (1.25 if corpus.name == "en" else 2.0)


def test_the_size_that_suits(corpus: Path, tmp_path: Path) -> None:
    """Of a few megabytes: fewer than 30,522, with the reason, and fit for the text."""
    artifact = train_tokenizer(TokenizerConfig(), corpus, tmp_path / "tokenizer", environment={})
    assert 2000 < artifact.counts["vocab_size"] < 10_000
    assert artifact.counts["size_because"].startswith(
        "not the usual 30,522: the text has no more pieces seen 100 times"
    )
    assert ("Chinese characters, never joined" in artifact.counts["size_because"]) == (corpus.name == "zh")
    assert look(Tokenizer.load(artifact.path), corpus).unknown_share < 0.01


def test_a_vocabulary_of_another_language_is_called_out(
    corpus: Path, tmp_path: Path, minilm_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = train_tokenizer(TokenizerConfig(path=str(minilm_dir)), corpus, tmp_path / "taken", environment={})
    assert ("of the words are [UNK]" in caplog.text) == (corpus.name != "en")
    assert artifact.counts == {"vocab_size": 30_522}
