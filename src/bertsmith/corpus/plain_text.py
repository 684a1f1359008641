"""Documents in plain text: a sentence a line, a paragraph, or a whole file each."""

from collections import Counter
from collections.abc import Iterable, Iterator

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart
from bertsmith.corpus.lines import LineReader
from bertsmith.corpus.texts import id_of, unwrap, utf8_bytes


def line_reader(source: Source) -> LineReader:
    return LineReader(source.encoding, source.on_error, source.max_document_bytes)


def read_text(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """Documents that begin in a range of a file's bytes; one that is too long is counted, and not held in memory."""
    name = part.file.name
    is_whole = source.layout == "file"
    numbered = line_reader(source).lines(part, counts)
    blocks = _blocks(
        numbered if is_whole else _of_range(numbered, part.start), source.max_document_bytes, parted=not is_whole
    )
    for number, lines in blocks:
        id = name if is_whole else id_of(part, number)
        if lines is None:
            counts["document too long"] += 1
        elif source.layout == "sentences":
            yield RawDocument(id, "\n".join(lines), name, tuple(lines))
        else:
            yield RawDocument(id, "\n\n".join(unwrap(lines)) if source.unwrap else "\n".join(lines), name)


def _of_range(numbered: Iterable[tuple[int, str]], start: int) -> Iterator[tuple[int, str]]:
    """The lines of documents that begin in a range: from its first blank line to the first blank line after it."""
    begun = start == 0
    for number, line in numbered:
        is_blank = not line or line.isspace()
        if number < 0 and (is_blank or not begun):
            return
        begun = begun or is_blank
        if begun:
            yield abs(number), line


def _blocks(
    numbered: Iterable[tuple[int, str]], max_bytes: int, *, parted: bool
) -> Iterator[tuple[int, list[str] | None]]:
    """Runs of lines with the number of the first, or None where they are too long; parted by blank lines or by none."""
    block: list[str] = []
    first = num_bytes = 0
    for number, line in numbered:
        if not parted or (line and not line.isspace()):
            if not num_bytes:
                first = number
            num_bytes += utf8_bytes(line) + 1
            if num_bytes <= max_bytes + 1:
                block.append(line)
            else:
                block.clear()
        elif num_bytes:
            yield first, block or None
            block, num_bytes = [], 0
    if num_bytes:
        yield first, block or None
