"""Documents and a vocabulary to examples: blocks of token ids with the ends of sentences, documents and spans.

One task a part of the corpus, on as many processes as there are; a finished part waits as a piece, so a build that was
stopped goes on where it was. Block borders depend on the corpus alone. Masks, pairs and order are not stored: they are
drawn anew each epoch (see `pairs`, `mask` and `order`).
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from bertsmith.artifact import (
    Artifact,
    Piece,
    canonical,
    file_digests,
    forget_other_pieces,
    kept_pieces,
    make_piece,
    open_artifact,
    write_artifact,
)
from bertsmith.config import ExamplesConfig
from bertsmith.corpus.build import corpus_parts
from bertsmith.engine import IN_THIS_PROCESS, Engine
from bertsmith.errors import DataError
from bertsmith.examples.blocks import Block, block_path, index_path, write_columns
from bertsmith.examples.draws import Int64, UInt64, hash_counters
from bertsmith.examples.tile import cut_long_sentences, pack, span_targets
from bertsmith.progress import Report
from bertsmith.runtime import derive_seed
from bertsmith.tokenizer.encode import Tokenizer

KIND = "examples"
SPLITS = ("train", "validation")
SPECIAL_TOKENS_OF_A_PAIR = 3
_BLOCK_TOKENS = 4_000_000
_SENTENCES_AT_ONCE = 8_000


def examples_inputs(corpus: Path, tokenizer: Path) -> dict[str, str]:
    """Digests of what `build_examples` reads."""
    return {
        "corpus": open_artifact(corpus, "corpus", verify=False).digest,
        "tokenizer": open_artifact(tokenizer, "tokenizer", verify=False).digest,
    }


def build_examples(
    config: ExamplesConfig,
    corpus: Path,
    tokenizer: Path,
    out: Path,
    *,
    seed: int,
    environment: Mapping[str, Any],
    engine: Engine = IN_THIS_PROCESS,
    progress: Report | None = None,
) -> Artifact:
    """Encode the training and validation documents of `corpus` and tile them into spans.

    Begun again after a stop, it goes on with the next part. Raises `DataError` when the corpus has no training text.
    """
    inputs = examples_inputs(corpus, tokenizer)
    settings = {**config.model_dump(mode="json"), "seed": seed}
    with kept_pieces(out) as work:
        tasks = _tasks(config, corpus, tokenizer, work, seed, inputs["tokenizer"])
        with write_artifact(out, kind=KIND, config=settings, inputs=inputs, environment=environment) as draft:
            pieces = _make_pieces(tasks, engine, progress)
            for split in SPLITS:
                draft.counts[split] = _gather(pieces, split, draft.path)
            if not draft.counts["train"]["tokens"]:
                shutil.rmtree(work, ignore_errors=True)
                raise DataError("the corpus has no training text; add sources or lower validation_share", path=corpus)
            draft.counts["vocab_size"] = _tokenizer(tokenizer, inputs["tokenizer"]).vocab_size
    return open_artifact(out, KIND, verify=False)


def beside(examples: Path, max_length: int | None) -> Path:
    """Where examples of another length stand: `examples-512` beside `examples`; None: `examples` itself."""
    return examples if max_length is None else examples.with_name(f"{examples.name}-{max_length}")


@dataclass(frozen=True)
class _Part:
    """A task: one part of the corpus, and all that its blocks depend on."""

    parquet: Path
    work: Path
    key: str
    tokenizer: Path
    tokenizer_digest: str
    config: ExamplesConfig
    seed: int


def _tasks(
    config: ExamplesConfig, corpus: Path, tokenizer: Path, work: Path, seed: int, tokenizer_digest: str
) -> list[_Part]:
    """A task for each part of the corpus, in its order; what other settings left in `work` goes."""
    digests = file_digests(corpus)
    tasks = []
    for path in corpus_parts(corpus):
        depends_on = [digests[path.name], tokenizer_digest, config.model_dump(mode="json"), seed]
        key = hashlib.sha256(canonical(depends_on).encode()).hexdigest()[:32]
        tasks.append(_Part(path, work, key, tokenizer, tokenizer_digest, config, seed))
    forget_other_pieces(work, {task.key for task in tasks})
    return tasks


def _make_pieces(tasks: list[_Part], engine: Engine, progress: Report | None) -> list[Piece]:
    sizes = [task.parquet.stat().st_size for task in tasks]
    pieces = []
    for piece in engine.map(_make_part, tasks):
        pieces.append(piece)
        if progress is not None:
            progress(sum(sizes[: len(pieces)]), sum(sizes))
    return pieces


def _gather(pieces: list[Piece], split: str, out: Path) -> dict[str, Any]:
    """Put the blocks of all pieces side by side under their final numbers, and write the index; returns the counts."""
    blocks: list[dict[str, int]] = []
    for piece in pieces:
        for number, counts in enumerate(piece.counts[split]):
            _place(block_path(piece.path, split, number), block_path(out, split, len(blocks)))
            blocks.append(counts)
    names = ("tokens", "spans", "sentences", "documents")
    write_columns(
        index_path(out, split),
        {name: np.array([block[name] for block in blocks], dtype=np.int64) for name in names},
    )
    total = sum(map(Counter, blocks), Counter())
    return {
        "blocks": len(blocks),
        **{name: total[name] for name in (*names, "documents_of_one_span", "cut_sentences")},
        "unknown_share": round(total["unknown_tokens"] / max(1, total["tokens"]), 6),
        "mean_span_tokens": round(total["tokens"] / max(1, total["spans"]), 2),
        "mean_word_tokens": round(total["tokens"] / max(1, total["words"]), 3),
    }


def _place(file: Path, path: Path) -> None:
    """Give a piece's file a second name: a build that is stopped before its artifact is whole still has the piece."""
    try:
        os.link(file, path)
    except OSError:  # not every file system has links
        shutil.copyfile(file, path)


