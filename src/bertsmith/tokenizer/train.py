"""A WordPiece vocabulary from a corpus, the same each time, with any number of processes.

Words are counted part by part (`count`), pieces are learned from the counts (`merges`), and the vocabulary is put in a
fixed order:

    [PAD] [UNK] [CLS] [SEP] [MASK], [unused0] ..., characters by code point, `##` characters by code point,
    longer pieces by how often they occur, then by text
"""

import logging
import shutil
import string
from collections import Counter
from collections.abc import Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tokenizers import models

from bertsmith.artifact import Artifact, file_sha256, kept_pieces, open_artifact, write_artifact
from bertsmith.config import TokenizerConfig
from bertsmith.corpus.build import corpus_parts
from bertsmith.engine import IN_THIS_PROCESS, Engine
from bertsmith.errors import BertsmithError, DataError, RecipeError
from bertsmith.tokenizer.count import WordCounts, bert_splitter, count_corpus, read_sentences
from bertsmith.tokenizer.encode import LONGEST_WORD, SPECIAL_TOKENS, Tokenizer, make_backend
from bertsmith.tokenizer.merges import learn_merges
from bertsmith.tokenizer.report import report_on_texts, unknown_warning

KIND = "tokenizer"
DEFAULT_SIZE = 30_522
"""As bert-base-uncased has."""
SEEN_TO_BE_LEARNED = 100
"""Where no size is asked for, a piece must be seen so often: from fewer examples its embedding stays poor (Gowda and
May, 2020, "Finding the Optimal Vocabulary Size for Neural Machine Translation", ask it of 95 % of the entries)."""
MOST_LEARNED_FROM = 300_000
"""Pieces are learned from so many words, the most frequent: some 500 MB. Rarer words change nothing
that is often seen; they are counted all the same."""
_PARTS_IN_SAMPLE, _SENTENCES_OF_A_PART = 8, 2000

logger = logging.getLogger("bertsmith.tokenizer")


def tokenizer_inputs(config: TokenizerConfig, corpus: Path) -> dict[str, str]:
    """Digest of what `train_tokenizer` reads: the corpus, or the tokenizer that is used instead."""
    if config.path is None:
        return {"corpus": open_artifact(corpus, "corpus", verify=False).digest}
    file = Path(config.path) / "tokenizer.json"
    return {"path": file_sha256(file) if file.is_file() else config.path}


def train_tokenizer(
    config: TokenizerConfig,
    corpus: Path,
    out: Path,
    *,
    environment: Mapping[str, Any],
    engine: Engine = IN_THIS_PROCESS,
) -> Artifact:
    """Train on the corpus's training documents (or copy the tokenizer `config.path` names) and write the artifact.

    A vocabulary that knows too few of the corpus's words is called out in the log. Begun again after a stop,
    counting goes on with the next part. Raises `RecipeError` when `vocab_size` has no room for the characters,
    `DataError` when there is no text.
    """
    artifact = write_artifact(
        out,
        kind=KIND,
        config=config.model_dump(mode="json"),
        inputs=tokenizer_inputs(config, corpus),
        environment=environment,
    )
    with kept_pieces(out) as work, artifact as draft:
        if config.path is not None:
            tokenizer = Tokenizer.load(config.path)
            draft.counts["vocab_size"] = tokenizer.vocab_size
            # The artifact does not depend on the corpus; how the two fit is said in the log and in run.json.
            draft.run["unknown_share"] = _unknown_in_sample(tokenizer, corpus)
            warning = unknown_warning(draft.run["unknown_share"], config.path)
        else:
            splitter = bert_splitter(lowercase=config.lowercase)
            found = count_corpus(corpus, "train", splitter, engine=engine, work=work)
            try:
                if not found.total:
                    raise DataError("the corpus has no training text to learn a vocabulary from", path=corpus)
                vocabulary, counts = learn_vocabulary(found, config)
            except BertsmithError:
                shutil.rmtree(work, ignore_errors=True)
                raise
            draft.counts.update(counts)
            tokenizer = Tokenizer(
                make_backend({token: number for number, token in enumerate(vocabulary)}, lowercase=config.lowercase)
            )
            warning = counts.get("warning", "")
        tokenizer.save(draft.path)
    if warning:
        logger.warning(warning)
    return open_artifact(out, KIND, verify=False)


