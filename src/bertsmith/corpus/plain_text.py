"""Documents in plain text: a sentence a line, a paragraph, or a whole file each."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart, SourceFile
from bertsmith.corpus.lines import LineReader

_CHINESE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def line_reader(source: Source) -> LineReader:
    return LineReader(source.encoding, source.on_error, source.max_document_bytes)


def read_text(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """Documents that begin in a range of a file's bytes."""
    file = part.file
    numbered = line_reader(source).lines(part, counts)
    if source.layout == "file":
        yield from _whole_file(source, file, numbered, counts)
        return
    for number, lines in _blocks(_of_range(numbered, part.start)):
        if sum(map(len, lines)) > source.max_document_bytes:
            counts["document too long"] += 1
            continue
        name = id_of(part, number)
        if source.layout == "sentences":
            yield RawDocument(name, "\n".join(lines), file.name, tuple(lines))
        else:
            yield RawDocument(name, "\n\n".join(unwrap(lines)) if source.unwrap else "\n".join(lines), file.name)


def id_of(part: FilePart, number: int) -> str:
    """A document's id from its line or row: the same each time the same file is read, whatever else is read."""
    return f"{part.file.name}@{part.start}#{number}" if part.start else f"{part.file.name}#{number}"


def unwrap(raw: Sequence[str]) -> list[str]:
    """Paragraphs of hard-wrapped lines: lines between blank lines are joined, by a space except after Chinese."""
    paragraphs: list[str] = []
    for _, block in _blocks(enumerate(raw)):
        lines = [line.strip() for line in block]
        ends = ["" if _CHINESE.match(line[-1]) else " " for line in lines[:-1]]
        paragraphs.append("".join(line + end for line, end in zip(lines, [*ends, ""], strict=True)))
    return paragraphs


def _whole_file(
    source: Source, file: SourceFile, numbered: Iterable[tuple[int, str]], counts: Counter[str]
) -> Iterator[RawDocument]:
    lines: list[str] = []
    length = 0
    for _, line in numbered:
        lines.append(line)
        length += len(line) + 1
        if length > source.max_document_bytes:
            counts["document too long"] += 1
            return
    yield RawDocument(file.name, "\n\n".join(unwrap(lines)) if source.unwrap else "\n".join(lines), file.name)


def _of_range(numbered: Iterable[tuple[int, str]], start: int) -> Iterator[tuple[int, str]]:
    """The lines of documents that begin in a range: from its first blank line to the first blank line after it."""
    begun = start == 0
    for number, line in numbered:
        is_blank = not line.strip()
        if number < 0 and is_blank:
            return
        begun = begun or is_blank
        if begun:
            yield abs(number), line


def _blocks(numbered: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not blank, with the number of their first line."""
    block: list[str] = []
    first = 0
    for number, line in numbered:
        if line.strip():
            first = first if block else number
            block.append(line)
        elif block:
            yield first, block
            block = []
    if block:
        yield first, block
