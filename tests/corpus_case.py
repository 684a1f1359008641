"""Sources to read in tests."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.sources import CHUNK_BYTES, plan_chunks, read_chunk


def source_of(path: Path | str, **settings: object) -> Source:
    """A source of one path; plain text if nothing else is said."""
    return Source.model_validate({"kind": "text", "paths": (str(path),), **settings})


def documents_of(
    source: Source, counts: Counter[str] | None = None, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[RawDocument]:
    counts = Counter() if counts is None else counts
    for chunk in plan_chunks(source, chunk_bytes=chunk_bytes):
        yield from read_chunk(chunk, counts)


def read(path: Path | str, counts: Counter[str] | None = None, **settings: object) -> list[RawDocument]:
    return list(documents_of(source_of(path, **settings), counts))


def texts(path: Path | str, counts: Counter[str] | None = None, **settings: object) -> list[str]:
    return [document.text for document in read(path, counts, **settings)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path
