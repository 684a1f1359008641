"""The first pass over a chunk: read, clean, split into sentences, and key each document for what comes after.

A piece (see `artifact.make_piece`) holds

    rows-000.parquet ...   the corpus's columns, for every document of the chunk that was not rejected
    facts.npy              a record a document: what is counted, and the hash that draws its split
    exact.npy              (documents, 2) uint64: key of the text, for exact duplicates
    near.npy               (documents, permutations) uint32: MinHash signature, where near duplicates are wanted
    heavy.json             the lines that hold most of the chunk's characters
    rejects.jsonl          rejected documents with their reason, where they are to be kept

Where boilerplate is looked for, there is a pass before it, whose pieces hold lines.npy, the lines of a chunk.
"""

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from bertsmith.artifact import Piece, canonical, make_piece, write_json
from bertsmith.config import CorpusConfig, EvaluationFiles
from bertsmith.corpus.arrays import save_array
from bertsmith.corpus.boilerplate import Hashes, count_lines
from bertsmith.corpus.clean import Cleaner, Rejected
from bertsmith.corpus.dedup import exact_key, split_key
from bertsmith.corpus.document import Document, RawDocument, Split
from bertsmith.corpus.heavy import HeavyLines
from bertsmith.corpus.minhash import MinHasher
from bertsmith.corpus.overlap import EVALUATION, Overlap
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
_LINES_COUNTED_CHARACTERS, _LINES_COUNTED_OF = 500_000, 16
"""A chunk's lines are looked at in its first documents, then in one of so many: what is a twentieth of it shows."""
_GROUP_ROWS, _GROUP_CHARACTERS = 8192, 4_000_000


@dataclass(frozen=True)
class PrepareTask:
    """A chunk and what is done with it."""

    chunk: Chunk
    config: CorpusConfig
    work: Path
    inputs: Mapping[str, str]
    """Digests of what the chunk's source and the evaluation files hold."""
    boilerplate: Path | None = None
    """Piece with the hashes of the lines to leave out."""
    keep_rejects: bool = False
    workers: int = 1
    """Processes for the one source that is read by several: the documentation of packages."""

    @property
    def key(self) -> str:
        """A digest of all that the chunk's piece depends on."""
        return self._digest(None if self.boilerplate is None else self.boilerplate.name)

    @property
    def lines_key(self) -> str:
        """The same for the pass before it."""
        return f"lines-{self._digest(None)}"

    @property
    def evaluation_inputs(self) -> dict[str, str]:
        """Digests of the evaluation files."""
        return {name: digest for name, digest in self.inputs.items() if name.startswith(EVALUATION)}

    def _digest(self, boilerplate: str | None) -> str:
        files = {part.file.name: self.inputs[part.file.name] for part in self.chunk.parts} or self.inputs
        described = {
            "source": self.chunk.source.model_dump(mode="json", exclude={"paths", "weight"}),
            "inputs": {**self.evaluation_inputs, **files},
            "ranges": [[part.start, part.end] for part in self.chunk.parts],
            "config": self.config.model_dump(mode="json", exclude={"sources", "max_documents"}),
            "boilerplate": boilerplate,
            "keep_rejects": self.keep_rejects,
        }
        return xxhash.xxh3_128_hexdigest(canonical(described).encode())


def prepare_chunk(task: PrepareTask) -> Piece:
    """Make the chunk's piece, or find it made. Raises `DataError` naming the place."""
    return make_piece(task.work, task.key, lambda folder: _prepare(task, folder))


def count_chunk_lines(task: PrepareTask) -> Piece:
    """The pass before it: in how many documents of the chunk each of its lines stands."""

    def count(folder: Path) -> dict[str, int]:
        cleaner = Cleaner(task.config)
        lines = [cleaner.lines(raw) for raw in read_chunk(task.chunk, Counter(), workers=task.workers)]
        save_array(folder / "lines.npy", count_lines(lines))
        return {"documents": len(lines)}

    return make_piece(task.work, task.lines_key, count)


def split_of(draw: int, *, validation_share: float, test_share: float) -> Split:
    """The split of a document, from its draw alone."""
    place = draw / 2**64
    if place < validation_share:
        return "validation"
    return "test" if place < validation_share + test_share else "train"


