"""Records that do not fit into memory, parted into files by a number each has, and read back a file at a time."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from bertsmith.corpus.arrays import append_array

Records = npt.NDArray[np.uint64]

_RECORDS_OF_A_PART, _MOST_RECORDS_OF_A_PART = 500_000, 4_000_000
_MOST_FILES = 256
"""Parts are small as long as there are not more files than this, all open at once; then they grow to the most."""


class Spill:
    """`num_parts` files under `folder`, which is removed at the end; a record is `width` numbers of 64 bits."""

    def __init__(self, folder: Path, *, num_parts: int, width: int):
        self.folder = folder
        self.width = width
        folder.mkdir(parents=True)
        self._files = [(folder / f"{part:05d}").open("wb") for part in range(num_parts)]

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files:
            file.close()
        shutil.rmtree(self.folder)

    def add(self, records: Records, parts: npt.NDArray[np.int64]) -> None:
        """Append `records` (n, width), each to its part (n,); within a part they stay in the order they came in."""
        order = np.argsort(parts, kind="stable")
        borders = np.searchsorted(parts[order], np.arange(len(self._files) + 1))
        for file, start, stop in zip(self._files, borders[:-1], borders[1:], strict=True):
            if stop > start:
                append_array(file, records[order[start:stop]])

    def parts(self) -> Iterator[Records]:
        """(n, width) of each part, in order."""
        for file in self._files:
            file.flush()
            yield np.fromfile(file.name, np.uint64).reshape(-1, self.width)


def parts_of(keys: Records, num_parts: int) -> npt.NDArray[np.int64]:
    """(n,): the part of each hash, by its high bits, so that parts of uniform hashes are about as large."""
    return ((keys >> np.uint64(32)) * np.uint64(num_parts) >> np.uint64(32)).astype(np.int64)


def parts_for(num_records: int, *, times: int = 1) -> int:
    """Into how many parts so many records have to be parted, `times` over, for a part to fit into memory."""
    small = min(num_records // _RECORDS_OF_A_PART + 1, max(1, _MOST_FILES // times))
    return max(small, num_records // _MOST_RECORDS_OF_A_PART + 1)
