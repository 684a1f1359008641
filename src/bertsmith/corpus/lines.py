"""Lines of text files, or of a part of one: decoded, and told where they stand when they cannot be.

Large files are cut into ranges of bytes that are read on their own, by other processes. A line belongs to the range in
which it begins. Only `\\n` ends a line (with `\\r` before it left off), as in every tool that counts lines.
"""

import codecs
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from typing import BinaryIO

from bertsmith.corpus.files import FilePart, SourceFile
from bertsmith.errors import DataError, UsageError

_BLOCK_BYTES = 1 << 20
_TORN = (OSError, EOFError, zlib.error, LZMAError)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_WIDE = ("utf-16", "utf-32", "utf_16", "utf_32", "utf-7")
"""Encodings in which the byte 0x0A may be something else than the end of a line."""


@dataclass(frozen=True, slots=True)
class LineReader:
    """How lines are decoded, and what is done with those that cannot be."""

    encoding: str = "utf-8"
    on_error: str = "strict"
    """strict: refuse; skip: leave the line out; replace: U+FFFD for what cannot be decoded. Both are counted."""
    max_bytes: int = 16_000_000
    """Longer lines are left out and counted."""

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise UsageError(
                f"encoding {self.encoding!r} is unknown; use 'utf-8', 'gb18030', 'utf-16', 'latin-1', ..."
            ) from error

    @property
    def is_wide(self) -> bool:
        """True where a file cannot be cut between two lines without decoding it."""
        return self.encoding.lower().startswith(_WIDE)

    def lines(self, part: FilePart, counts: Counter[str]) -> Iterator[tuple[int, str]]:
        """(number, line) of the lines that begin in a range of a file's content, and of all after them.

        The caller stops: a document that begins in the range may end beyond it. Numbers count from 1 at the range's
        first line; after the range they are negative. Raises `DataError` naming file, line and byte.
        """
        number = 0
        try:
            with part.file.open_content() as content:
                lines = self._wide_lines if self.is_wide else self._lines
                for number, line in lines(content, part, counts):
                    yield number, line
        except _TORN as error:
            line_number = line_in_file(part, abs(number) + 1)
            raise DataError(f"cannot be read: {error}", path=part.file.path, line=line_number) from error

    def _lines(self, content: BinaryIO, part: FilePart, counts: Counter[str]) -> Iterator[tuple[int, str]]:
        file, end = part.file, part.end
        offset = number = 0
        if part.start:
            content.seek(part.start - 1)
            offset = part.start - 1 + len(content.readline())  # the line that begins before the range is another's
        while raw := content.readline(self.max_bytes + 1):
            number += 1
            if len(raw) > self.max_bytes and not raw.endswith(b"\n"):
                counts["line too long"] += 1
                offset += len(raw) + _skip_line(content)
                continue
            line = self._decode(raw, file, offset, counts)
            if line is not None:
                yield (number if end is None or offset < end else -number), line
            offset += len(raw)

    def _decode(self, raw: bytes, file: SourceFile, offset: int, counts: Counter[str]) -> str | None:
        try:
            line = raw.decode(self.encoding)
        except UnicodeDecodeError as error:
            return self._undecodable(raw, file, offset, error, counts)
        if not offset:
            line = line.removeprefix("\ufeff")
        return line.rstrip("\r\n")

    def _undecodable(
        self, raw: bytes, file: SourceFile, offset: int, error: UnicodeDecodeError, counts: Counter[str]
    ) -> str | None:
        if self.on_error == "skip":
            counts["line that is not in its encoding"] += 1
            return None
        if self.on_error == "replace":
            counts["line with replaced bytes"] += 1
            return raw.decode(self.encoding, errors="replace").rstrip("\r\n")
        marked = next((name for mark, name in _MARKS.items() if not offset and raw.startswith(mark)), None)
        hint = (
            f"it begins with the mark of {marked}: set encoding = {marked!r}"
            if marked is not None
            else "set encoding, or on_error = 'skip' or 'replace', or convert it: iconv -f LATIN1 -t UTF-8"
        )
        wrong = f"byte 0x{raw[error.start]:02x}) at byte offset {offset + error.start:,}"
        raise DataError(
            f"not {self.encoding.upper()} ({wrong}; {hint}",
            path=file.path,
            line=_newlines_before(file, offset) + 1,
        ) from error

    def _wide_lines(self, content: BinaryIO, part: FilePart, counts: Counter[str]) -> Iterator[tuple[int, str]]:
        """Lines of a file that must be decoded from its start; errors are found where the decoder is."""
        errors = {"strict": "strict", "skip": "ignore", "replace": "replace"}[self.on_error]
        decoder = codecs.getincrementaldecoder(self.encoding)(errors)
        number, offset, rest = 0, 0, ""
        skipping = False
        while True:
            block = content.read(_BLOCK_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"not {self.encoding.upper()} (at byte offset {offset - pending + error.start:,}); "
                    "set encoding, or on_error = 'skip' or 'replace'",
                    path=part.file.path,
                    line=number + 1,
                ) from error
            if self.on_error == "replace":
                counts["character replaced"] += text.count("\ufffd")
            offset += len(block)
            *lines, rest = (rest + text).split("\n")
            for line in lines if block else [*lines, *filter(None, [rest])]:
                number += 1
                if not skipping:
                    yield number, (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r")
                skipping = False
            if not block:
                return
            if skipping or len(rest) > self.max_bytes:
                counts["line too long"] += not skipping
                rest, skipping = "", True


def _skip_line(content: BinaryIO) -> int:
    """Read to the end of the line without keeping it; its length in bytes."""
    length = 0
    while part := content.readline(_BLOCK_BYTES):
        length += len(part)
        if part.endswith(b"\n"):
            break
    return length


def line_in_file(part: FilePart, number: int) -> int:
    """Number in the file of line `number` of a part of it; reads what is before."""
    return number if not part.start else _newlines_before(part.file, part.start - 1) + 1 + number


def _newlines_before(file: SourceFile, offset: int) -> int:
    found = 0
    with file.open_content() as content:
        while offset > 0 and (block := content.read(min(offset, _BLOCK_BYTES))):
            found += block.count(b"\n")
            offset -= len(block)
    return found
