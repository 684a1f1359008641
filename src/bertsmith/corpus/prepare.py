"""The first pass over a chunk: read, clean, split into sentences, and key each document for what comes after.

A piece (see `artifact.make_piece`) holds

    rows-000.parquet ...   the corpus's columns, for every document of the chunk that was not rejected
    facts.npy              a record a document: what is counted, and the hash that draws its split
    exact.npy              (documents, 2) uint64: key of the text, for exact duplicates
    near.npy               (documents, permutations) uint32: MinHash signature, where near duplicates are wanted
    rejects.jsonl          rejected documents with their reason, where they are to be kept
"""

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from bertsmith.artifact import Piece, canonical, make_piece
from bertsmith.config import CorpusConfig
from bertsmith.corpus.clean import Cleaner, Rejected
from bertsmith.corpus.dedup import exact_key
from bertsmith.corpus.document import Document, RawDocument, Split
from bertsmith.corpus.sources import Chunk, read_chunk

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("split", pa.string()),
    ]
)
FACTS = np.dtype([("characters", np.int64), ("sentences", np.int32), ("draw", np.uint64)])
PART_CHARACTERS = 32_000_000
_GROUP_ROWS, _GROUP_CHARACTERS = 8192, 4_000_000


@dataclass(frozen=True)
class PrepareTask:
    """A chunk and what is done with it; `key` names its piece."""

    chunk: Chunk
    config: CorpusConfig
    work: Path
    key: str
    keep_rejects: bool = False
    workers: int = 1
    """Processes for the one source that is read by several: the documentation of packages."""


def task_key(chunk: Chunk, config: CorpusConfig, inputs: Mapping[str, str], *, keep_rejects: bool) -> str:
    """A digest of all that a chunk's piece depends on; `inputs` are those of the chunk's source."""
    read = {part.file.name: inputs[part.file.name] for part in chunk.parts} or inputs
    rest = config.model_dump(mode="json", exclude={"sources", "max_documents"})
    described = {
        "source": chunk.source.model_dump(mode="json", exclude={"paths", "weight"}),
        "read": read,
        "ranges": [[part.start, part.end] for part in chunk.parts],
        "config": rest,
        "keep_rejects": keep_rejects,
    }
    return xxhash.xxh3_128_hexdigest(canonical(described).encode())


def prepare_chunk(task: PrepareTask) -> Piece:
    """Make the chunk's piece, or find it made. Raises `DataError` naming the place."""
    return make_piece(task.work, task.key, lambda folder: _prepare(task, folder))


def draw_of(key: str) -> int:
    """64 bits from a document's key: the same whatever else is in the corpus."""
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


def split_of(draw: int, *, validation_share: float, test_share: float) -> Split:
    """The split of a document, from its draw alone."""
    place = draw / 2**64
    if place < validation_share:
        return "validation"
    return "test" if place < validation_share + test_share else "train"


def _prepare(task: PrepareTask, folder: Path) -> dict[str, Any]:
    config = task.config
    rejected: Counter[str] = Counter()
    cleaner = Cleaner(config)
    rows = _RowWriter(folder)
    characters, sentences, draws, keys = array("q"), array("l"), array("Q"), bytearray()
    rejects = (folder / "rejects.jsonl").open("w", encoding="utf-8") if task.keep_rejects else None
    try:
        for raw in read_chunk(task.chunk, rejected, workers=task.workers):
            found = cleaner.clean(raw)
            if isinstance(found, Rejected):
                rejected[found.reason] += 1
                if rejects is not None:
                    write_reject(rejects, raw, found.reason)
                continue
            draw = draw_of(raw.id)
            split = split_of(draw, validation_share=config.validation_share, test_share=config.test_share)
            rows.add(Document(raw.id, found.text, raw.source, found.sentences, split))
            characters.append(len(found.text))
            sentences.append(len(found.sentences))
            draws.append(draw)
            keys += exact_key(found.text)
    finally:
        if rejects is not None:
            rejects.close()
    rows.finish()
    facts = np.empty(len(draws), dtype=FACTS)
    facts["characters"], facts["sentences"], facts["draw"] = characters, sentences, draws
    np.save(folder / "facts.npy", facts)
    np.save(folder / "exact.npy", np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2))
    return {
        "documents": len(facts),
        "parts": rows.part_rows,
        "dropped": dict(rejected),
        "cleaned": dict(cleaner.counts),
    }


def write_reject(file: TextIO, document: RawDocument | Document, reason: str) -> None:
    """A line of rejects.jsonl."""
    row = {"id": document.id, "source": document.source, "reason": reason, "text": document.text}
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


class _RowWriter:
    """Writes documents to Parquet, a row group in memory at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[Document] = []
        self.characters = self.part_characters = 0
        self.writer: pq.ParquetWriter | None = None
        self.part_rows: list[int] = []
        """Rows of each part."""

    def add(self, document: Document) -> None:
        self.rows.append(document)
        self.characters += len(document.text)
        if len(self.rows) >= _GROUP_ROWS or self.characters >= _GROUP_CHARACTERS:
            self._write_group()

    def _write_group(self) -> None:
        if self.writer is None:
            self.writer = parquet_writer(self.folder / f"rows-{len(self.part_rows):03d}.parquet")
            self.part_rows.append(0)
        columns = {name: [getattr(row, name) for row in self.rows] for name in SCHEMA.names}
        self.writer.write_table(pa.table(columns, schema=SCHEMA))
        self.part_rows[-1] += len(self.rows)
        self.part_characters += self.characters
        self.rows, self.characters = [], 0
        if self.part_characters >= PART_CHARACTERS:
            self._end_part()

    def _end_part(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer, self.part_characters = None, 0

    def finish(self) -> None:
        if self.rows:
            self._write_group()
        self._end_part()


def parquet_writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, SCHEMA, compression="zstd")
