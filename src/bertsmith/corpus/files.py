"""Files that sources name: by path, folder, glob or URL; plain or compressed; here or in object storage.

A file has two names: `path`, to open it, and `name`, which does not tell where on this machine it lies and so may
stand in an artifact.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import itertools
import lzma
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from bertsmith.artifact import file_sha256
from bertsmith.errors import DataError
from bertsmith.runtime import data_roots

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a file raises where it is torn, damaged or cannot be reached."""
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
        return cast(BinaryIO, io.BufferedReader(_RemoteReader(self), _READ_BYTES))

    @contextlib.contextmanager
    def open_content(self) -> Iterator[BinaryIO]:
        """The content, decompressed, from its start. Raises one of `UNREADABLE`; what is torn, when it is read."""
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


class _RemoteReader(io.RawIOBase):
    """A file of `fsspec` whose errors, each storage's own, are all `OSError`; it does not end early unnoticed."""

    def __init__(self, file: SourceFile):
        self._file = file
        with self._as_os_error():
            self._opened = _filesystem(file.path)[0].open(file.path, "rb", block_size=4 * _READ_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._as_os_error():
            return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def readinto(self, buffer: Any) -> int:
        with self._as_os_error():
            data = self._opened.read(len(buffer))
        if not data and self.tell() < self._file.size:
            raise OSError(f"ended after {self.tell():,} of {self._file.size:,} bytes")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_opened"):
            self._opened.close()
        super().close()

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage has its own
            raise OSError(f"{type(error).__name__}: {_first_line(error)}") from error


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


def is_url(name: str) -> bool:
    """Whether a file's name is one for `fsspec`."""
    return _URL.match(name) is not None


def is_pattern(name: str) -> bool:
    """Whether a file's name may stand for several."""
    return _GLOB.search(name) is not None


def find_files(patterns: Sequence[str], roots: Sequence[Path] | None = None) -> list[SourceFile]:
    """Files that match `patterns` (files, folders, globs, URLs of these), each once, in order.

    Paths are looked up in the current folder, then in each root (default: the data folders). A name is the path below
    the root in which the file was found; files named by absolute paths or URLs are named from the folder that they
    have in common. Names are unique. Files and folders whose name begins with a dot are passed over, unless a pattern
    names them. Raises `DataError` for a pattern that matches nothing.
    """
    roots = (Path(), *(data_roots() if roots is None else roots))
    names: dict[str, str | None] = {}
    sizes: dict[str, int] = {}
    for pattern in patterns:
        if _URL.match(pattern):
            for url, size in _remote_matches(pattern):
                names.setdefault(url, None)
                sizes[url] = size
            continue
        root, matches = _found_in(roots, pattern)
        for path in matches:
            names.setdefault(str(path), None if Path(pattern).is_absolute() else path.relative_to(root).as_posix())
            sizes[str(path)] = path.stat().st_size
    shown = _names_below_common_folder([path for path, name in names.items() if name is None])
    unique = _unique([name if name is not None else shown[path] for path, name in names.items()])
    return [SourceFile(path, name, sizes[path]) for path, name in zip(names, unique, strict=True)]


def local_files(patterns: Sequence[str], roots: Sequence[Path] | None = None) -> list[Path]:
    """`find_files` where a URL will not do."""
    return [Path(file.path) for file in find_files(patterns, roots)]


def _found_in(roots: Sequence[Path], pattern: str) -> tuple[Path, list[Path]]:
    """The first root below which `pattern` matches files, and these."""
    for root in roots:
        if matches := _matches(root, pattern):
            return root, matches
    places = ", ".join(str(root.absolute()) for root in roots)
    raise DataError(f"{pattern!r} matches no file; looked in {places}")


def _matches(root: Path, pattern: str) -> list[Path]:
    path = root / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    parts = Path(pattern).parts
    first = next((number for number, part in enumerate(parts) if _GLOB.search(part)), None)
    if first is None:
        return []
    folder, rest = root.joinpath(*parts[:first]), parts[first:]
    found = [file for file in folder.glob("/".join(rest)) if file.is_file()]
    if not _is_hidden(Path(*rest)):
        found = [file for file in found if not _is_hidden(file.relative_to(folder))]
    return sorted(found)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _names_below_common_folder(paths: Sequence[str]) -> dict[str, str]:
    """Names of files by absolute path or URL: what follows the longest folder that all of a kind begin with."""
    names: dict[str, str] = {}
    for are_urls in (False, True):
        inside = {path: path.split("://", 1)[-1] for path in paths if bool(_URL.match(path)) == are_urls}
        folders = [within.rpartition("/")[0] for within in inside.values()]
        common = os.path.commonpath(folders) if all(folders) and folders else ""
        names |= {path: within[len(common) :].lstrip("/") for path, within in inside.items()}
    return names


def _unique(names: Sequence[str]) -> list[str]:
    """The second of two names that are alike gets `~2`: ids are made of them."""
    taken: dict[str, None] = {}
    for name in names:
        candidates = (name if copy == 1 else f"{name}~{copy}" for copy in itertools.count(1))
        taken[next(candidate for candidate in candidates if candidate not in taken)] = None
    return list(taken)


def _remote_matches(pattern: str) -> list[tuple[str, int]]:
    """URL and size in bytes of each file."""
    filesystem, path = _filesystem(pattern)
    try:
        if "*" not in path and filesystem.isfile(path):
            found = {path: filesystem.info(path)}
        elif glob := _GLOB.search(path):
            found = filesystem.glob(path, detail=True)
            if not _is_hidden(Path(path[glob.start() :])):
                found = _without_hidden(found, path[: glob.start()])
        else:
            found = _without_hidden(filesystem.find(path, detail=True) if filesystem.isdir(path) else {}, path)
    except Exception as error:  # each storage has its own
        raise DataError(f"{pattern!r} cannot be listed: {type(error).__name__}: {_first_line(error)}") from error
    files = {name: facts.get("size") for name, facts in sorted(found.items()) if facts.get("type") != "directory"}
    if not files:
        raise DataError(f"{pattern!r} matches no file")
    for name, size in files.items():
        if size is None:
            raise DataError(f"{name!r}: its server does not say how large it is; download it, and name the copy")
    return [(str(filesystem.unstrip_protocol(name)), int(size)) for name, size in files.items()]


def _without_hidden(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name: facts for name, facts in found.items() if not _is_hidden(Path(name[len(prefix) :]))}


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