def _prepare(task: PrepareTask, folder: Path) -> dict[str, Any]:
    config = task.config
    rejected: Counter[str] = Counter()
    cleaner = Cleaner(config, boilerplate=_boilerplate(task), overlap=_overlap_of(task))
    rows, keys, heavy = _RowWriter(folder), _KeyWriter(folder, config), HeavyLines()
    with (folder / "rejects.jsonl").open("w", encoding="utf-8") as rejects:
        for raw in read_chunk(task.chunk, rejected, workers=task.workers):
            found = cleaner.clean(raw)
            if isinstance(found, Rejected):
                rejected[found.reason] += 1
                if task.keep_rejects:
                    write_reject(rejects, raw, found.reason)
                continue
            draw = keys.add(raw, found.text, len(found.sentences))
            split = split_of(draw, validation_share=config.validation_share, test_share=config.test_share)
            rows.add(Document(raw.id, found.text, raw.source, found.sentences, split))
            if heavy.total < _LINES_COUNTED_CHARACTERS or len(keys.draws) % _LINES_COUNTED_OF == 0:
                heavy.add(found.text)
    rows.finish()
    found_lines = {**asdict(heavy), "weights": list(heavy.weights.items()), "lines": list(heavy.lines.items())}
    write_json(folder / "heavy.json", found_lines)
    return {
        "documents": keys.finish(),
        "parts": rows.part_rows,
        "dropped": dict(rejected),
        "cleaned": dict(cleaner.counts),
    }


def heavy_lines(piece: Path) -> HeavyLines:
    """The heavy lines of a piece: in a file of its own, since the counts of all pieces are held in memory."""
    kept = json.loads((piece / "heavy.json").read_bytes())
    kept["weights"] = dict(kept["weights"])
    kept["lines"] = {hashed: tuple(line) for hashed, line in kept["lines"]}
    return HeavyLines(**kept)


def save_boilerplate(folder: Path, lines: Hashes) -> dict[str, int]:
    """Fill a piece with what all chunks leave out."""
    save_array(folder / "boilerplate.npy", lines)
    return {"lines": len(lines)}


def _boilerplate(task: PrepareTask) -> Hashes | None:
    return None if task.boilerplate is None else np.load(task.boilerplate / "boilerplate.npy")


def _overlap_of(task: PrepareTask) -> Overlap | None:
    files = task.config.evaluation
    return _read_overlap(files, canonical(task.evaluation_inputs)) if files else None


@lru_cache(maxsize=1)
def _read_overlap(files: tuple[EvaluationFiles, ...], _digests: str) -> Overlap:
    """Once in each process, as long as what is read stays the same."""
    return Overlap.from_files(files)


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
    return pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=["source", "split"])


class _KeyWriter:
    """Writes what is known of each document beside its row: a few bytes in memory, its signature on the disk."""

    def __init__(self, folder: Path, config: CorpusConfig):
        self.folder = folder
        self.characters, self.sentences, self.draws, self.exact = array("q"), array("l"), array("Q"), bytearray()
        dedup = config.dedup
        self.hasher = None if dedup.near is None else MinHasher(dedup.permutations, dedup.shingle)
        self.signatures = (folder / "near.raw").open("wb") if self.hasher is not None else None

    def add(self, raw: RawDocument, text: str, num_sentences: int) -> int:
        """The draw of the document's split."""
        exact = exact_key(text)
        draw = split_key(exact, raw.unit)
        self.characters.append(len(text))
        self.sentences.append(num_sentences)
        self.draws.append(draw)
        self.exact += exact
        if self.hasher is not None and self.signatures is not None:
            self.signatures.write(self.hasher.signature(text).tobytes())
        return draw

    def finish(self) -> int:
        """The number of documents."""
        facts = np.empty(len(self.draws), dtype=FACTS)
        facts["characters"], facts["sentences"], facts["draw"] = self.characters, self.sentences, self.draws
        save_array(self.folder / "facts.npy", facts)
        save_array(self.folder / "exact.npy", np.frombuffer(self.exact, dtype=np.uint64).reshape(-1, 2))
        if self.hasher is not None and self.signatures is not None:
            self.signatures.close()
            raw = self.folder / "near.raw"
            shape = (len(facts), self.hasher.num_permutations)
            near = np.memmap(raw, dtype=np.uint32, mode="r", shape=shape) if len(facts) else np.empty(shape, np.uint32)
            save_array(self.folder / "near.npy", near)
            raw.unlink()
        return len(facts)
