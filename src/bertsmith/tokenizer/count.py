"""How often each word occurs in a corpus: a task for each of its parts, merged in the order of the parts.

Memory is bounded, and what is given up for that is stated. Where more than `MOST_WORDS` different words are at hand,
the rarest are dropped until half as many are left (by count, then by text; lossy counting, Manku and Motwani, 2002).
This happens after fixed steps, within a part and between parts, so it depends on the corpus alone, not on how many
processes counted. Characters and the total are counted before anything is dropped.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tokenizers
import xxhash
from tokenizers import models, normalizers, pre_tokenizers

from bertsmith.artifact import Piece, canonical, file_digests, forget_other_pieces, make_piece
from bertsmith.corpus.build import corpus_parts
from bertsmith.engine import Engine
from bertsmith.tokenizer.encode import LONGEST_WORD, make_backend

MOST_WORDS = 1_000_000
"""Different words kept at most; at some 120 bytes each."""
_CHUNKS_AT_ONCE = 200_000
_COUNTS = "counts.json"
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_NOT_HAN = re.compile("[^\u3400-\u4dbf\u4e00-\u9fff]+")
# Spaces to Python, control characters to BERT, which drops them: "a\x0bb" is one word.
_ODD_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85]")


@dataclass
class WordCounts:
    """Words as BERT's normaliser and pre-tokenizer make them, and how often each occurs."""

    words: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    """Occurrences of each character, in all words."""
    total: int = 0
    """Occurrences of all words, with those that `words` no longer has."""
    too_long: int = 0
    """Occurrences of words above `LONGEST_WORD` characters, which are [UNK] in any vocabulary; not in `words`."""
    dropped: int = 0
    """Occurrences of words dropped for being rare."""

    @property
    def han_words(self) -> int:
        """Occurrences of single Chinese characters, each of which is a word to BERT."""
        return sum(self.words[word] for word in self.words if len(word) == 1 and _HAN.match(word))

    @property
    def han_share(self) -> float:
        """Share of words that are single Chinese characters."""
        return self.han_words / self.total if self.total else 0.0

    @classmethod
    def load(cls, path: Path) -> "WordCounts":
        """What `save` wrote."""
        kept: dict[str, Any] = json.loads(path.read_bytes())
        return cls(**kept | {name: Counter(kept[name]) for name in ("words", "characters")})

    def save(self, path: Path) -> None:
        """As JSON, whose strings hold a lone surrogate too."""
        path.write_text(json.dumps(vars(self)), encoding="ascii")

    def add(self, other: "WordCounts", *, most_words: int = MOST_WORDS) -> None:
        self.words.update(other.words)
        self.characters.update(other.characters)
        self.total += other.total
        self.too_long += other.too_long
        self.dropped += other.dropped
        self.drop_rarest(most_words)

    def drop_rarest(self, most_words: int) -> None:
        """Where there are more than `most_words`, keep the half of that number that is most frequent."""
        if len(self.words) <= most_words:
            return
        before = self.words.total()
        ordered = sorted(self.words.items(), key=lambda item: (-item[1], item[0]))
        self.words = Counter(dict(ordered[: most_words // 2]))
        self.dropped += before - self.words.total()


def count_corpus(
    corpus: Path,
    split: str,
    splitter: tokenizers.Tokenizer,
    *,
    engine: Engine,
    most_words: int = MOST_WORDS,
    work: Path | None = None,
) -> WordCounts:
    """Words of a corpus's documents of one split. Memory: a part's words for each process, and `most_words` words.

    work: keep the counts of each part here as a piece, so that counting that was stopped goes on.
    """
    parts = corpus_parts(corpus)
    counts = WordCounts()
    if work is None:
        for found in engine.map(partial(_count_part, split, splitter, most_words), parts):
            counts.add(found, most_words=most_words)
        return counts
    digests, settings = file_digests(corpus), [split, splitter.to_str(), most_words]
    tasks = [(part, xxhash.xxh3_128_hexdigest(canonical([digests[part.name], *settings]).encode())) for part in parts]
    forget_other_pieces(work, {key for _, key in tasks})
    for piece in engine.map(partial(_count_piece, split, splitter, most_words, work), tasks):
        counts.add(WordCounts.load(piece.path / _COUNTS), most_words=most_words)
    return counts


def count_words(texts: Iterable[str], splitter: tokenizers.Tokenizer, *, most_words: int = MOST_WORDS) -> WordCounts:
    """Words of texts as the normaliser and pre-tokenizer of `splitter` make them.

    What stands between spaces is counted first, and split into words once however often it occurs; a Chinese character
    is a word wherever it stands.
    """
    counts = WordCounts()
    chunks: Counter[str] = Counter()
    is_standard = _is_standard(splitter)
    for text in texts:
        if not is_standard or _ODD_SPACES.search(text):
            chunks[text] += 1
        elif text.isascii() or not _HAN.search(text):
            chunks.update(text.split())
        else:
            chunks.update(_HAN.findall(text))
            for run in _NOT_HAN.findall(text):
                chunks.update(run.split())
        if len(chunks) > _CHUNKS_AT_ONCE:
            counts.add(_count_chunks(chunks, splitter), most_words=most_words)
            chunks = Counter()
    counts.add(_count_chunks(chunks, splitter), most_words=most_words)
    return counts


def bert_splitter(*, lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's normaliser and pre-tokenizer, with no vocabulary."""
    return splitter_of(make_backend({}, lowercase=lowercase))


def splitter_of(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Normaliser and pre-tokenizer of a tokenizer, without its vocabulary: small, to be sent to other processes."""
    splitter = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    if backend.normalizer is not None:
        splitter.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        splitter.pre_tokenizer = backend.pre_tokenizer
    return splitter


def split_words(text: str, splitter: tokenizers.Tokenizer) -> list[str]:
    """The words of one text."""
    if splitter.normalizer is not None:
        text = splitter.normalizer.normalize_str(text)
    if splitter.pre_tokenizer is None:
        return [text] if text else []
    return [word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(text)]


def read_sentences(part: Path, split: str) -> Iterator[str]:
    """Sentences of the documents of one split in a part of a corpus."""
    with pq.ParquetFile(part) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["sentences", "split"]):
            chosen = batch.filter(pc.equal(batch.column("split"), pa.scalar(split)))
            yield from chosen.column("sentences").flatten().to_pylist()


def _count_part(split: str, splitter: tokenizers.Tokenizer, most_words: int, part: Path) -> WordCounts:
    return count_words(read_sentences(part, split), splitter, most_words=most_words)


def _count_piece(
    split: str, splitter: tokenizers.Tokenizer, most_words: int, work: Path, task: tuple[Path, str]
) -> Piece:
    part, key = task

    def count(folder: Path) -> dict[str, int]:
        counts = _count_part(split, splitter, most_words, part)
        counts.save(folder / _COUNTS)
        return {"words": counts.total}

    return make_piece(work, key, count)


def _is_standard(splitter: tokenizers.Tokenizer) -> bool:
    """True where words are BERT's: looking at no character beyond a space, nor beyond a Chinese one."""
    normalizer = splitter.normalizer
    return (
        isinstance(normalizer, normalizers.BertNormalizer)
        and normalizer.clean_text
        and normalizer.handle_chinese_chars
        and isinstance(splitter.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    )


def _count_chunks(chunks: Counter[str], splitter: tokenizers.Tokenizer) -> WordCounts:
    counts = WordCounts()
    for chunk, count in chunks.items():
        for word in split_words(chunk, splitter):
            counts.total += count
            for character in word:
                counts.characters[character] += count
            if len(word) <= LONGEST_WORD:
                counts.words[word] += count
            else:
                counts.too_long += count
    return counts
