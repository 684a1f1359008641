"""How well a vocabulary fits a text: into how many pieces it parts the words, and what it does not know."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertsmith.engine import IN_THIS_PROCESS, Engine
from bertsmith.tokenizer.chunks import UNKNOWN
from bertsmith.tokenizer.count import WordCounts, count_corpus, count_words, splitter_of
from bertsmith.tokenizer.encode import Tokenizer

MOST_UNKNOWN = 0.05
"""Share of words that are [UNK] above which a vocabulary is called out."""
_LONGEST_SHOWN = 10


@dataclass(frozen=True)
class VocabularyReport:
    """What a vocabulary makes of a text. Words are those of the tokenizer's own normaliser and pre-tokenizer."""

    vocab_size: int
    words: int
    """In Chinese, each character is one."""
    han_words: int
    """Words that are a single Chinese character: one piece each, whatever the vocabulary."""
    characters: int
    """Without spaces."""
    pieces: int
    """An unknown word is one, [UNK]."""
    unknown: int
    """Words that are [UNK]."""
    whole: int
    """Words that are one piece, and known."""
    known_characters: int
    """Characters that stand in known words."""
    entries_used: int
    """Entries of the vocabulary that occur."""
    longest: tuple[tuple[str, int], ...]
    """The longest pieces that occur, without `##`, and how often."""
    commonest_unknown: tuple[tuple[str, int], ...]
    """Unknown words, the most frequent first."""

    @property
    def fertility(self) -> float:
        """Pieces for each word that is not a single Chinese character; 1 is the best there can be."""
        words = self.words - self.han_words
        return (self.pieces - self.han_words) / words if words else 1.0

    @property
    def unknown_share(self) -> float:
        """[UNK] rate: share of words."""
        return self.unknown / self.words if self.words else 0.0

    @property
    def whole_share(self) -> float:
        """Share of words that are one piece."""
        return self.whole / self.words if self.words else 1.0

    @property
    def coverage(self) -> float:
        """Share of characters that stand in known words."""
        return self.known_characters / self.characters if self.characters else 1.0

    @property
    def characters_per_piece(self) -> float:
        return self.characters / self.pieces if self.pieces else 0.0

    def to_dict(self) -> dict[str, Any]:
        shares = ("fertility", "unknown_share", "whole_share", "coverage", "characters_per_piece")
        return asdict(self) | {name: round(getattr(self, name), 6) for name in shares}


def report_on_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> VocabularyReport:
    """Report on texts given one by one, such as lines of a file."""
    return report_on_words(tokenizer, count_words(texts, splitter_of(tokenizer.backend)))


def report_on_corpus(
    tokenizer: Tokenizer, corpus: Path, split: str, *, engine: Engine = IN_THIS_PROCESS
) -> VocabularyReport:
    """Report on the documents of one split of a corpus."""
    return report_on_words(tokenizer, count_corpus(corpus, split, splitter_of(tokenizer.backend), engine=engine))


def report_on_words(tokenizer: Tokenizer, counts: WordCounts) -> VocabularyReport:
    """Report on counted words; those dropped for being rare are left out."""
    used: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    pieces = whole = known_characters = 0
    model = tokenizer.backend.model
    for word, count in counts.words.items():
        tokens = [token.value for token in model.tokenize(word)]
        pieces += len(tokens) * count
        if tokens == [UNKNOWN]:
            unknown[word] = count
            continue
        for token in tokens:
            used[token] += count
        whole += count * (len(tokens) == 1)
        known_characters += len(word) * count
    longest = sorted(used.items(), key=lambda item: (-len(item[0].removeprefix("##")), -item[1], item[0]))
    return VocabularyReport(
        vocab_size=tokenizer.vocab_size,
        words=counts.total - counts.dropped,
        han_words=counts.han_words,
        characters=counts.characters.total(),
        pieces=pieces + counts.too_long,
        unknown=unknown.total() + counts.too_long,
        whole=whole,
        known_characters=known_characters,
        entries_used=len(used),
        longest=tuple((token.removeprefix("##"), count) for token, count in longest[:_LONGEST_SHOWN]),
        commonest_unknown=tuple(sorted(unknown.items(), key=lambda item: (-item[1], item[0]))[:_LONGEST_SHOWN]),
    )


def unknown_warning(unknown_share: float, name: str) -> str:
    """A sentence where a vocabulary knows too few words, else nothing."""
    if unknown_share <= MOST_UNKNOWN:
        return ""
    return (
        f"{unknown_share:.1%} of the words are [UNK], from which nothing can be learned ({MOST_UNKNOWN:.0%} is much): "
        f"{name} does not fit this text"
    )
