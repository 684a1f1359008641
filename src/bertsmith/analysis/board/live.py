"""The report of a run, or several runs beside each other, made anew when their files changed."""

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertsmith.analysis.beside import compared
from bertsmith.analysis.board.feed import Feed
from bertsmith.analysis.board.parts import parts_of
from bertsmith.analysis.folder import read_run_folder
from bertsmith.analysis.markup import tag
from bertsmith.analysis.report import render
from bertsmith.analysis.run_log import LogReader
from bertsmith.errors import ArtifactError, BertsmithError

MOST_PAGES = 8
"""Kept in memory: those that were asked for last."""
_READ = (".json", ".jsonl", ".toml")
_Stamp = tuple[tuple[str, int, int], ...]


class LivePages:
    """Pages by the runs they show."""

    def __init__(self, *, seconds_between_looks: float = 1.0):
        self._seconds_between_looks = seconds_between_looks
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[str, ...], _Page] = OrderedDict()

    def since(self, folders: Mapping[str, Path], token: str) -> dict[str, Any]:
        """`Feed.since` of the page's parts, and their `order`."""
        with self._lock:
            page = self._pages.setdefault(tuple(folders), _Page(self._seconds_between_looks))
            self._pages.move_to_end(tuple(folders))
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
        return page.since(folders, token)


class _Page:
    def __init__(self, seconds_between_looks: float) -> None:
        self._seconds_between_looks = seconds_between_looks
        self._lock = threading.Lock()
        self._feed = Feed()
        self._logs: dict[Path, LogReader] = {}
        self._order: list[str] = []
        self._stamp: _Stamp | None = None
        self._next_look = 0.0

    def since(self, folders: Mapping[str, Path], token: str) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() >= self._next_look:
                begun = time.monotonic()
                self._look(folders)
                took = time.monotonic() - begun
                # A long report takes seconds, so it is made less often, and leaves time to the training.
                self._next_look = begun + self._seconds_between_looks * max(1.0, 9 * took)
            return self._feed.since(token) | {"order": self._order}

    def _look(self, folders: Mapping[str, Path]) -> None:
        """Make the parts anew where a file changed; where one cannot be read, say so and keep what was shown."""
        try:
            stamp = tuple(entry for folder in folders.values() for entry in _stamp(folder))
            if stamp == self._stamp:
                return
            parts = _parts(folders, self._logs)
            self._stamp = stamp
        except (BertsmithError, OSError, RecursionError) as error:
            self._stamp = None
            kept = {key: value for key, value in self._feed.items().items() if key != "section trouble"}
            said = tag("p", {"class": "trouble"}, f"Cannot be read now: {error}")
            parts = {"section trouble": tag("section", {"id": "trouble"}, said), **kept}
        self._feed.update(parts)
        self._order = list(parts)


def _parts(folders: Mapping[str, Path], logs: dict[Path, LogReader]) -> dict[str, str]:
    read = {name: read_run_folder(folder, logs) for name, folder in folders.items()}
    if len(read) == 1:
        return parts_of(render(next(iter(read.values()))))
    return parts_of(compared(read))


def _stamp(folder: Path) -> _Stamp:
    """Names, sizes and times of the files that a report may be made from, in the folder and in those inside it.

    Raises `ArtifactError` where one is no plain file: reading a pipe would never end.
    """
    found: list[tuple[str, int, int]] = []
    with os.scandir(folder) as entries:
        inner = [e.path for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    for place in (os.fspath(folder), *sorted(inner)):
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.endswith(_READ):
                    known = entry.stat()
                    if not stat.S_ISREG(known.st_mode):
                        raise ArtifactError(f"{entry.path} is no plain file; remove it")
                    found.append((entry.path, known.st_size, known.st_mtime_ns))
    return tuple(sorted(found))