# ---- one part, in a process of its own ----


def _make_part(part: _Part) -> Piece:
    return make_piece(part.work, part.key, partial(_write_part, part))


def _write_part(part: _Part, folder: Path) -> dict[str, list[dict[str, int]]]:
    """Write the part's blocks into `folder`; returns the counts of each, by split."""
    tokenizer = _tokenizer(part.tokenizer, part.tokenizer_digest)
    counts: dict[str, list[dict[str, int]]] = {}
    for split in SPLITS:
        counts[split] = []
        for number, documents in enumerate(_encode(part.parquet, split, tokenizer).in_blocks()):
            block, facts = _tile(documents, part, tokenizer)
            write_columns(block_path(folder, split, number), block.columns())
            counts[split].append(facts)
    return counts


@lru_cache(maxsize=1)
def _tokenizer(path: Path, digest: str) -> Tokenizer:  # noqa: ARG001  (tells one from another at the same place)
    """Loaded once in a process."""
    return Tokenizer.load(path)


@dataclass(frozen=True)
class _Documents:
    """Encoded documents one after the other; those and the sentences of which no token is left are not among them."""

    tokens: npt.NDArray[Any]
    word_starts: npt.NDArray[np.bool_]
    sentence_ends: Int64
    document_ends: Int64
    names: UInt64
    """(documents,) hash of each document's id."""

    def in_blocks(self) -> Iterator["_Documents"]:
        """Cut at the first document border after every `_BLOCK_TOKENS` tokens."""
        starts = np.concatenate([[0], self.document_ends[:-1]]) if len(self.document_ends) else self.document_ends
        numbers = starts // _BLOCK_TOKENS
        for number in np.unique(numbers):
            first, end = np.searchsorted(numbers, [number, number + 1])
            start, stop = int(starts[first]), int(self.document_ends[end - 1])
            sentences = slice(*np.searchsorted(self.sentence_ends, [start, stop], side="right"))
            yield _Documents(
                self.tokens[start:stop],
                self.word_starts[start:stop],
                self.sentence_ends[sentences] - start,
                self.document_ends[first:end] - start,
                self.names[first:end],
            )


