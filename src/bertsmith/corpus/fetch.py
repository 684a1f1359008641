"""Download the public files a recipe names, checked by digest and safely unpacked.

Nothing is trusted but the recipe: a file gets its final name only after its sha256 was seen to be right, only the
archive members that the recipe lists are read, and they are written to the recipe's paths, never to the archive's.
"""

import contextlib
import difflib
import errno
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from bz2 import BZ2File
from collections.abc import Iterator
from gzip import GzipFile
from lzma import LZMAError, LZMAFile
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import bertsmith
from bertsmith.artifact import file_sha256, remove_drafts
from bertsmith.config import Download, Recipe
from bertsmith.errors import BertsmithError, DataError, RecipeError

TIMEOUT_SECONDS = 30.0
"""Longest silence of a server, not the length of a download."""
PAUSES_SECONDS = (1.0, 5.0)
"""Waits before the second and the third try."""
CHUNK_BYTES = 1 << 18
_BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, NotImplementedError)


def fetch(recipe: Recipe, into: Path) -> list[Path]:
    """Put every file of `recipe.data.downloads` below `into`; return their paths, in the recipe's order.

    A download whose files are all there with the right digest is skipped. Raises `RecipeError` for a download that
    could not be checked or would leave `into`, `BertsmithError` when the server cannot be reached or refuses, and
    `DataError` when what came is not what the recipe says; in each case no unchecked file stands under a final name.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    plans = [(download, _targets(download)) for download in recipe.data.downloads]
    paths: list[Path] = []
    for download, targets in plans:
        console.print(f"{download.url}\n  licence: {download.licence}")
        here = [_is_here(into / target, digest) for target, digest in targets.items()]
        if all(here):
            console.print(f"  already here: {', '.join(str(into / target) for target in targets)}")
        else:
            try:
                _fetch_one(download, targets, into, console)
            except OSError as error:
                raise BertsmithError(f"{into} cannot be written: {error}") from error
        paths += [into / target for target in targets]
    return paths


def _targets(download: Download) -> dict[str, str | None]:
    """Path below the data folder -> expected sha256 (None: vouched for by the archive's own digest)."""
    if download.members:
        targets = {path: download.member_sha256.get(path) for path in download.members.values()}
        unknown = set(download.member_sha256) - set(targets)
        if len(targets) < len(download.members):
            raise RecipeError(f"data.downloads: two members of {download.url} go to the same path")
        if unknown:
            raise RecipeError(f"data.downloads: member_sha256 names {sorted(unknown)[0]!r}, which no member goes to")
        checkable = download.sha256 is not None or None not in targets.values()
    else:
        name = download.path or PurePosixPath(urllib.parse.urlsplit(download.url).path).name
        targets = {name: download.sha256}
        checkable = download.sha256 is not None
    if not checkable:
        raise RecipeError(f"data.downloads: {download.url} has no digest; add sha256, or member_sha256 for each member")
    for target in targets:
        if not target or PurePosixPath(target).is_absolute() or ".." in PurePosixPath(target).parts or "\\" in target:
            raise RecipeError(f"data.downloads: path {target!r} must be relative and stay below the data folder")
    if urllib.parse.urlsplit(download.url).scheme not in ("http", "https", "file"):
        raise RecipeError(f"data.downloads: url {download.url!r} must begin with https://, http:// or file://")
    return targets


def _is_here(path: Path, digest: str | None) -> bool:
    """True where the file stands with the right digest; a file of another digest is never overwritten."""
    if not path.exists() or digest is None:
        return False
    if not path.is_file():
        raise DataError("is a folder, the recipe needs a file of this name; rename or remove it", path=path)
    found = file_sha256(path)
    if found != digest.lower():
        raise DataError(
            f"is here with sha256 {found}, the recipe expects {digest}; rename or remove it to download it", path=path
        )
    return True


def _fetch_one(download: Download, targets: dict[str, str | None], into: Path, console: Console) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with _draft_folder(into) as drafts:
        file = drafts / "download"
        found = _download_with_retries(download, file, console)
        if download.sha256 is not None and found != download.sha256.lower():
            raise _wrong_digest(download.url, expected=download.sha256, found=found, file=file)
        unpacked = drafts / "unpacked"
        if download.members:
            _unpack(file, download, unpacked)
        else:
            (name,) = targets
            (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
            file.replace(unpacked / name)
        for target, digest in targets.items():
            found = file_sha256(unpacked / target)
            if digest is not None and found != digest.lower():
                where = f"{target} of {download.url}" if download.members else download.url
                raise _wrong_digest(where, expected=digest, found=found, file=unpacked / target)
        for target in targets:
            (into / target).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / target).replace(into / target)
            console.print(f"  {(into / target).stat().st_size:,} bytes -> {into / target}")


@contextlib.contextmanager
def _draft_folder(into: Path) -> Iterator[Path]:
    """A folder on the same disk as `into`, so that finished files can be renamed; gone afterwards."""
    remove_drafts(into / "fetch")
    folder = into / f".fetch.draft-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- download ---------------------------------------------------------------------------------------------------------


class _PassingError(Exception):
    """A fault that may pass: no connection, silence, a broken stream, a server in trouble."""


def _download_with_retries(download: Download, file: Path, console: Console) -> str:
    for pause in (*PAUSES_SECONDS, None):
        try:
            return _download(download, file, console)
        except _PassingError as error:
            if pause is None:
                tries = len(PAUSES_SECONDS) + 1
                raise BertsmithError(
                    f"{download.url} could not be downloaded in {tries} tries ({error}); "
                    "check the connection, or put the file in place by hand"
                ) from error
            console.print(f"  {error}; trying again in {pause:g} s")
            time.sleep(pause)
    raise AssertionError("the last try either returns or raises")


def _download(download: Download, file: Path, console: Console) -> str:
    """Stream `download.url` to `file` and return its sha256."""
    request = urllib.request.Request(download.url, headers={"User-Agent": f"bertsmith/{bertsmith.__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            length = int(response.headers.get("Content-Length") or 0)
            if length > download.max_bytes:
                raise _too_large(download)
            digest, size = _copy(response, file, download, total=length or None, console=console)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in (408, 429):
            raise _PassingError(f"the server answered {error.code} {error.reason}") from error
        raise BertsmithError(
            f"{download.url}: the server answered {error.code} {error.reason}; "
            "the file may have moved: correct url in the recipe's [data] section"
        ) from error
    except TimeoutError as error:
        raise _PassingError(f"no answer for {TIMEOUT_SECONDS:g} s") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError | IsADirectoryError | PermissionError):
            raise BertsmithError(f"{download.url} cannot be read: {error.reason}") from error
        reason = f"no answer for {TIMEOUT_SECONDS:g} s" if isinstance(error.reason, TimeoutError) else error.reason
        raise _PassingError(f"no connection: {reason}") from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise _PassingError(f"the connection broke: {error or type(error).__name__}") from error
    if length and size != length:
        raise _PassingError(f"the connection broke after {size:,} of {length:,} bytes")
    return digest


def _copy(
    response: BinaryIO, file: Path, download: Download, *, total: int | None, console: Console
) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    columns = (TextColumn("  "), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        file.open("wb") as out,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("", total=total)
        while chunk := response.read(CHUNK_BYTES):
            size += len(chunk)
            if size > download.max_bytes:
                raise _too_large(download)
            digest.update(chunk)
            out.write(chunk)
            progress.update(bar, completed=size)
    return digest.hexdigest(), size


def _too_large(download: Download) -> DataError:
    return DataError(f"{download.url} holds more than {download.max_bytes:,} bytes; raise max_bytes if that is right")


def _wrong_digest(what: str, *, expected: str, found: str, file: Path) -> DataError:
    with file.open("rb") as opened:
        start = opened.read(200).lstrip().lower()
    page = " (the server sent a web page, not the file)" if start.startswith((b"<!doctype html", b"<html")) else ""
    return DataError(
        f"{what}: expected sha256 {expected}, found {found}{page}; nothing was kept. "
        "The public file may have changed: look at it, then correct the digest in the recipe"
    )


# --- archives ---------------------------------------------------------------------------------------------------------


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Bounded:
    """A stream that refuses to give more than `limit` bytes, whatever the archive says its size is."""

    def __init__(self, stream: _Readable, limit: int, download: Download):
        self.stream, self.left, self.download = stream, limit, download

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(min(size, CHUNK_BYTES) if size >= 0 else CHUNK_BYTES)
        self.left -= len(data)
        if self.left < 0:
            raise _too_large(self.download)
        return data


def _unpack(archive: Path, download: Download, into: Path) -> None:
    """Write the listed members of a .zip or .tar.* to their paths below `into`, each exactly once."""
    with archive.open("rb") as file:
        magic = file.read(6)
    read = _zip_members if magic[:2] == b"PK" else _tar_members
    seen: list[str] = []
    done: set[str] = set()
    try:
        for name, stream in read(archive, download):
            seen.append(name)
            if stream is None:
                continue
            if name in done:
                raise DataError(f"{download.url} holds {name!r} twice; which one is meant cannot be known")
            target = into / download.members[name]
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                while chunk := stream.read(CHUNK_BYTES):
                    out.write(chunk)
            done.add(name)
    except _BROKEN_ARCHIVE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # a full disk, say; a broken archive gives no number, or EINVAL for a seek before its start
        raise DataError(f"{download.url} is not an intact .zip or .tar archive ({error})") from error
    for name in download.members:
        if name not in done:
            near = difflib.get_close_matches(name, seen, n=1, cutoff=0.3) or seen[:1]
            raise DataError(f"{download.url} has no member {name!r}" + (f"; it has {near[0]!r}" if near else ""))


def _zip_members(archive: Path, download: Download) -> Iterator[tuple[str, _Readable | None]]:
    left = download.max_bytes
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.filename.removeprefix("./")
            if name not in download.members:
                yield name, None
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or kind not in (0, stat.S_IFREG):
                raise _not_a_file(download, name)
            if info.flag_bits & 1:
                raise DataError(f"{download.url}: member {name!r} is encrypted; only plain archives can be unpacked")
            with opened.open(info) as stream:
                bounded = _Bounded(stream, left, download)
                yield name, bounded
                left = bounded.left


def _tar_members(archive: Path, download: Download) -> Iterator[tuple[str, _Readable | None]]:
    """Members in one pass; the bound counts every unpacked byte, those of skipped members too."""
    with archive.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        plain = _decompressed(file, magic)
        bounded = _Bounded(plain, download.max_bytes, download)
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r|", bufsize=CHUNK_BYTES) as opened:
            for info in opened:
                name = info.name.removeprefix("./")
                if name not in download.members:
                    yield name, None
                    continue
                stream = opened.extractfile(info) if info.isreg() else None
                if stream is None:
                    raise _not_a_file(download, name)
                yield name, cast(_Readable, stream)


def _decompressed(file: BinaryIO, magic: bytes) -> _Readable:
    if magic[:2] == b"\x1f\x8b":
        return cast(_Readable, GzipFile(fileobj=file))
    if magic[:3] == b"BZh":
        return cast(_Readable, BZ2File(file))
    if magic == b"\xfd7zXZ\x00":
        return cast(_Readable, LZMAFile(file))
    return file


def _not_a_file(download: Download, name: str) -> DataError:
    return DataError(f"{download.url}: member {name!r} is a link, folder or device, not a file; it is not unpacked")
