"""The runs under a folder: found by their logs, and only what changed is looked at again."""

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bertsmith.analysis.board.feed import Feed
from bertsmith.analysis.board.summary import Summary, waiting_row

DEEPEST = 8
NOT_IN_A_RUN = frozenset({"checkpoints", "model", "last", "best"})
"""Folders of a run in which there is no other run, but may be many files."""
_YOUNG_NS = 2_000_000_000
"""A folder that changed just before it was listed may change again within the same tick of the file system's clock."""


@dataclass(frozen=True)
class _Listing:
    modified_ns: int
    listed_ns: int
    has_log: bool
    has_recipe: bool
    folders: tuple[str, ...]

    def holds(self, modified_ns: int) -> bool:
        return self.modified_ns == modified_ns and self.listed_ns - modified_ns > _YOUNG_NS


class Shelf:
    """Runs by their path below `root`, with `/` between its parts; `root` itself is called `.`."""

    def __init__(self, root: Path, *, seconds_a_look: float = 1.0, seconds_between_looks: float = 1.0):
        self.root = root
        self.feed = Feed()
        self.num_unread = 0
        """Runs whose log is not read to its end yet: thousands of logs are read bit by bit."""
        self._seconds_a_look = seconds_a_look
        self._seconds_between_looks = seconds_between_looks
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._listings: dict[str, _Listing] = {}
        self._summaries: dict[str, Summary] = {}
        self._waiting: set[str] = set()
        """Runs whose first training has not begun: a recipe, and no log in it or inside it."""
        self._rows: dict[str, dict[str, Any]] = {}

    def since(self, token: str) -> dict[str, Any]:
        """Rows that changed after `token`, as `Feed.since` has them; first looks at the folder, now and then."""
        with self._lock:
            self._look_now_and_then()
            return self.feed.since(token) | {"unread": self.num_unread}

    def folder(self, name: str) -> Path | None:
        """The folder of a run, or of a whole chain of runs, by a name that a client gave; None where there is none.

        Names are looked up, never joined to a path, so no name leads out of `root`.
        """
        with self._lock:
            self._look_now_and_then()
            if name in self._summaries:
                return self._summaries[name].folder
            if name in self._waiting:
                return self.root / name
            chain = next((one.folder.parent for run, one in self._summaries.items() if whole_of(run) == name), None)
            return chain if chain is not None and (chain / "recipe.toml").is_file() else None

    def _look_now_and_then(self) -> None:
        if time.monotonic() < self._next_look:
            return
        begun = time.monotonic()
        self._look()
        took = time.monotonic() - begun
        self._next_look = 0.0 if self.num_unread else begun + self._seconds_between_looks * max(1.0, 9 * took)

    def _look(self) -> None:
        now, deadline = time.time(), time.monotonic() + self._seconds_a_look
        found = self._find()
        for name in self._summaries.keys() - found:
            del self._summaries[name]
        for name in self._rows.keys() - found:
            del self._rows[name]
        for name in sorted(found - self._summaries.keys(), key=self._age):
            self._summaries[name] = Summary(self.root / name)
        self.num_unread = 0
        for name, summary in self._summaries.items():
            row = self._rows.get(name)
            if time.monotonic() > deadline:
                self.num_unread += row is None
                continue
            try:
                changed = summary.update()
            except OSError:  # vanished since it was found
                self._rows.pop(name, None)
                continue
            self.num_unread += summary.is_behind
            if changed or row is None or row["state"] == "running":  # of the others, time changes nothing
                self._rows[name] = summary.row(name, now)
        for name in self._waiting:
            self._rows[name] = waiting_row(name, self._listings[name].modified_ns / 1e9)
        self.feed.update(self._rows)

    def _age(self, name: str) -> float:
        """So that of many runs the newest are read first."""
        try:
            return -(self.root / name / "metrics.jsonl").stat().st_mtime
        except OSError:
            return 0.0

    def _find(self) -> set[str]:
        """Names of all folders with a log. Folders that did not change are not listed again."""
        found: set[str] = set()
        listings: dict[str, _Listing] = {}
        waiting = ["."]
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):  # it vanished, or is not ours to read
                listing = self._list(name)
                listings[name] = listing
                if listing.has_log:
                    found.add(name)
                if name.count("/") < DEEPEST:
                    waiting += [inner if name == "." else f"{name}/{inner}" for inner in listing.folders]
        self._listings = listings
        begun = {str(outer) for name in found for outer in (name, *PurePosixPath(name).parents)}
        self._waiting = {name for name, listing in listings.items() if listing.has_recipe and name not in begun}
        return found

    def _list(self, name: str) -> _Listing:
        path = self.root / name
        modified_ns = path.stat().st_mtime_ns
        known = self._listings.get(name)
        if known is not None and known.holds(modified_ns):
            return known
        listed_ns = time.time_ns()
        folders, has_log, has_recipe = [], False, False
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name == "metrics.jsonl":
                    has_log = entry.is_file(follow_symlinks=False)
                elif entry.name == "recipe.toml":
                    has_recipe = True
                # Links are not followed: they may lead out of the folder, or around in circles.
                elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    folders.append(entry.name)
        if has_log:
            folders = [folder for folder in folders if folder not in NOT_IN_A_RUN]
        return _Listing(modified_ns, listed_ns, has_log, has_recipe, tuple(folders))


def whole_of(name: str) -> str | None:
    """The run that a run is a stage of, by their names: `quickstart` of `quickstart/pretrain`."""
    outer, _, last = name.rpartition("/")
    return (outer or ".") if last != "." else None
