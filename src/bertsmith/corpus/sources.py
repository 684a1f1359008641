"""Sources of documents: text files, JSON Lines, and the documentation of installed Python packages."""

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from bertsmith.artifact import file_sha256
from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.python_docs import package_versions, read_python_docs
from bertsmith.errors import DataError
from bertsmith.runtime import data_roots

_GLOB = re.compile(r"[*?\[]")
_CHINESE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def source_inputs(source: Source) -> dict[str, str]:
    """What a source reads: file -> sha256, or package -> version."""
    if source.kind == "python-docs":
        return package_versions(source.packages)
    return {name: file_sha256(path) for path, name in _find(source.paths)}


def read_source(source: Source, dropped: Counter[str], *, workers: int = 1) -> Iterator[RawDocument]:
    """Documents of a source in a fixed order; what it cannot use is counted in `dropped` under its reason."""
    if source.kind == "python-docs":
        yield from read_python_docs(source.packages, dropped, workers=workers)
        return
    if not source.paths:
        raise DataError(f'a source of kind {source.kind!r} names no files; give paths = ["FILE", ...]')
    for path, name in _find(source.paths):
        numbered = _numbered_lines(path)
        if source.kind == "jsonl":
            yield from _read_jsonl(numbered, path=path, name=name, source=source)
        else:
            yield from _read_text(numbered, name=name, source=source)


def find_files(patterns: Sequence[str], roots: Sequence[Path] | None = None) -> list[Path]:
    """Files that match `patterns` (files, folders, globs), looked up in the current folder, then in each root.

    Raises `DataError` for a pattern that matches nothing.
    """
    return [path for path, _ in _find(patterns, roots)]


def _find(patterns: Sequence[str], roots: Sequence[Path] | None = None) -> list[tuple[Path, str]]:
    """Files, without repeats, and names for them that do not tell where on this machine they are.

    A name is the path below the root in which the file was found; files named by absolute paths are named from the
    folder that they have in common.
    """
    roots = (Path(), *(data_roots() if roots is None else roots))
    found: dict[Path, str] = {}
    absolute: list[Path] = []
    for pattern in patterns:
        for root in roots:
            matches = _matches(root, pattern)
            if matches:
                break
        else:
            places = ", ".join(str(root.absolute()) for root in roots)
            raise DataError(f"{pattern!r} matches no file; looked in {places}")
        for path in matches:
            if Path(pattern).is_absolute():
                absolute.append(path)
            else:
                found.setdefault(path, path.relative_to(root).as_posix())
    common = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    for path in absolute:
        found.setdefault(path, path.relative_to(common).as_posix())
    return list(found.items())


def _matches(root: Path, pattern: str) -> list[Path]:
    path = root / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not _GLOB.search(pattern):
        return []
    if Path(pattern).is_absolute():
        anchor = Path(pattern).anchor
        return sorted(file for file in Path(anchor).glob(pattern[len(anchor) :]) if file.is_file())
    return sorted(file for file in root.glob(pattern) if file.is_file())


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file (or .gz) without line ends; a byte order mark at its start is skipped."""
    number = 0
    try:
        with cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"not UTF-8 (byte 0x{raw[error.start]:02x}); convert it, for example: iconv -f LATIN1 -t UTF-8",
                        path=path,
                        line=number,
                    ) from error
                yield number, line.rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise DataError(f"cannot be read: {error}", path=path, line=number + 1) from error
    if number == 0:
        raise DataError("the file is empty", path=path)


def _read_jsonl(numbered: Iterable[tuple[int, str]], *, path: Path, name: str, source: Source) -> Iterator[RawDocument]:
    for number, line in numbered:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"not a JSON object a line ({error})", path=path, line=number) from error
        for part in source.text_field.split("."):
            if not isinstance(value, dict) or part not in value:
                keys = ", ".join(value) if isinstance(value, dict) else "none"
                raise DataError(
                    f"no field {source.text_field!r} (fields here: {keys}); set text_field", path=path, line=number
                )
            value = value[part]
        if not isinstance(value, str):
            raise DataError(
                f"field {source.text_field!r} holds {type(value).__name__}, not text", path=path, line=number
            )
        text = "\n\n".join(unwrap(value.splitlines())) if source.unwrap else value
        yield RawDocument(f"{name}#{number}", text, name)


def _read_text(numbered: Iterable[tuple[int, str]], *, name: str, source: Source) -> Iterator[RawDocument]:
    if source.layout == "file":
        lines = [line for _, line in numbered]
        text = "\n\n".join(unwrap(lines)) if source.unwrap else "\n".join(lines)
        yield RawDocument(name, text, name)
        return
    for number, lines in _blocks(numbered):
        if source.layout == "sentences":
            yield RawDocument(f"{name}#{number}", "\n".join(lines), name, tuple(lines))
        else:
            text = "\n\n".join(unwrap(lines)) if source.unwrap else "\n".join(lines)
            yield RawDocument(f"{name}#{number}", text, name)


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


def unwrap(raw: Sequence[str]) -> list[str]:
    """Paragraphs of hard-wrapped lines: lines between blank lines are joined, by a space except after Chinese."""
    paragraphs: list[str] = []
    for _, block in _blocks(enumerate(raw)):
        lines = [line.strip() for line in block]
        ends = ["" if _CHINESE.match(line[-1]) else " " for line in lines[:-1]]
        paragraphs.append("".join(line + end for line, end in zip(lines, [*ends, ""], strict=True)))
    return paragraphs
