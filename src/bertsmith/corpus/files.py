"""Files that sources name: by path, folder, glob or URL; plain or compressed; here or in object storage.

A file has two names: `path`, to open it, and `name`, which does not tell where on this machine it lies and so may
stand in an artifact.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from bertsmith.artifact import file_sha256
from bertsmith.errors import DataError
from bertsmith.runtime import data_roots

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_GLOB = re.compile(r"[*?\[]")
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[^:]+)*://")
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be read."""

    path: str
    """Local path, or URL for `fsspec`."""
    name: str
    size: int
    """Bytes as stored."""

    @property
    def is_remote(self) -> bool:
        return _URL.match(self.path) is not None

    @property
    def compression(self) -> str | None:
        """The ending that says how it is compressed, or `None`."""
        return next((ending for ending in COMPRESSIONS if self.path.lower().endswith(ending)), None)

    @property
    def suffix(self) -> str:
        """The ending that says what is in it, in lower case: `.tsv` for `rows.tsv.gz`."""
        return Path(self.path.lower().removesuffix(self.compression or "")).suffix

    def open(self) -> BinaryIO:
        """The stored bytes, to be read from any place. Raises `OSError`."""
        if not self.is_remote:
            return Path(self.path).open("rb")
        return cast(BinaryIO, _filesystem(self.path)[0].open(self.path, "rb", block_size=4 * _READ_BYTES))

    @contextlib.contextmanager
    def open_content(self) -> Iterator[BinaryIO]:
        """The content, decompressed, from its start. Raises `OSError`; what is torn raises when it is read."""
        with contextlib.ExitStack() as stack:
            stored: Any = stack.enter_context(self.open())
            opened: Any = stored
            if self.compression == ".gz":
                opened = gzip.GzipFile(fileobj=stored)
            elif self.compression == ".bz2":
                opened = bz2.BZ2File(stored)
            elif self.compression == ".xz":
                opened = lzma.LZMAFile(stored)  # noqa: SIM115  (the stack closes it)
            elif self.compression == ".zst":
                import pyarrow as pa

                opened = io.BufferedReader(_ZstdReader(pa.CompressedInputStream(stored, "zstd")))
            yield stack.enter_context(opened)

    def digest(self) -> str:
        """sha256 of the stored bytes; for object storage that names the content (an ETag), size and that name."""
        if not self.is_remote:
            return file_sha256(Path(self.path))
        filesystem, path = _filesystem(self.path)
        facts = filesystem.info(path)
        for key in ("ETag", "etag", "md5Hash", "sha256", "blob_id"):
            if facts.get(key):
                return f"{key} {facts[key]}, {self.size} bytes".replace('"', "")
        with self.open() as file:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class FilePart:
    """What one task reads of a file."""

    file: SourceFile
    start: int = 0
    end: int | None = None
    """Bytes, or row groups of a Parquet file, [start, end); None: to its end."""
    size: int = 0
    """Stored bytes, about."""


class _ZstdReader(io.RawIOBase):
    """pyarrow's decompressor as a stream of Python's, so that it can be buffered."""

    def __init__(self, stream: Any):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def find_files(patterns: Sequence[str], roots: Sequence[Path] | None = None) -> list[SourceFile]:
    """Files that match `patterns` (files, folders, globs, URLs of these), each once, in order.

    Paths are looked up in the current folder, then in each root (default: the data folders). A name is the path below
    the root in which the file was found; files named by absolute paths or URLs are named from the folder that they
    have in common. Raises `DataError` for a pattern that matches nothing.
    """
    roots = (Path(), *(data_roots() if roots is None else roots))
    found: dict[str, str] = {}
    rootless: list[str] = []
    for pattern in patterns:
        if _URL.match(pattern):
            rootless += _remote_matches(pattern)
            continue
        for root in roots:
            matches = _matches(root, pattern)
            if matches:
                break
        else:
            places = ", ".join(str(root.absolute()) for root in roots)
            raise DataError(f"{pattern!r} matches no file; looked in {places}")
        for path in matches:
            if Path(pattern).is_absolute():
                rootless.append(str(path))
            else:
                found.setdefault(str(path), path.relative_to(root).as_posix())
    for name, shown in _names_below_common_folder(rootless).items():
        found.setdefault(name, shown)
    return [SourceFile(path, name, _size(path)) for path, name in found.items()]


def local_files(patterns: Sequence[str], roots: Sequence[Path] | None = None) -> list[Path]:
    """`find_files` where a URL will not do."""
    return [Path(file.path) for file in find_files(patterns, roots)]


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


def _names_below_common_folder(paths: Sequence[str]) -> dict[str, str]:
    """Names of files by absolute path or URL: what follows the longest folder that all of a kind begin with."""
    names: dict[str, str] = {}
    for are_urls in (False, True):
        inside = {path: path.split("://", 1)[-1] for path in paths if bool(_URL.match(path)) == are_urls}
        common = os.path.commonpath([os.path.dirname(path) for path in inside.values()]) if inside else ""  # noqa: PTH120
        names |= {path: within[len(common) :].lstrip("/") for path, within in inside.items()}
    return names


def _remote_matches(pattern: str) -> list[str]:
    filesystem, path = _filesystem(pattern)
    try:
        if _GLOB.search(path):
            found = filesystem.glob(path)
        elif filesystem.isdir(path):
            found = [name for name in filesystem.find(path) if not name.rsplit("/", 1)[-1].startswith(".")]
        else:
            found = [path] if filesystem.exists(path) else []
    except Exception as error:  # each storage has its own
        raise DataError(f"{pattern!r} cannot be listed: {type(error).__name__}: {_first_line(error)}") from error
    files = sorted(name for name in found if not filesystem.isdir(name))
    if not files:
        raise DataError(f"{pattern!r} matches no file")
    return [str(filesystem.unstrip_protocol(name)) for name in files]


def _size(path: str) -> int:
    if not _URL.match(path):
        return Path(path).stat().st_size
    filesystem, inside = _filesystem(path)
    return int(filesystem.size(inside) or 0)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"{url!r} needs a package that is not installed: {_first_line(error)}") from error
    except ValueError as error:
        raise DataError(f"{url!r} cannot be read: {_first_line(error)}") from error
    return filesystem, path


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
