"""New lines of a log that another process writes, tears, cuts off on a resume, or removes."""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 16 << 20
"""Read at one look, so that a log of gigabytes is read in bounded memory and others get their turn."""


class Tail:
    """A place in a log. Raises `OSError` from `look` where the log is gone or is no plain file."""

    def __init__(self, path: Path):
        self.path = path
        self.modified_seconds = 0.0
        self.is_behind = False
        """There is more to read than the last look took."""
        self.has_torn_end = False
        """The log ended, at the last look, in the middle of a line."""
        self._stamp: tuple[int, int, int] | None = None
        self._offset = 0
        self._last = b""

    def look(self) -> tuple[bool, list[bytes]]:
        """Whole lines since the last look, and whether to forget those before: the log was cut off or written anew.

        A last line without a newline is torn, or still being written, and is left for a later look.
        """
        found = os.lstat(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self.path} is no plain file")
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        if stamp == self._stamp and not self.is_behind:
            return False, []
        self._stamp, self.modified_seconds = stamp, found.st_mtime
        with self.path.open("rb") as file:
            anew = not self._goes_on(file)
            if anew:
                self._offset, self._last = 0, b""
            file.seek(self._offset)
            taken = file.read(MOST_BYTES)
        whole = taken[: taken.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.is_behind = len(taken) == MOST_BYTES and bool(whole)
        self.has_torn_end = len(taken) > len(whole) and not self.is_behind
        lines = whole.splitlines(keepends=True) if whole else []
        if lines:
            self._last = lines[-1]
        return anew, lines

    def _goes_on(self, file: BinaryIO) -> bool:
        """The last line that was read still stands where it stood: what comes after it is new, nothing else changed.

        After a resume it does not: the log was cut off at a checkpoint, and may be longer again by now.
        """
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last


def object_of(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None where it is torn, or something else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
