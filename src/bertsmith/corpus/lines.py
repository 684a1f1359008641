"""Lines of text files, or of a part of one: decoded, and told where they stand when they cannot be.

Large files are cut into ranges of bytes that are read on their own, by other processes. A line belongs to the range in
which it begins. Only `\\n` ends a line (with `\\r` before it left off), as in every tool that counts lines.

Whole blocks are decoded at once; only a block in which that fails is looked at line by line.
"""

import codecs
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from bertsmith.corpus.files import UNREADABLE, FilePart, SourceFile
from bertsmith.errors import DataError, UsageError

_BLOCK_BYTES = 1 << 20
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_STATEFUL = ("utf-7", "hz", "iso2022")
"""Encodings in which a line cannot be decoded without those before it."""
_BAD = "\udc80"
"""Half of a surrogate pair, which no decoder yields: stands for bytes that are no character."""
_FOR_NUL = "if it is UTF-16 set encoding = 'utf-16-le', if it is text set on_error = 'skip' or 'replace'"


def _mark_bad_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _BAD, error.end


codecs.register_error("bertsmith.mark", _mark_bad_bytes)


@dataclass(frozen=True, slots=True)
class LineReader:
    """How lines are decoded, and what is done with those that cannot be.

    A NUL is treated as a byte that cannot be decoded: text has none, but UTF-16 taken for something else is full of
    them.
    """

    encoding: str = "utf-8"
    on_error: str = "strict"
    """strict: refuse; skip: leave the line out; replace: U+FFFD for what cannot be decoded. Both are counted."""
    max_bytes: int = 16_000_000
    """Longer lines are left out and counted."""

    def __post_init__(self) -> None:
        try:
            "\n".encode(self.encoding)
        except LookupError as error:
            raise UsageError(
                f"encoding {self.encoding!r} is unknown; use 'utf-8', 'gb18030', 'utf-16', 'latin-1', ..."
            ) from error

    @property
    def is_wide(self) -> bool:
        """True where a file must be decoded from its start: the byte 0x0A may be no line's end, or state is kept."""
        return "a\nb".encode(self._codec) != b"a\nb" or self._codec.startswith(_STATEFUL)

    @property
    def _codec(self) -> str:
        name = codecs.lookup(self.encoding).name
        return "utf-8" if name == "utf-8-sig" else name  # whose mark is left off in any case

    def lines(self, part: FilePart, counts: Counter[str]) -> Iterator[tuple[int, str]]:
        """(number, line) of the lines that begin in a range of a file's content, and of all after them.

        The caller stops: a document that begins in the range may end beyond it. Numbers count from 1 at the range's
        first line; after the range they are negative. Raises `DataError` naming file, line and byte.
        """
        number = 0
        try:
            with part.file.open_content() as content:
                blocks = self._wide_blocks if self.is_wide else self._blocks
                for sign, lines in blocks(content, part, counts):
                    for number, line in enumerate(lines, number + 1):  # noqa: B020  (goes on where it was)
                        if line is not None:
                            yield sign * number, line
        except UNREADABLE as error:
            raise DataError(
                f"cannot be read: {error}", path=part.file.path, line=line_in_file(part, number + 1)
            ) from error
        if not number and not part.start:
            counts["empty file"] += 1

    def _blocks(
        self, content: BinaryIO, part: FilePart, counts: Counter[str]
    ) -> Iterator[tuple[int, Sequence[str | None]]]:
        """Blocks of lines, None for one that is left out; sign -1 for those that begin after the range."""
        start = part.start
        if start:
            content.seek(start - 1)
            start += _skip_line(content) - 1  # the line that begins before the range is another's
        for offset, data in self._runs(content, start, part.end):
            sign = 1 if part.end is None or offset < part.end else -1
            if data is None:
                counts["line too long"] += 1
                yield sign, [None]
            else:
                yield sign, self._decoded(data, offset, part.file, counts)

    def _runs(self, content: BinaryIO, start: int, end: int | None) -> Iterator[tuple[int, bytes | None]]:
        """(offset, bytes) of runs of whole lines, all of which begin before `end`, or none; None: a line too long."""
        block_bytes = min(_BLOCK_BYTES, self.max_bytes)  # so that no line inside a block is too long
        pieces: list[bytes] = []
        length = 0  # of the line whose end is still to be read
        position = start
        last = start if end is None else end  # blocks end there, so that all lines of a run are of the range, or none
        while block := content.read(min(block_bytes, last - position) if position < last else block_bytes):
            begin = 0
            if length:
                begin = block.find(b"\n") + 1
                pieces.append(block[: begin or None])
                length += len(pieces[-1])
                if length - bool(begin) > self.max_bytes:
                    pieces = []
                if begin:
                    yield position + begin - length, b"".join(pieces) or None
                    pieces, length = [], 0
            cut = max(begin, block.rfind(b"\n") + 1)
            if cut > begin:
                yield position + begin, block[begin:cut]
            if cut < len(block) and not length:
                pieces, length = [block[cut:]], len(block) - cut
            position += len(block)
        if length:
            yield position - length, b"".join(pieces) or None

    def _decoded(self, data: bytes, offset: int, file: SourceFile, counts: Counter[str]) -> Sequence[str | None]:
        """The lines of a run of whole lines that stands at `offset`."""
        try:
            text = data.decode(self._codec)
        except UnicodeDecodeError:
            return self._one_by_one(data, offset, file, counts)
        if "\0" in text:
            return self._one_by_one(data, offset, file, counts)
        if not offset:
            text = text.removeprefix("\ufeff")
        lines = text.split("\n")
        if not lines[-1] and data.endswith(b"\n"):
            lines.pop()
        return [line.rstrip("\r") for line in lines] if "\r" in text else lines

    def _one_by_one(self, data: bytes, offset: int, file: SourceFile, counts: Counter[str]) -> list[str | None]:
        lines: list[str | None] = []
        raw_lines = data.split(b"\n")
        if not raw_lines[-1]:
            raw_lines.pop()
        for raw in raw_lines:
            line = raw.decode(self._codec, "bertsmith.mark").replace("\0", _BAD)
            if _BAD in line and self.on_error == "strict":
                at = _first_bad_byte(raw, self._codec)
                self._refuse(file, raw[at], offset + at, _newlines_before(file, offset) + 1, _mark_of(data, offset))
            lines.append(self._mended(line if offset else line.removeprefix("\ufeff"), counts))
            offset += len(raw) + 1
        return lines

    def _mended(self, line: str, counts: Counter[str]) -> str | None:
        """The line without its end, with what `on_error` says in place of bytes that are no character."""
        if _BAD in line:
            if self.on_error == "skip":
                counts["line that is not in its encoding"] += 1
                return None
            counts["line with replaced bytes"] += 1
            line = line.replace(_BAD, "\ufffd")
        return line.rstrip("\r")

    def _refuse(self, file: SourceFile, byte: int, offset: int, line: int, mark: str | None) -> NoReturn:
        hint = "set encoding, or on_error = 'skip' or 'replace', or convert it: iconv -f LATIN1 -t UTF-8"
        if mark is not None:
            hint = f"it begins with the mark of {mark}: set encoding = {mark!r}"
        elif not byte:
            hint = _FOR_NUL
        raise DataError(
            f"not {self.encoding.upper()} (byte 0x{byte:02x}) at byte offset {offset:,}; {hint}",
            path=file.path,
            line=line,
        )

    def _wide_blocks(
        self, content: BinaryIO, part: FilePart, counts: Counter[str]
    ) -> Iterator[tuple[int, Sequence[str | None]]]:
        """Blocks of lines of a file that is decoded from its start."""
        rest, is_first = "", True
        for text in self._decoded_blocks(content, part.file):
            *lines, rest = (rest + text).split("\n")
            if not text and rest:
                lines.append(rest)
            if is_first and lines:
                lines[0], is_first = lines[0].removeprefix("\ufeff"), False
            found: list[str | None] = []
            for line in lines:
                if len(line) > self.max_bytes:
                    counts["line too long"] += 1
                    found.append(None)
                else:
                    found.append(self._mended(line, counts))
            yield 1, found
            if len(rest) > self.max_bytes:
                rest = rest[: self.max_bytes + 1]  # enough to be seen as too long when its end is read

    def blocks(self, part: FilePart) -> Iterator[str]:
        """The decoded content of a file, in blocks; half a surrogate pair stands for what is no character."""
        try:
            with part.file.open_content() as content:
                yield from self._decoded_blocks(content, part.file)
        except UNREADABLE as error:
            raise DataError(f"cannot be read: {error}", path=part.file.path) from error

    def _decoded_blocks(self, content: BinaryIO, file: SourceFile) -> Iterator[str]:
        """Blocks of decoded text, the last of them empty, with `_BAD` for what is no character."""
        decoder = codecs.getincrementaldecoder(self._codec)("strict" if self.on_error == "strict" else "bertsmith.mark")
        offset, line = 0, 1
        block = b"unread"
        while block:
            block = content.read(_BLOCK_BYTES)
            state = decoder.getstate()
            first = offset - len(state[0])  # of the bytes that the decoder is about to look at
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                decoder.setstate(state)
                line += decoder.decode(block[: max(0, first + error.start - offset)]).count("\n")
                self._refuse(file, error.object[error.start], first + error.start, line, None)
            if "\0" in text:
                if self.on_error == "strict":
                    line += text.count("\n", 0, text.index("\0"))
                    raise DataError(f"a NUL, which no text holds; {_FOR_NUL}", path=file.path, line=line)
                text = text.replace("\0", _BAD)
            line += text.count("\n")
            offset += len(block)
            if text or not block:
                yield text
        if text:
            yield ""


def _first_bad_byte(raw: bytes, encoding: str) -> int:
    """Place of the first byte of a line that is no character's, or a NUL."""
    try:
        raw.decode(encoding)
        end = len(raw)
    except UnicodeDecodeError as error:
        end = error.start
    nul = raw.find(b"\0", 0, end)
    return end if nul < 0 else nul


def _mark_of(data: bytes, offset: int) -> str | None:
    """The encoding whose byte-order mark a file begins with."""
    return None if offset else next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)


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
