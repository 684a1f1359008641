"""Lines that stand in many documents: found over all chunks of a corpus, and left out of each document.

Lines are compared by a 64-bit hash of their UTF-8 bytes. Those shorter than 24 bytes (24 Latin letters, 8 Chinese
characters) are never boilerplate: "Chapter 1" and "Yes." belong to their documents.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

_SHORTEST_LINE_BYTES = 24
_ROWS_IN_MEMORY = 8_000_000
_NPY_HEADER_BYTES = 128
"""A file without rows holds nothing else, and cannot be memory-mapped."""


def line_hashes(text: str) -> Hashes:
    """(lines,): hashes of the distinct lines of a cleaned document that are long enough, ascending."""
    return np.array(sorted({hashed for hashed in _hashes(text) if hashed}), np.uint64)


def count_lines(documents: Sequence[Hashes]) -> Hashes:
    """(lines, 2): hash and number of documents of each line of a chunk, ascending by hash; save it as .npy."""
    hashes, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *documents]), return_counts=True)
    return np.stack([hashes, counts.astype(np.uint64)], axis=1)


def common_lines(files: Sequence[Path], *, min_documents: int) -> Hashes:
    """(lines,): hashes of the lines that stand in at least `min_documents` documents, ascending.

    `files` hold what `count_lines` gave for each chunk. They are merged a range of hashes at a time, so that memory
    does not grow with the corpus; hashes are uniform, so ranges of equal width hold about as much.
    """
    counts = [np.load(path, mmap_mode="r") for path in files if path.stat().st_size > _NPY_HEADER_BYTES]
    num_ranges = sum(map(len, counts)) // _ROWS_IN_MEMORY + 1
    borders = [number * 2**64 // num_ranges for number in range(1, num_ranges)]
    cuts = [[0, *np.searchsorted(rows[:, 0], np.array(borders, np.uint64)), len(rows)] for rows in counts]
    found = [np.empty(0, np.uint64)]
    for number in range(num_ranges):
        parts = [rows[cut[number] : cut[number + 1]] for rows, cut in zip(counts, cuts, strict=True)]
        if parts:
            hashes, where = np.unique(np.concatenate([part[:, 0] for part in parts]), return_inverse=True)
            documents = np.bincount(where, weights=np.concatenate([part[:, 1] for part in parts]))
            found.append(hashes[documents >= min_documents])
    return np.concatenate(found)


def without_lines(text: str, common: Hashes) -> tuple[str, int]:
    """The text without its lines that are in `common` (ascending), and their number."""
    if not len(common):
        return text, 0
    hashes = np.array(_hashes(text), np.uint64)
    places = np.searchsorted(common, hashes)
    is_common = (hashes != 0) & (common[np.minimum(places, len(common) - 1)] == hashes)
    if not is_common.any():
        return text, 0
    lines = text.split("\n")
    left = (line for line, left_out in zip(lines, is_common, strict=True) if not left_out)
    return "\n".join(left), int(is_common.sum())


def _hashes(text: str) -> list[int]:
    """A hash for each line, 0 for those that are too short."""
    return [
        xxhash.xxh3_64_intdigest(line) if len(line) >= _SHORTEST_LINE_BYTES else 0
        for line in text.encode().split(b"\n")
    ]
