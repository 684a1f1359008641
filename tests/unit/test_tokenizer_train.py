import json
import string
from collections import Counter
from pathlib import Path

import pytest

from bertsmith.artifact import Artifact
from bertsmith.config import TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.errors import RecipeError
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.train import count_words, learn_vocabulary, tokenizer_inputs, train_tokenizer
from examples_case import corpus_config, made_up_text

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3, "天": 4, "é": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.txt").write_text(made_up_text(), encoding="utf-8")
    build_corpus(corpus_config(folder / "text.txt"), folder / "corpus", environment={})
    return folder / "corpus"


def train(corpus: Path, out: Path, **settings: object) -> Artifact:
    return train_tokenizer(TokenizerConfig.model_validate(settings), corpus, out, environment={})


def test_words_are_those_of_bert() -> None:
    texts = ["Don't STOP, the Café\u0301 at 天安门!", "don't\x00 stop"]
    assert count_words(texts, lowercase=True) == Counter(
        {"don": 2, "'": 2, "t": 2, "stop": 2, ",": 1, "the": 1, "cafe": 1, "at": 1, "天": 1, "安": 1, "门": 1, "!": 1}
    )
    assert "STOP" in count_words(texts, lowercase=False)


def test_the_vocabulary_is_in_its_fixed_order() -> None:
    config = TokenizerConfig(vocab_size=200, unused_slots=2, alphabet_coverage=1.0)
    vocabulary, counts = learn_vocabulary(WORDS, config)
    assert vocabulary[:7] == [*SPECIAL_TOKENS, "[unused0]", "[unused1]"]
    characters = sorted({*string.ascii_lowercase, *string.digits, *string.punctuation, "天", "é"})
    continuing = sorted({*string.ascii_lowercase, *string.digits})
    rest = vocabulary[7:]
    assert rest[: len(characters)] == characters
    assert rest[len(characters) :][: len(continuing)] == [f"##{character}" for character in continuing]
    assert "low" in rest
    assert "##天" not in rest
    assert len(vocabulary) == counts["vocab_size"] < 200
    assert "asked for 200" in counts["smaller_because"]


def test_pieces_come_by_count_then_by_text(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "tokenizer", vocab_size=300, alphabet_coverage=1.0)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    vocabulary = (tmp_path / "tokenizer" / "vocab.txt").read_text().split()
    first_piece = next(
        number
        for number, token in enumerate(vocabulary)
        if number > 4 and len(token) > 1 and len(token.removeprefix("##")) > 1
    )
    from bertsmith.corpus.build import read_documents

    counts: Counter[int] = Counter()
    for document in read_documents(corpus, "train"):
        for ids in tokenizer.encode_ids(document.sentences):
            counts.update(ids)
    ranks = [(-counts[number], vocabulary[number]) for number in range(first_piece, len(vocabulary))]
    assert ranks == sorted(ranks)


def test_the_size_asked_for_is_the_size_given(corpus: Path, tmp_path: Path) -> None:
    for size in (120, 250):
        artifact = train(corpus, tmp_path / "tokenizer", vocab_size=size, unused_slots=7)
        assert artifact.counts["vocab_size"] == Tokenizer.load(artifact.path).vocab_size == size
        assert "smaller_because" not in artifact.counts


def test_no_room_for_the_characters(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"vocab_size 20 has no room for 5 special tokens and \d+ single characters"):
        train(corpus, tmp_path / "tokenizer", vocab_size=20)
    assert not (tmp_path / "tokenizer").exists()


def test_rare_characters_are_left_out_by_coverage() -> None:
    words = {"дддд": 1000, "жж": 500, "щю": 1}
    vocabulary, counts = learn_vocabulary(words, TokenizerConfig(vocab_size=200, alphabet_coverage=0.999))
    assert {"д", "ж", "##д", "##ж", "дддд"} <= set(vocabulary)
    assert not any("щ" in token or "ю" in token for token in vocabulary)
    assert counts["alphabet_coverage"] >= 0.999


def test_equal_counts_do_not_change_the_vocabulary() -> None:
    """Every pair of letters is equally frequent, so that each merge is a tie."""
    letters = "abcdefghij"
    words = {first + second + third: 2 for first in letters for second in letters for third in letters}
    config = TokenizerConfig(vocab_size=150, alphabet_coverage=1.0)
    first, _ = learn_vocabulary(words, config)
    for _ in range(4):
        shuffled = dict(sorted(words.items(), key=lambda item: hash(item[0])))
        assert learn_vocabulary(shuffled, config)[0] == first


def test_files(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "tokenizer", vocab_size=200, lowercase=False)
    settings = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "BertTokenizer"
    assert settings["do_lower_case"] is False
    assert settings["model_max_length"] == 512
    names = json.loads((tmp_path / "tokenizer" / "special_tokens_map.json").read_text())
    assert names["mask_token"] == "[MASK]"
    assert not Tokenizer.load(tmp_path / "tokenizer").lowercase


def test_another_tokenizer_is_taken_as_it_is(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "first", vocab_size=200)
    artifact = train(corpus, tmp_path / "second", path=str(tmp_path / "first"))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    config = TokenizerConfig(path=str(tmp_path / "first"))
    assert artifact.inputs == tokenizer_inputs(config, corpus)
    assert "corpus" not in artifact.inputs
