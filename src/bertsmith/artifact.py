"""A stage's directory: written aside, renamed into place, with a manifest; opened and verified.

    corpus/
        part-00000.parquet ...   what the stage made
        manifest.json            what it is: format, kind, config, inputs' digests, counts, size and hash of each file
        run.json                 how it came about: seconds, machine, versions (not part of the digest)

The digest of an artifact is the hash of its `manifest.json`, so equal config, inputs and package give an equal digest
wherever and with however many workers it was made.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertsmith.errors import ArtifactError, BertsmithError, UsageError

FORMAT_VERSION = 2
_OWN_FILES = ("manifest.json", "run.json")
_PIECE_FACTS = "piece.json"


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk."""

    path: Path
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    counts: Mapping[str, Any]
    digest: str


@dataclass
class Draft:
    """A stage being written: put files under `path`, fill `counts`."""

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def write_artifact(
    path: Path, *, kind: str, config: Mapping[str, Any], inputs: Mapping[str, str], environment: Mapping[str, Any]
) -> Iterator[Draft]:
    """Yield a draft beside `path`; on success give it a manifest and rename it to `path`, on failure remove it.

    `config` is the part of the recipe the result depends on (no workers, threads or engine); `inputs` maps a name to
    the digest of each artifact or file read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path)
    draft = Draft(path.parent / f".{path.name}.draft-{os.getpid()}")
    draft.path.mkdir()
    started = time.monotonic()
    try:
        with _full_disk_told(path):
            yield draft
            files = {
                str(file.relative_to(draft.path)): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
                for file in sorted(draft.path.rglob("*"))
                if file.is_file() and file.name not in _OWN_FILES
            }
            manifest = {
                "format": FORMAT_VERSION,
                "kind": kind,
                "config": config,
                "inputs": inputs,
                "counts": draft.counts,
                "files": files,
            }
            elapsed_seconds = round(time.monotonic() - started, 3)
            write_json(draft.path / "run.json", {"seconds": elapsed_seconds, **environment, **draft.run})
            write_json(draft.path / "manifest.json", manifest)
            replace_directory(draft.path, path)
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


@dataclass(frozen=True)
class Piece:
    """A finished part of a stage that is not finished itself."""

    path: Path
    counts: Mapping[str, Any]


def work_folder(path: Path) -> Path:
    """Where the pieces of the stage at `path` wait until it is finished; a stage that was stopped goes on from them."""
    return path.parent / f".{path.name}.work"


@contextlib.contextmanager
def kept_pieces(path: Path) -> Iterator[Path]:
    """Yield the work folder of the stage at `path`; its pieces outlive a failure, but not the finished stage."""
    work = work_folder(path)
    try:
        yield work
    except BaseException:
        with contextlib.suppress(OSError):
            work.rmdir()  # only where nothing is in it
        raise
    shutil.rmtree(work, ignore_errors=True)


def make_piece(work: Path, key: str, make: Callable[[Path], Mapping[str, Any]]) -> Piece:
    """The piece `key` of `work`: the one that is there, or what `make` now puts into a folder of its own.

    `key` is a digest of everything the piece depends on, so that what another config left is never taken up. `make`
    gets an empty folder, fills it and returns counts (JSON); the folder gets its name when it is whole and on the disk.
    """
    path = work / key
    found = _finished_piece(path)
    if found is not None:
        return found
    work.mkdir(parents=True, exist_ok=True)
    remove_drafts(path)
    draft = work / f".{key}.draft-{os.getpid()}"
    draft.mkdir()
    try:
        with _full_disk_told(work):
            counts = dict(make(draft))
            sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
            write_json(draft / _PIECE_FACTS, {"counts": counts, "sizes": sizes})
            replace_directory(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Piece(path, counts)


@contextlib.contextmanager
def _full_disk_told(path: Path) -> Iterator[None]:
    """`ArtifactError` where there is no room for `path`; other errors stay as they are."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ArtifactError(
            f"{path}: cannot be written ({os.strerror(error.errno)}); make room, then give the same command again: "
            "what was finished is kept"
        ) from error


