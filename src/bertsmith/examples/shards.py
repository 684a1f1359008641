"""Documents and a vocabulary to token shards and an integer index of spans, all memory-mapped when read.

    SPLIT-tokens-00000.arrow ...   tokens (uint16 or int32), word_starts (uint8: 1 where a word begins)
    SPLIT-sentences.arrow          end: token number after each sentence's last token
    SPLIT-documents.arrow          end: the same for documents; spans_end: number of spans up to there
    SPLIT-spans.arrow              end: the same for spans; document: number of the span's document

Token numbers count through all shards of a split. A span is a run of whole sentences of one document that fits into
an example; spans tile the tokens, so each token is in exactly one. Masks, pairs and order are not stored: they are
drawn anew each epoch (see `pairs`, `mask` and `batches`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bertsmith.artifact import Artifact, Draft, open_artifact, write_artifact
from bertsmith.config import ExamplesConfig
from bertsmith.corpus.build import read_documents
from bertsmith.corpus.document import Document
from bertsmith.errors import ArtifactError, DataError
from bertsmith.examples.draws import Int64
from bertsmith.runtime import derive_seed
from bertsmith.tokenizer.encode import Tokenizer

KIND = "examples"
SPLITS = ("train", "validation")
_SHARD_TOKENS = 8_000_000
_SENTENCES_AT_ONCE = 4_000


def examples_inputs(corpus: Path, tokenizer: Path) -> dict[str, str]:
    """Digests of what `build_examples` reads."""
    return {
        "corpus": open_artifact(corpus, "corpus", verify=False).digest,
        "tokenizer": open_artifact(tokenizer, "tokenizer", verify=False).digest,
    }


def build_examples(
    config: ExamplesConfig, corpus: Path, tokenizer: Path, out: Path, *, seed: int, environment: Mapping[str, Any]
) -> Artifact:
    """Encode the training and validation documents of `corpus` and tile them into spans.

    Raises `DataError` when the corpus has no training text.
    """
    vocabulary = Tokenizer.load(tokenizer)
    with write_artifact(
        out,
        kind=KIND,
        config={**config.model_dump(mode="json"), "seed": seed},
        inputs=examples_inputs(corpus, tokenizer),
        environment=environment,
    ) as draft:
        for split in SPLITS:
            writer = _SplitWriter(draft, split, vocabulary, config, seed)
            for batch in _sentence_batches(read_documents(corpus, split)):
                writer.add(batch)
            writer.finish()
        if not draft.counts["train"]["tokens"]:
            raise DataError("the corpus has no training text; add sources or lower validation_share", path=corpus)
        draft.counts["vocab_size"] = vocabulary.vocab_size
    return open_artifact(out, KIND, verify=False)


def tile(
    sentence_ends: Sequence[int], word_starts: npt.NDArray[Any], *, limit: int, targets: Iterator[int]
) -> tuple[list[int], int]:
    """Cut one document into spans; returns the spans' ends and how many sentences had to be cut.

    A span takes whole sentences up to its target length (`limit` or a shorter one). Only a sentence longer than
    `limit` is cut, before a word where one begins in the second half of the piece.
    """
    ends: list[int] = []
    start, sentence_start, num_cut = 0, 0, 0
    target = next(targets)
    for end in sentence_ends:
        too_long = end - sentence_start > limit
        if start < sentence_start and (too_long or end - start > target):
            ends.append(sentence_start)
            start, target = sentence_start, next(targets)
        if too_long:
            num_cut += 1
            while end - start > limit:
                starts = np.flatnonzero(word_starts[start + limit // 2 : start + limit + 1])
                start += limit // 2 + int(starts[-1]) if len(starts) else limit
                ends.append(start)
                target = next(targets)
        sentence_start = end
    if start < sentence_start:
        ends.append(sentence_start)
    return ends, num_cut


@dataclass(frozen=True)
class Spans:
    """One split of an examples artifact, memory-mapped."""

    shards: tuple[npt.NDArray[Any], ...]
    """Token ids of each shard."""
    word_starts: tuple[npt.NDArray[np.uint8], ...]
    shard_starts: Int64
    """Token number of each shard's first token, and of the end."""
    sentence_ends: Int64
    ends: Int64
    document: npt.NDArray[np.int32]
    document_spans_end: Int64

    def __len__(self) -> int:
        return len(self.ends)

    def bounds(self, ids: Int64) -> tuple[Int64, Int64]:
        """Token numbers [start, end) of spans."""
        starts = np.where(ids > 0, self.ends[ids - 1], 0)
        return starts, self.ends[ids]

    def document_spans(self, ids: Int64) -> tuple[Int64, Int64]:
        """Numbers [first, end) of the spans of each span's document."""
        document = self.document[ids].astype(np.int64)
        first = np.where(document > 0, self.document_spans_end[document - 1], 0)
        return first, self.document_spans_end[document]

    def tokens(self, start: int, length: int) -> npt.NDArray[Any]:
        """`length` token ids from token number `start`; never across a document, so never across a shard."""
        shard = self._shard(start)
        local = start - int(self.shard_starts[shard])
        return self.shards[shard][local : local + length]

    def starts_word(self, start: int, length: int) -> npt.NDArray[np.uint8]:
        shard = self._shard(start)
        local = start - int(self.shard_starts[shard])
        return self.word_starts[shard][local : local + length]

    def _shard(self, token: int) -> int:
        return 0 if len(self.shards) == 1 else int(np.searchsorted(self.shard_starts, token, side="right")) - 1


