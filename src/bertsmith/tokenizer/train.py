"""A WordPiece vocabulary from a corpus, the same each time.

`tokenizers` learns the merges; where two are equally frequent it decides by the ids its hash table happened to give,
so the characters' ids are fixed beforehand (see `_learn_pieces`). The vocabulary is then put in a fixed order:

    [PAD] [UNK] [CLS] [SEP] [MASK], [unused0] ..., characters by code point, `##` characters by code point,
    longer pieces by how often they occur, then by text
"""

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bertsmith.artifact import Artifact, file_sha256, open_artifact, write_artifact
from bertsmith.config import TokenizerConfig
from bertsmith.corpus.build import read_documents
from bertsmith.errors import DataError, RecipeError
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend

KIND = "tokenizer"
_LONGEST_WORD = 100
_WORDS_A_LINE = 1000


def tokenizer_inputs(config: TokenizerConfig, corpus: Path) -> dict[str, str]:
    """Digest of what `train_tokenizer` reads: the corpus, or the tokenizer that is used instead."""
    if config.path is None:
        return {"corpus": open_artifact(corpus, "corpus", verify=False).digest}
    file = Path(config.path) / "tokenizer.json"
    return {"path": file_sha256(file) if file.is_file() else config.path}


def train_tokenizer(config: TokenizerConfig, corpus: Path, out: Path, *, environment: Mapping[str, Any]) -> Artifact:
    """Train on the corpus's training documents (or copy the tokenizer `config.path` names) and write the artifact.

    Raises `RecipeError` when `vocab_size` has no room for the characters, `DataError` when there is no text.
    """
    with write_artifact(
        out,
        kind=KIND,
        config=config.model_dump(mode="json"),
        inputs=tokenizer_inputs(config, corpus),
        environment=environment,
    ) as draft:
        if config.path is not None:
            tokenizer = Tokenizer.load(config.path)
            draft.counts["vocab_size"] = tokenizer.vocab_size
        else:
            texts = ("\n".join(document.sentences) for document in read_documents(corpus, "train"))
            words = count_words(texts, lowercase=config.lowercase)
            if not words:
                raise DataError("the corpus has no training text to learn a vocabulary from", path=corpus)
            vocabulary, counts = learn_vocabulary(words, config)
            draft.counts.update(counts)
            tokenizer = Tokenizer(
                make_backend({token: number for number, token in enumerate(vocabulary)}, lowercase=config.lowercase)
            )
        tokenizer.save(draft.path)
    return open_artifact(out, KIND, verify=False)


def count_words(texts: Iterable[str], *, lowercase: bool) -> Counter[str]:
    """How often each word occurs, words being what BERT's normaliser and pre-tokenizer make of the texts."""
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(normalizer.normalize_str(text).split())
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word, _ in split(chunk):
            words[word] += count
    return words


def learn_vocabulary(words: Mapping[str, int], config: TokenizerConfig) -> tuple[list[str], dict[str, Any]]:
    """Tokens in the order of their ids, and counts for the manifest."""
    characters, covered = _alphabet(words, config.alphabet_coverage)
    # Latin letters and digits turn up in any later text, even if this corpus has none.
    ascii_word = {*string.digits, *(string.ascii_lowercase if config.lowercase else string.ascii_letters)}
    characters |= ascii_word | set(string.punctuation)
    known = {word: count for word, count in words.items() if len(word) <= _LONGEST_WORD and characters.issuperset(word)}
    continuing = {character for word in known for character in word[1:]} | ascii_word
    first = [*SPECIAL_TOKENS, *(f"[unused{number}]" for number in range(config.unused_slots))]
    alphabet = [*sorted(characters), *(f"##{character}" for character in sorted(continuing))]
    room = config.vocab_size - len(first) - len(alphabet)
    if room < 0:
        raise RecipeError(
            f"tokenizer.vocab_size {config.vocab_size} has no room for {len(first)} special tokens and {len(alphabet)} "
            f"single characters; raise it to {len(first) + len(alphabet)} or more, or lower alphabet_coverage"
        )
    pieces = _learn_pieces(known, alphabet, size=len(alphabet) + room, min_frequency=config.min_frequency)
    vocabulary = [*first, *alphabet, *_by_count(pieces, known, alphabet)]
    counts: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "characters": len(characters),
        "pieces": len(pieces),
        "words": sum(words.values()),
        "distinct_words": len(words),
        "alphabet_coverage": round(covered, 6),
    }
    if len(vocabulary) < config.vocab_size:
        counts["smaller_because"] = (
            f"asked for {config.vocab_size}; the text has no more pieces seen {config.min_frequency} times, "
            f"made of the characters that alphabet_coverage {config.alphabet_coverage} lets in"
        )
    return vocabulary, counts


def _alphabet(words: Mapping[str, int], coverage: float) -> tuple[set[str], float]:
    """The most frequent characters that together cover the wanted share of the text, and the share they cover."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    total, covered = counts.total(), 0
    kept: set[str] = set()
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if kept and covered >= coverage * total:
            break
        kept.add(character)
        covered += count
    return kept, covered / max(1, total)


def _learn_pieces(words: Mapping[str, int], alphabet: list[str], *, size: int, min_frequency: int) -> list[str]:
    """Pieces longer than a character that byte-pair merging finds.

    The alphabet is handed over as "special tokens": these get the first ids, in the order given. Left alone, the
    trainer numbers `##` characters in the order of a randomly seeded hash table, and breaks ties by these numbers.
    """
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=alphabet,
        show_progress=False,
        continuing_subword_prefix="##",
    )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(_repeated(words), trainer)
    known = set(alphabet)
    return sorted(token for token in learner.get_vocab() if token not in known)


def _repeated(words: Mapping[str, int]) -> Iterator[str]:
    """Each word as often as it was counted, for a trainer that counts for itself."""
    for word, count in sorted(words.items()):
        while count > 0:
            yield " ".join([word] * min(count, _WORDS_A_LINE))
            count -= _WORDS_A_LINE


def _by_count(pieces: list[str], words: Mapping[str, int], alphabet: list[str]) -> list[str]:
    """Pieces in order of how often they occur when the training words are encoded with them."""
    vocabulary = {token: number for number, token in enumerate(["[UNK]", *alphabet, *pieces])}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for token in model.tokenize(word):
            counts[token.value] += count
    return sorted(pieces, key=lambda piece: (-counts[piece], piece))
