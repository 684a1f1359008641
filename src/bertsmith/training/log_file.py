"""A log that outlives a full disk: lines for which there is no room wait in memory, and are written later."""

import os
from pathlib import Path

from bertsmith.errors import BertsmithError

MOST_WAITING_BYTES = 32 * 2**20


class LogFile:
    """Appends lines to a file, which always ends with a whole one."""

    def __init__(self, path: Path, *, most_waiting_bytes: int = MOST_WAITING_BYTES):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.most_waiting_bytes = most_waiting_bytes
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        self._error: OSError | None = None

    @property
    def waiting(self) -> bytes:
        """Lines that are not in the file yet."""
        return bytes(self._waiting)

    def append(self, line: bytes) -> None:
        """Write a line, given without its end, and what waits before it; or let it wait.

        Raises `BertsmithError` when too much waits: a run's log shall have no holes.
        """
        self._waiting += line + b"\n"
        self.write_waiting()
        if len(self._waiting) > self.most_waiting_bytes:
            raise self.not_written()

    def write_waiting(self) -> None:
        """Write what waits, as far as the disk takes whole lines."""
        start, written = self.num_bytes(), 0
        try:
            while written < len(self._waiting):
                written += self._file.write(self._waiting[written:])
        except OSError as error:
            self._error = error
            written = self._waiting.rfind(b"\n", 0, written) + 1
            if self.num_bytes() > start + written:
                self._file.truncate(start + written)
        del self._waiting[:written]

    def sync(self) -> None:
        """Have what is in the file on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._error = error

    def num_bytes(self) -> int:
        """Length of the file."""
        return self._file.seek(0, os.SEEK_END)

    def truncate(self, num_bytes: int, *, then: bytes = b"") -> None:
        """Cut the file to so many bytes, forget what waits, and append whole lines."""
        self._file.truncate(num_bytes)
        self._waiting[:] = then
        self.write_waiting()

    def close(self) -> None:
        self._file.close()

    def not_written(self) -> BertsmithError:
        """What to say where lines wait for ever."""
        return BertsmithError(
            f"{self.path} could not be written ({self._error}), {len(self._waiting):,} bytes of it; "
            "make room and run the same command again"
        )