def _encode(parquet: Path, split: str, tokenizer: Tokenizer) -> _Documents:
    """Token ids of all documents of one split of a part of the corpus."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    tokens: list[npt.NDArray[Any]] = [np.zeros(0, dtype=dtype)]
    word_starts = [np.zeros(0, dtype=np.bool_)]
    sentence_lengths = [np.zeros(0, dtype=np.int64)]
    num_sentences = [np.zeros(0, dtype=np.int64)]
    names: list[int] = []
    for rows in _rows(parquet, split):
        column = rows.column("sentences")
        num_sentences.append(column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
        names.extend(xxhash.xxh3_64_intdigest(name.encode()) for name in rows.column("id").to_pylist())
        sentences = column.flatten()
        for start in range(0, len(sentences), _SENTENCES_AT_ONCE):
            ids, ends, starts = tokenizer.encode_with_words(sentences.slice(start, _SENTENCES_AT_ONCE).to_pylist())
            tokens.append(ids.astype(dtype))
            word_starts.append(starts)
            sentence_lengths.append(np.diff(ends, prepend=0))
    sentence_ends = np.cumsum(np.concatenate(sentence_lengths))
    last = np.cumsum(np.concatenate(num_sentences))
    document_ends = np.concatenate([[0], sentence_ends])[last]
    kept = np.diff(document_ends, prepend=0) > 0
    return _Documents(
        np.concatenate(tokens),
        np.concatenate(word_starts),
        sentence_ends[np.diff(sentence_ends, prepend=0) > 0],
        document_ends[kept],
        np.array(names, dtype=np.uint64)[kept],
    )


def _rows(parquet: Path, split: str) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(parquet) as file:
        for batch in file.iter_batches(batch_size=1 << 16, columns=["id", "sentences", "split"]):
            yield batch.filter(pc.equal(batch.column("split"), split))


def _tile(documents: _Documents, part: _Part, tokenizer: Tokenizer) -> tuple[Block, dict[str, int]]:
    """Tile a block's documents into spans; returns the block and its counts."""
    limit = part.config.max_length - SPECIAL_TOKENS_OF_A_PAIR
    piece_ends, num_cut = cut_long_sentences(documents.sentence_ends, documents.word_starts, limit=limit)
    piece_starts = np.concatenate([[0], piece_ends[:-1]])
    document = np.searchsorted(documents.document_ends, piece_starts, side="right")
    offsets = piece_starts - np.concatenate([[0], documents.document_ends])[document]
    keys = hash_counters(np.uint64(derive_seed("span length", part.seed)), documents.names)
    targets = span_targets(keys[document], offsets, limit=limit, short_share=part.config.short_share)
    span_ends = pack(piece_ends, documents.document_ends, targets)
    span_documents = np.searchsorted(documents.document_ends, span_ends, side="left")
    block = Block(
        tokens=documents.tokens,
        word_starts=np.packbits(documents.word_starts, bitorder="little"),
        sentence_ends=documents.sentence_ends.astype(np.int32),
        document_ends=documents.document_ends.astype(np.int32),
        span_ends=span_ends.astype(np.int32),
        span_documents=span_documents.astype(np.int32),
    )
    return block, {
        "tokens": len(documents.tokens),
        "words": int(documents.word_starts.sum()),
        "spans": len(span_ends),
        "sentences": len(documents.sentence_ends),
        "documents": len(documents.document_ends),
        "documents_of_one_span": int((np.bincount(span_documents) == 1).sum()),
        "cut_sentences": num_cut,
        "unknown_tokens": int((documents.tokens == tokenizer.unk_id).sum()),
    }
