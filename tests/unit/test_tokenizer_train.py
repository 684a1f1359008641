import json
import string
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.artifact import Artifact
from bertsmith.config import TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.errors import RecipeError
from bertsmith.tokenizer.count import WordCounts
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend
from bertsmith.tokenizer.train import (
    DEFAULT_SIZE,
    SEEN_TO_BE_LEARNED,
    learn_vocabulary,
    size_in_words,
    tokenizer_inputs,
    train_tokenizer,
)
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


def counted(words: Mapping[str, int]) -> WordCounts:
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    return WordCounts(Counter(words), characters, total=sum(words.values()))


def test_the_vocabulary_is_in_its_fixed_order() -> None:
    config = TokenizerConfig(vocab_size=200, unused_slots=2, alphabet_coverage=1.0)
    vocabulary, counts = learn_vocabulary(counted(WORDS), config)
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
    vocabulary, counts = learn_vocabulary(counted(words), TokenizerConfig(vocab_size=200, alphabet_coverage=0.999))
    assert {"д", "ж", "##д", "##ж", "дддд"} <= set(vocabulary)
    assert not any("щ" in token or "ю" in token for token in vocabulary)
    assert counts["alphabet_coverage"] >= 0.999


def test_equal_counts_do_not_change_the_vocabulary() -> None:
    """Every pair of letters is equally frequent, so that each merge is a tie."""
    letters = "abcdefghij"
    words = {first + second + third: 2 for first in letters for second in letters for third in letters}
    config = TokenizerConfig(vocab_size=150, alphabet_coverage=1.0)
    first, _ = learn_vocabulary(counted(words), config)
    for _ in range(4):
        shuffled = dict(sorted(words.items(), key=lambda item: hash(item[0])))
        assert learn_vocabulary(counted(shuffled), config)[0] == first


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


@settings(max_examples=60, deadline=None)
@given(
    words=st.dictionaries(st.text("abcdeé天", min_size=1, max_size=12), st.integers(1, 400), min_size=1, max_size=60),
    size=st.integers(1, 600),
    slots=st.integers(0, 20),
    min_frequency=st.integers(1, 5),
    coverage=st.floats(0.5, 1),
)
def test_the_size_is_kept_or_the_reason_is_said(
    words: dict[str, int], size: int, slots: int, min_frequency: int, coverage: float
) -> None:
    config = TokenizerConfig(
        vocab_size=size, unused_slots=slots, min_frequency=min_frequency, alphabet_coverage=coverage
    )
    try:
        vocabulary, counts = learn_vocabulary(counted(words), config)
    except RecipeError as error:
        needed = int(str(error).split("raise it to ")[1].split()[0])
        assert needed > size
        vocabulary, counts = learn_vocabulary(counted(words), config.model_copy(update={"vocab_size": needed}))
        assert len(vocabulary) == needed
        return
    assert len(vocabulary) == len(set(vocabulary)) == counts["vocab_size"] <= size
    assert (len(vocabulary) < size) == ("smaller_because" in counts)
    assert "size_because" not in counts
    assert vocabulary[: 5 + slots] == [*SPECIAL_TOKENS, *(f"[unused{number}]" for number in range(slots))]


def test_a_small_corpus_gets_a_small_vocabulary_with_the_reason() -> None:
    words = {"often": SEEN_TO_BE_LEARNED, "seldom": SEEN_TO_BE_LEARNED - 1}
    vocabulary, counts = learn_vocabulary(counted(words), TokenizerConfig())
    assert "often" in vocabulary
    assert "seldom" not in vocabulary
    assert counts["size_because"].startswith("not the usual 30,522: the text has no more pieces seen 100 times")
    assert size_in_words(counts).startswith(f"{len(vocabulary):,} entries (not the usual")
    asked, told = learn_vocabulary(counted(words), TokenizerConfig(vocab_size=len(vocabulary) + 1))
    assert "seldom" in asked or len(asked) == len(vocabulary) + 1
    assert size_in_words(told) == f"{len(asked):,} entries"


def test_a_large_corpus_gets_the_usual_size() -> None:
    letters = string.ascii_lowercase
    words = {a + b + c + d: 300 for a in letters for b in letters for c in letters for d in letters[:3]}
    vocabulary, counts = learn_vocabulary(counted(words), TokenizerConfig())
    assert len(vocabulary) == DEFAULT_SIZE
    assert counts["size_because"].startswith("the usual size")


def test_why_there_are_no_pieces_in_chinese() -> None:
    _, counts = learn_vocabulary(counted({"天": 500, "地": 400, "it": 3}), TokenizerConfig())
    assert "100% of the words are single Chinese characters, never joined" in counts["size_because"]


def test_cased_words_are_apart() -> None:
    words = {"Paris": 50, "paris": 5}
    vocabulary, _ = learn_vocabulary(counted(words), TokenizerConfig(lowercase=False, vocab_size=400))
    assert {"Paris", "paris", "P", "p", "##P"} <= set(vocabulary)


def test_too_many_unknown_words_are_called_out(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = {"a": 90, "дом": 10}
    assert "warning" not in learn_vocabulary(counted(words), TokenizerConfig(alphabet_coverage=1.0))[1]
    _, counts = learn_vocabulary(counted(words), TokenizerConfig(alphabet_coverage=0.5))
    assert counts["unknown_share"] == 0.1
    assert counts["warning"].startswith("10.0% of the words are [UNK], from which nothing can be learned")
    assert counts["warning"].endswith("raise tokenizer.alphabet_coverage, now 0.5")
    tokens = [*SPECIAL_TOKENS, "ba", "##ba"]
    Tokenizer(make_backend({token: number for number, token in enumerate(tokens)}, lowercase=True)).save(
        tmp_path / "strange"
    )
    artifact = train(corpus, tmp_path / "taken", path=str(tmp_path / "strange"))
    assert "of the words are [UNK]" in caplog.text
    assert f"{tmp_path / 'strange'} does not fit this text" in caplog.text
    assert json.loads((artifact.path / "run.json").read_text())["unknown_share"] > 0.9
    caplog.clear()
    train(corpus, tmp_path / "good", vocab_size=200)
    assert not caplog.text


def test_pieces_come_from_the_most_frequent_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.tokenizer.train.MOST_LEARNED_FROM", 2)
    vocabulary, counts = learn_vocabulary(counted(WORDS), TokenizerConfig(vocab_size=200))
    assert counts["distinct_words_learned_from"] == 2
    assert {"low", "newest"} <= set(vocabulary)
    assert "widest" not in vocabulary
    assert counts["unknown_share"] < 0.05
