"""Sources of documents, cut into chunks that any process can read on its own.

What a chunk holds depends on the files alone: a run of small files, one file that can only be read from its start
(compressed, JSON, CSV, UTF-16), a range of bytes of a large text file, a range of row groups of a Parquet file, or
the whole of a source that has no files (a query, the documentation of packages).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bertsmith.config import Source
from bertsmith.corpus import hub, json_text, plain_text, sql, tables
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart, SourceFile, find_files
from bertsmith.corpus.python_docs import package_versions, read_python_docs
from bertsmith.errors import DataError

CHUNK_BYTES = 8_000_000
"""Text of about so many bytes is one task; a process holds a few times that in memory."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one task reads of a source; without parts: all of a source that has no files."""

    source: Source
    parts: tuple[FilePart, ...] = ()

    @property
    def size(self) -> int:
        """Stored bytes, about; 0 where nobody knows."""
        return sum(part.size for part in self.parts)


_READERS: dict[str, Callable[[Source, FilePart, Counter[str]], Iterator[RawDocument]]] = {
    "text": plain_text.read_text,
    "jsonl": json_text.read_json_lines,
    "json": json_text.read_json,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
}
KIND_BY_SUFFIX = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}


def source_files(source: Source) -> list[SourceFile]:
    """The files of a source, in order; none for a query or for packages."""
    if source.kind in ("python-docs", "sql"):
        return []
    if source.kind == "hub":
        return hub.dataset_files(source.dataset, source.paths)
    if not source.paths:
        raise DataError(f'a source of kind {source.kind!r} names no files; give paths = ["FILE", ...]')
    files = find_files(source.paths)
    if not any(file.size for file in files):
        raise DataError("the file is empty", path=files[0].path)
    return files


def source_inputs(source: Source) -> dict[str, str]:
    """What a source reads: file -> digest, package -> version, or the query (whose rows nobody can vouch for)."""
    if source.kind == "python-docs":
        return package_versions(source.packages)
    if source.kind == "sql":
        return {sql.shown_url(source.url): source.query}
    return {file.name: file.digest() for file in source_files(source)}


def plan_chunks(source: Source, *, chunk_bytes: int | None = None) -> list[Chunk]:
    """The chunks of a source, in order; `CHUNK_BYTES` each if nothing else is said."""
    chunk_bytes = chunk_bytes or CHUNK_BYTES
    files = source_files(source)
    if not files:
        return [Chunk(source)]
    chunks: list[Chunk] = []
    small: list[FilePart] = []
    for file in files:
        parts = _parts(source, file, chunk_bytes)
        is_small = len(parts) == 1 and file.size < chunk_bytes
        if small and not (is_small and sum(part.size for part in small) + file.size <= chunk_bytes):
            chunks.append(Chunk(source, tuple(small)))
            small = []
        if is_small:
            small += parts
        else:
            chunks += [Chunk(source, (part,)) for part in parts]
    return [*chunks, Chunk(source, tuple(small))] if small else chunks


def read_chunk(chunk: Chunk, counts: Counter[str], *, workers: int = 1) -> Iterator[RawDocument]:
    """Documents of a chunk, in order; what cannot be used is counted under its reason.

    Raises `DataError` naming the place. Ids are the file's name and the line (or row) from 1; in a later range of a
    large file, the line from that range's first byte: `big.txt@16000000#7`.
    """
    source = chunk.source
    if source.kind == "python-docs":
        yield from read_python_docs(source.packages, counts, workers=workers)
    elif source.kind == "sql":
        yield from sql.read_query(source, counts)
    for part in chunk.parts:
        if not part.file.size:
            counts["empty file"] += 1
            continue
        yield from _READERS[_kind_of(source, part.file)](source, part, counts)


def _kind_of(source: Source, file: SourceFile) -> str:
    """How a file is read: as its source says; of a hub's dataset, by its name."""
    return source.kind if source.kind != "hub" else KIND_BY_SUFFIX[file.suffix]


def _parts(source: Source, file: SourceFile, chunk_bytes: int) -> list[FilePart]:
    """Ranges of a file, or all of it where it can only be read from its start."""
    kind = _kind_of(source, file)
    if kind == "parquet":
        borders = tables.row_group_borders(file, chunk_bytes)
    elif (
        kind in ("json", "csv")
        or (kind == "text" and source.layout == "file")
        or file.compression is not None
        or plain_text.line_reader(source).is_wide
    ):
        borders = [0]
    else:
        borders = list(range(0, max(1, file.size - chunk_bytes // 2), chunk_bytes))
    ends = [*borders[1:], None]
    return [FilePart(file, start, end, file.size // len(borders)) for start, end in zip(borders, ends, strict=True)]
