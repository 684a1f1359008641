"""A directory that is written aside and gets its name when it is whole and proven."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertsmith.artifact import remove_drafts, replace_directory
from bertsmith.errors import UsageError


@contextmanager
def written_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A directory to write into; it becomes `target` at the end, and where anything fails nothing is left.

    Raises `UsageError` where `target` is a file, or holds something and is not to be replaced.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; give a folder to write to")
    if target.is_dir() and any(target.iterdir()) and not replace:
        raise UsageError(f"{target} is there already, and not empty; give another folder, or --replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(target)
    draft = target.parent / f".{target.name}.draft-{os.getpid()}"
    draft.mkdir()
    try:
        yield draft
        replace_directory(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