def learn_vocabulary(found: WordCounts, config: TokenizerConfig) -> tuple[list[str], dict[str, Any]]:
    """Tokens in the order of their ids, and counts for the manifest.

    Raises `RecipeError` when the size has no room for the characters.
    """
    characters, covered = _alphabet(found.characters, config.alphabet_coverage)
    # Latin letters and digits turn up in any later text, even if this corpus has none.
    ascii_word = {*string.digits, *(string.ascii_lowercase if config.lowercase else string.ascii_letters)}
    characters |= ascii_word | set(string.punctuation)
    known = {word: count for word, count in found.words.items() if characters.issuperset(word)}
    continuing = {character for word in known for character in word[1:]} | ascii_word
    first = [*SPECIAL_TOKENS, *(f"[unused{number}]" for number in range(config.unused_slots))]
    alphabet = [*sorted(characters), *(f"##{character}" for character in sorted(continuing))]
    wanted = config.vocab_size or DEFAULT_SIZE
    if wanted < len(first) + len(alphabet):
        raise RecipeError(
            f"tokenizer.vocab_size {wanted} has no room for {len(first)} special tokens and {len(alphabet)} "
            f"single characters; raise it to {len(first) + len(alphabet)} or more, or lower alphabet_coverage"
        )
    seen = config.min_frequency if config.vocab_size else max(config.min_frequency, SEEN_TO_BE_LEARNED)
    pieces = learn_merges(_most_frequent(known), alphabet, size=wanted - len(first), min_count=seen)
    vocabulary = [*first, *alphabet, *_by_count(pieces, known, alphabet)]
    counts: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "characters": len(characters),
        "pieces": len(pieces),
        "words": found.total,
        "distinct_words": len(found.words),
        "alphabet_coverage": round(covered, 6),
        "unknown_share": round((found.total - found.dropped - sum(known.values())) / found.total, 6),
    }
    if len(known) > MOST_LEARNED_FROM:
        counts["distinct_words_learned_from"] = MOST_LEARNED_FROM
    if found.dropped:
        counts["words_dropped_as_rare"] = found.dropped
    counts |= _why_this_size(len(vocabulary), config, seen, found.han_share)
    if warning := unknown_warning(counts["unknown_share"], "the vocabulary"):
        counts["warning"] = f"{warning}; raise tokenizer.alphabet_coverage, now {config.alphabet_coverage}"
    return vocabulary, counts


def size_in_words(counts: Mapping[str, Any]) -> str:
    """The size of a vocabulary and why it is that, from the counts of its manifest."""
    reason = counts.get("smaller_because") or counts.get("size_because")
    return f"{counts['vocab_size']:,} entries" + (f" ({reason})" if reason else "")


def _unknown_in_sample(tokenizer: Tokenizer, corpus: Path) -> float:
    """Share of words that are [UNK] in some sentences of some parts of the corpus, from its beginning to its end."""
    parts = corpus_parts(corpus)
    sample = parts[:: 1 + len(parts) // _PARTS_IN_SAMPLE]
    sentences = (islice(read_sentences(part, "train"), _SENTENCES_OF_A_PART) for part in sample)
    return report_on_texts(tokenizer, chain.from_iterable(sentences)).unknown_share


def _why_this_size(size: int, config: TokenizerConfig, seen: int, han_share: float) -> dict[str, str]:
    """Nothing where the size is the one asked for."""
    if size == config.vocab_size:
        return {}
    if size == DEFAULT_SIZE:
        return {"size_because": f"the usual size; each piece was seen {seen} times or more when it was made"}
    of_han = f"; {han_share:.0%} of the words are single Chinese characters, never joined" if han_share > 0.5 else ""
    if config.vocab_size is None:
        return {
            "size_because": f"not the usual {DEFAULT_SIZE:,}: the text has no more pieces seen {seen} times, so often "
            f"as it takes to learn one{of_han}; vocab_size asks for another size"
        }
    return {
        "smaller_because": f"asked for {config.vocab_size}; the text has no more pieces seen {seen} times, "
        f"made of the characters that alphabet_coverage {config.alphabet_coverage} lets in{of_han}"
    }


def _alphabet(counts: Mapping[str, int], coverage: float) -> tuple[set[str], float]:
    """The most frequent characters that together cover the wanted share of the text, and the share they cover."""
    total, covered = sum(counts.values()), 0
    kept: set[str] = set()
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if kept and covered >= coverage * total:
            break
        kept.add(character)
        covered += count
    return kept, covered / max(1, total)


def _most_frequent(words: Mapping[str, int]) -> Mapping[str, int]:
    """The `MOST_LEARNED_FROM` most frequent words; of equally frequent ones, those first in order of text."""
    if len(words) <= MOST_LEARNED_FROM:
        return words
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:MOST_LEARNED_FROM])


def _by_count(pieces: list[str], words: Mapping[str, int], alphabet: list[str]) -> list[str]:
    """Pieces in order of how often they occur when the training words are encoded with them."""
    vocabulary = {token: number for number, token in enumerate(["[UNK]", *alphabet, *pieces])}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for token in model.tokenize(word):
            counts[token.value] += count
    return sorted(pieces, key=lambda piece: (-counts[piece], piece))
