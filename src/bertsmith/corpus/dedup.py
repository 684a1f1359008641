"""Duplicates: texts that are equal but for case and spaces, and near duplicates by MinHash.

A corpus is compared as a whole and out of core: what is known of a document is 16 bytes and, for near duplicates, a
signature, in files by chunk; they are memory-mapped, and parted into buckets that fit into memory. The first document
in the order of the corpus stays. Nothing depends on the number of chunks or processes.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from bertsmith.corpus.minhash import Signatures, bands_and_rows
from bertsmith.corpus.spill import Records, Spill, parts_for, parts_of

Flags = npt.NDArray[np.uint8]
KEPT, EXACT, NEAR = range(3)

_SPACES = bytes(ord(" ") if chr(code).isspace() and code < 128 else code for code in range(256))
_MOST_COMPARED = 64
"""In a bucket of candidates each is compared with so many of the first: bounds the work where thousands look alike."""
_PAIRS_EXPECTED = 16
"""Near pairs of a document, for the number of files they are parted into."""
_PAIRS_AT_ONCE = 50_000
_ROWS_AT_ONCE = 50_000
_SEED = 1996


def exact_key(text: str) -> bytes:
    """16 bytes that are equal for texts that are equal but for case and spaces."""
    if not text.isascii():
        return xxhash.xxh3_128_digest(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))
    squeezed = text.encode().lower().translate(_SPACES).strip(b" ")  # the same, in a third of the time
    while b"  " in squeezed:
        squeezed = squeezed.replace(b"  ", b" ")
    return xxhash.xxh3_128_digest(squeezed)


def split_key(exact: bytes, unit: str | None = None) -> int:
    """64 bits from which a document's split is drawn: a hash of its unit if it has one, else of its exact key.

    So texts that are equal but for case and spaces fall into the same split, whether or not duplicates are dropped.
    """
    return xxhash.xxh3_64_intdigest(exact if unit is None else unit.encode("utf-8", "surrogatepass"))


class Seen:
    """Remembers texts by a 128-bit hash of their words."""

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()

    def add(self, text: str) -> bool:
        """True where an equal text was added before."""
        digest = exact_key(text)
        known = digest in self._hashes
        self._hashes.add(digest)
        return known


def find_duplicates(
    exact: Sequence[Path], signatures: Sequence[Path] | None, *, threshold: float, work: Path
) -> Iterator[Flags]:
    """(documents,) for each chunk: 0 kept, 1 exact duplicate of an earlier document, 2 near duplicate of a kept one.

    `exact` are .npy files of (documents, 2) uint64, the exact keys of a chunk; `signatures`, None for exact duplicates
    alone, of (documents, num_permutations) uint32. Near: candidates of locality-sensitive hashing whose signatures
    agree in at least `threshold` of their numbers. Files of this function's own go below the folder `work`, and are
    removed at the end. A byte a document is held in memory, and some 300 MB besides.
    """
    keys = [_open(path) for path in exact]
    starts = np.cumsum([0, *map(len, keys)])
    flags = np.zeros(starts[-1], np.uint8)
    _mark_repeats(_blocks(keys, flags), flags, EXACT, work / "exact")
    if signatures is not None:
        _mark_near([_open(path) for path in signatures], flags, threshold, work)
    for start, stop in itertools.pairwise(starts):
        yield flags[start:stop]


def _open(path: Path) -> npt.NDArray[Any]:
    """Memory-mapped, unless there is nothing in it to map."""
    rows: npt.NDArray[Any]
    try:
        rows = np.load(path, mmap_mode="r")
    except ValueError:
        rows = np.load(path)
    return rows


def _blocks(chunks: Sequence[npt.NDArray[Any]], flags: Flags) -> Iterator[tuple[Records, npt.NDArray[Any]]]:
    """Numbers (n,) and rows (n, columns) of the documents without a flag, some at a time."""
    first = 0
    for rows in chunks:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[start : start + _ROWS_AT_ONCE]
            unflagged = np.flatnonzero(flags[first + start : first + start + len(block)] == KEPT)
            yield (first + start + unflagged).astype(np.uint64), np.asarray(block[unflagged])
        first += len(rows)


def _mark_repeats(blocks: Iterable[tuple[Records, Records]], flags: Flags, flag: int, folder: Path) -> None:
    """Flag each document, given with its (n, 2) key, whose key is also that of an earlier one."""
    num_parts = parts_for(len(flags))
    with Spill(folder, num_parts=num_parts, width=3) as spill:
        for numbers, keys in blocks:
            spill.add(np.column_stack([keys, numbers]), parts_of(keys[:, 0], num_parts))
        for part in spill.parts():
            records = part[np.lexsort(part.T[::-1])]
            repeats = np.flatnonzero((records[1:, :2] == records[:-1, :2]).all(axis=1)) + 1
            flags[records[repeats, 2]] = flag


def _mark_near(chunks: Sequence[Signatures], flags: Flags, threshold: float, work: Path) -> None:
    """Flag near duplicates: candidates of each band are compared, and decided in the order of the corpus."""
    # Equal signatures first: each is near to whatever the other is near to, so one of them is enough to compare.
    hashed = ((numbers, _hashed(rows, num_keys=2)) for numbers, rows in _blocks(chunks, flags))
    _mark_repeats(hashed, flags, NEAR, work / "equal")
    num_parts = parts_for(_PAIRS_EXPECTED * len(flags))
    with Spill(work / "pairs", num_parts=num_parts, width=2) as spill:
        for pairs in _near_pairs(chunks, flags, threshold, work / "bands"):
            spill.add(pairs, (pairs[:, 0] * num_parts // len(flags)).astype(np.int64))
        for part in spill.parts():
            pairs = part[np.lexsort(part.T[::-1])]
            for start in range(0, len(pairs), _PAIRS_AT_ONCE):
                for later, earlier in pairs[start : start + _PAIRS_AT_ONCE].tolist():
                    if flags[earlier] == KEPT:
                        flags[later] = NEAR


def _near_pairs(chunks: Sequence[Signatures], flags: Flags, threshold: float, folder: Path) -> Iterator[Records]:
    """(pairs, 2) of the later and the earlier document, for those that share a band and are as near as wanted."""
    num_permutations = max((rows.shape[1] for rows in chunks), default=1)
    num_bands, width = bands_and_rows(num_permutations, threshold)
    starts = np.cumsum([0, *map(len, chunks)])
    num_parts = parts_for(len(flags), times=num_bands)
    with Spill(folder, num_parts=num_bands * num_parts, width=2) as spill:
        for numbers, rows in _blocks(chunks, flags):
            for band in range(num_bands):
                keys = _hashed(rows[:, band * width : (band + 1) * width], num_keys=1)[:, 0]
                spill.add(np.column_stack([keys, numbers]), band * num_parts + parts_of(keys, num_parts))
        for part in spill.parts():
            for pairs in _candidates(part[np.lexsort(part.T[::-1])]):
                equal = _gathered(chunks, starts, pairs[:, 0]) == _gathered(chunks, starts, pairs[:, 1])
                yield pairs[equal.mean(axis=1) >= threshold]


def _candidates(records: Records) -> Iterator[Records]:
    """(pairs, 2), later and earlier document, of those whose records (key, number), sorted, have the same key."""
    is_first = np.ones(len(records), np.bool_)
    is_first[1:] = records[1:, 0] != records[:-1, 0]
    firsts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    num_partners = np.minimum(np.arange(len(records)) - firsts, _MOST_COMPARED)
    ends = np.cumsum(num_partners)
    start = 0
    while start < len(records):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _PAIRS_AT_ONCE, "right")))
        partners = num_partners[start:stop]
        later = np.repeat(np.arange(start, stop), partners)
        place = np.arange(len(later)) - np.repeat(np.cumsum(partners) - partners, partners)
        if len(later):
            yield np.column_stack([records[later, 1], records[firsts[later] + place, 1]])
        start = stop


def _gathered(chunks: Sequence[Signatures], starts: npt.NDArray[np.int64], numbers: Records) -> Signatures:
    """(n, permutations): signatures of documents by their number in the corpus."""
    of_chunk = np.searchsorted(starts, numbers, "right") - 1
    found = np.empty((len(numbers), chunks[0].shape[1]), np.uint32)
    for chunk in np.unique(of_chunk):
        here = of_chunk == chunk
        found[here] = chunks[chunk][numbers[here].astype(np.int64) - starts[chunk]]
    return found


def _hashed(rows: npt.NDArray[Any], *, num_keys: int) -> Records:
    """(n, num_keys): multilinear hashes of rows of 32-bit numbers (Dietzfelbinger 1996)."""
    draws = np.random.PCG64(_SEED).random_raw(rows.shape[1] * num_keys).reshape(-1, num_keys)
    keys: Records = rows.astype(np.uint64) @ draws
    return keys
