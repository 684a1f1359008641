"""A text on its way from a source's record to a document: its id, and what is refused, left out or mended."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart

_CHINESE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def id_of(part: FilePart, number: int) -> str:
    """A document's id from its line or row: the same each time the same file is read, whatever else is read."""
    return f"{part.file.name}@{part.start}#{number}" if part.start else f"{part.file.name}#{number}"


def document_of(value: object, source: Source, counts: Counter[str], *, id: str, name: str) -> RawDocument | None:
    """The document that a record's value is; None where it is null or too long, which is counted.

    name: the file or database it comes from. Raises `ValueError` ("holds ...") for a value that is no text, and for
    half of a surrogate pair unless `source.on_error` says what else is to be done.
    """
    if value is None:
        counts["record without text"] += 1
        return None
    if not isinstance(value, str):
        raise ValueError(f"holds {type(value).__name__}, not text")
    if is_longer(value, source.max_document_bytes):
        counts["document too long"] += 1
        return None
    if not value.isascii() and _SURROGATE.search(value):
        if source.on_error == "strict":
            raise ValueError("holds half of a surrogate pair, no character; set on_error = 'skip' or 'replace'")
        if source.on_error == "skip":
            counts["record with what is no character"] += 1
            return None
        counts["record with replaced characters"] += 1
        value = _SURROGATE.sub("\ufffd", value)
    return RawDocument(id, "\n\n".join(unwrap(value.splitlines())) if source.unwrap else value, name)


def is_longer(text: str, max_bytes: int) -> bool:
    """True where `text` takes more than `max_bytes` in UTF-8."""
    return len(text) > max_bytes or (len(text) * 4 > max_bytes and utf8_bytes(text) > max_bytes)


def utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def unwrap(raw: Sequence[str]) -> list[str]:
    """Paragraphs of hard-wrapped lines: lines between blank lines are joined, by a space except after Chinese."""
    paragraphs: list[str] = []
    for block in _blocks(raw):
        lines = [line.strip() for line in block]
        ends = ["" if _CHINESE.match(line[-1]) else " " for line in lines[:-1]]
        paragraphs.append("".join(line + end for line, end in zip(lines, [*ends, ""], strict=True)))
    return paragraphs


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Runs of lines that are not blank."""
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block
