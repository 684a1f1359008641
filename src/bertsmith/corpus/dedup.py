"""Exact duplicates: texts that are equal but for case and spaces."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash


def exact_key(text: str) -> bytes:
    """16 bytes that are equal for texts that are equal but for case and spaces."""
    return xxhash.xxh3_128_digest(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))


class Seen:
    """Remembers texts by their exact key."""

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()

    def add(self, text: str) -> bool:
        """True where an equal text was added before."""
        digest = exact_key(text)
        known = digest in self._hashes
        self._hashes.add(digest)
        return known


def find_duplicates(
    exact: Sequence[Path],
    signatures: Sequence[Path] | None,  # noqa: ARG001
    *,
    threshold: float,  # noqa: ARG001
    work: Path,  # noqa: ARG001
) -> Iterator[npt.NDArray[np.uint8]]:
    """For each chunk (documents,): 0 keep, 1 exact duplicate of an earlier document."""
    seen: set[bytes] = set()
    for path in exact:
        keys = np.load(path)
        found = np.zeros(len(keys), dtype=np.uint8)
        for row, key in enumerate(keys):
            found[row] = key.tobytes() in seen
            seen.add(key.tobytes())
        yield found