def open_spans(artifact: Artifact, split: str) -> Spans:
    """Memory-map one split. Raises `ArtifactError` for a split that was not built."""
    if split not in SPLITS:
        raise ArtifactError(f"{artifact.path} has no split {split!r}; it has {', '.join(SPLITS)}")
    shards = [_map(path) for path in sorted(artifact.path.glob(f"{split}-tokens-*.arrow"))]
    spans = _map(artifact.path / f"{split}-spans.arrow")
    lengths = [len(shard["tokens"]) for shard in shards]
    return Spans(
        shards=tuple(shard["tokens"] for shard in shards),
        word_starts=tuple(shard["word_starts"] for shard in shards),
        shard_starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        sentence_ends=_map(artifact.path / f"{split}-sentences.arrow")["end"],
        ends=spans["end"],
        document=spans["document"],
        document_spans_end=_map(artifact.path / f"{split}-documents.arrow")["spans_end"],
    )


class _SplitWriter:
    """Collects encoded documents of one split and writes a shard whenever enough tokens are there."""

    def __init__(self, draft: Draft, split: str, tokenizer: Tokenizer, config: ExamplesConfig, seed: int):
        self.draft, self.split, self.tokenizer, self.config, self.seed = draft, split, tokenizer, config, seed
        self.limit = config.max_length - 3
        self.tokens: list[npt.NDArray[np.int32]] = []
        self.pending_tokens = self.num_tokens = self.num_shards = self.num_unknown = self.num_cut = 0
        self.sentence_ends: list[int] = []
        self.document_ends: list[int] = []
        self.document_spans_end: list[int] = []
        self.span_ends: list[int] = []
        self.span_documents: list[int] = []

    def add(self, documents: Sequence[Document]) -> None:
        encoded = iter(
            self.tokenizer.encode_ids([sentence for document in documents for sentence in document.sentences])
        )
        for document in documents:
            self._add_document(document.id, [ids for _, ids in zip(document.sentences, encoded, strict=False) if ids])
            if self.pending_tokens >= _SHARD_TOKENS:
                self._write_shard()

    def _add_document(self, name: str, sentences: list[list[int]]) -> None:
        if not sentences:
            return
        ids = np.array([number for sentence in sentences for number in sentence], dtype=np.int32)
        ends = np.cumsum([len(sentence) for sentence in sentences]).tolist()
        starts_word = ~self.tokenizer.continues_word[ids]
        span_ends, num_cut = tile(ends, starts_word, limit=self.limit, targets=self._targets(name))
        self.sentence_ends.extend(self.num_tokens + end for end in ends)
        self.span_ends.extend(self.num_tokens + end for end in span_ends)
        self.span_documents.extend([len(self.document_ends)] * len(span_ends))
        self.num_tokens += len(ids)
        self.document_ends.append(self.num_tokens)
        self.document_spans_end.append(len(self.span_ends))
        self.num_unknown += int((ids == self.tokenizer.unk_id).sum())
        self.num_cut += num_cut
        self.tokens.append(ids)
        self.pending_tokens += len(ids)

    def _targets(self, name: str) -> Iterator[int]:
        """Target lengths of a document's spans: mostly the longest, some shorter (config.short_share)."""
        number = 0
        while True:
            draw = derive_seed("span length", self.seed, name, number)
            is_short = (draw & 0xFFFFF) < self.config.short_share * 0x100000
            shortest = max(1, self.limit // 8)
            yield shortest + (draw >> 20) % (self.limit - shortest + 1) if is_short else self.limit
            number += 1

    def _write_shard(self) -> None:
        ids = np.concatenate(self.tokens)
        small = self.tokenizer.vocab_size <= 1 << 16
        name = f"{self.split}-tokens-{self.num_shards:05d}.arrow"
        columns: dict[str, npt.NDArray[Any]] = {
            "tokens": ids.astype(np.uint16 if small else np.int32),
            "word_starts": (~self.tokenizer.continues_word[ids]).astype(np.uint8),
        }
        _write(self.draft.path / name, columns)
        self.tokens, self.pending_tokens, self.num_shards = [], 0, self.num_shards + 1

    def finish(self) -> None:
        if self.tokens:
            self._write_shard()
        folder, split = self.draft.path, self.split
        _write(folder / f"{split}-sentences.arrow", {"end": np.array(self.sentence_ends, dtype=np.int64)})
        documents = {
            "end": np.array(self.document_ends, dtype=np.int64),
            "spans_end": np.array(self.document_spans_end, dtype=np.int64),
        }
        _write(folder / f"{split}-documents.arrow", documents)
        spans: dict[str, npt.NDArray[Any]] = {
            "end": np.array(self.span_ends, dtype=np.int64),
            "document": np.array(self.span_documents, dtype=np.int32),
        }
        _write(folder / f"{split}-spans.arrow", spans)
        one_span = sum(end - start == 1 for start, end in pairwise([0, *self.document_spans_end]))
        self.draft.counts[split] = {
            "documents": len(self.document_ends),
            "documents_of_one_span": one_span,
            "sentences": len(self.sentence_ends),
            "tokens": self.num_tokens,
            "spans": len(self.span_ends),
            "cut_sentences": self.num_cut,
            "unknown_share": round(self.num_unknown / max(1, self.num_tokens), 6),
            "mean_span_tokens": round(self.num_tokens / max(1, len(self.span_ends)), 2),
        }


def _sentence_batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    num_sentences = 0
    for document in documents:
        batch.append(document)
        num_sentences += len(document.sentences)
        if num_sentences >= _SENTENCES_AT_ONCE:
            yield batch
            batch, num_sentences = [], 0
    if batch:
        yield batch


def _write(path: Path, columns: dict[str, npt.NDArray[Any]]) -> None:
    """One record batch, uncompressed, so that a column is one block of the file and can be mapped as it is."""
    batch = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _map(path: Path) -> dict[str, npt.NDArray[Any]]:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    return {name: batch.column(name).to_numpy(zero_copy_only=True) for name in batch.schema.names}