def _finished_piece(path: Path) -> Piece | None:
    try:
        facts = json.loads((path / _PIECE_FACTS).read_bytes())
        whole = all((path / name).stat().st_size == size for name, size in facts["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Piece(path, facts["counts"]) if whole else None


def open_artifact(path: Path, kind: str, *, verify: bool = True) -> Artifact:
    """Open the artifact at `path`; with `verify`, check the size and hash of each of its files.

    Raises `ArtifactError` when it is missing, of another kind or format, or when a file was changed.
    """
    manifest_path = path / "manifest.json"
    try:
        raw = manifest_path.read_bytes()
        manifest = json.loads(raw)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} holds no finished {kind} (no manifest.json); run that stage first") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{manifest_path} cannot be read ({error}); remove {path} and run its stage again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else "something else"
        raise ArtifactError(f"{path} holds {found!r}, not {kind!r}; give the directory of a {kind} stage")
    if manifest.get("format") != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} is of format {manifest.get('format')}, this version reads {FORMAT_VERSION}; run its stage again"
        )
    if verify:
        for name, facts in manifest["files"].items():
            file = path / name
            if not file.is_file():
                raise ArtifactError(f"{file} is missing; remove {path} and run its stage again")
            if file.stat().st_size != facts["bytes"] or file_sha256(file) != facts["sha256"]:
                raise ArtifactError(f"{file} was changed after it was written; remove {path} and run its stage again")
    return Artifact(
        path, kind, manifest["config"], manifest["inputs"], manifest["counts"], hashlib.sha256(raw).hexdigest()
    )


def is_current(path: Path, *, kind: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """True where `path` holds an intact artifact made from just this config and these inputs."""
    try:
        artifact = open_artifact(path, kind)
    except ArtifactError:
        return False
    return canonical(artifact.config) == canonical(config) and dict(artifact.inputs) == dict(inputs)


def file_digests(path: Path) -> dict[str, str]:
    """sha256 of each file of a finished artifact by its name, as its manifest has them."""
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    return {name: file["sha256"] for name, file in files.items()}


def forget_other_pieces(work: Path, wanted: Collection[str]) -> None:
    """Remove what other settings left among the pieces of a stage."""
    for left in work.iterdir() if work.is_dir() else ():
        if left.name not in wanted:
            shutil.rmtree(left, ignore_errors=True)


def canonical(value: object) -> str:
    """JSON with sorted keys, so that equal values are equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON beside `path`, then rename: a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and onto the disk before it has its name."""
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A place to write a file whole or not at all: it is put onto the disk and gets its name at the end."""
    draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
    try:
        yield draft
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Around all that leads to a file that somebody named: a folder that is not there is said before any of it, and a
    disk that is full after it, as a `UsageError` and a `BertsmithError`.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or write elsewhere")
    try:
        yield
    except OSError as error:
        raise BertsmithError(f"{path} cannot be written: {error.strerror or error}; nothing was left behind") from error


def remove_drafts(path: Path) -> None:
    """Remove what an earlier, killed run left half-written beside `path`, unless its process is still at work."""
    for left in path.parent.glob(f".{path.name}.draft-*"):
        process_id = int(left.name.rsplit("-", 1)[1])
        if process_id == os.getpid() or not Path(f"/proc/{process_id}").exists():
            shutil.rmtree(left, ignore_errors=True)


def sync_tree(path: Path) -> None:
    """Flush every file and folder under `path` to the disk."""
    for entry in [*path.rglob("*"), path]:
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_directory(draft: Path, path: Path) -> None:
    """Give the finished `draft` directory its final name; what stood there before goes only afterwards."""
    sync_tree(draft)
    old = path.parent / f".{path.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.replace(old)
    draft.replace(path)
    parent = os.open(path.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)
    shutil.rmtree(old, ignore_errors=True)
