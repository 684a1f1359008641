"""MinHash: a document as a short row of numbers from which its likeness to any other can be told.

The share of equal numbers in two signatures estimates the Jaccard similarity of the two sets of shingles (Broder 1997,
"On the resemblance and containment of documents"), with a standard deviation of sqrt(s (1 - s) / permutations): 0.035
for s = 0.8 and 128 permutations. A shingle is a run of words or, in Chinese, of characters.
"""

import math

import numpy as np
import numpy.typing as npt
import xxhash

from bertsmith.corpus.grams import gram_hashes, token_hashes

Signatures = npt.NDArray[np.uint32]

_SEED = 1997
_SHINGLES_AT_ONCE = 1024
"""Times 128 permutations of 4 bytes: half a megabyte, which stays in a core's cache."""


class MinHasher:
    """Signatures of texts; the same on every machine. Picklable."""

    def __init__(self, num_permutations: int = 128, shingle: int = 5):
        self.num_permutations = num_permutations
        self.shingle = shingle
        draws = np.random.PCG64(_SEED).random_raw(2 * num_permutations).reshape(2, -1)
        # x -> a x + b modulo 2**32 with odd a gives every x a place of its own: a permutation, 8 at a time in AVX2.
        self._factors = (draws[0] >> 32).astype(np.uint32)[:, None] | np.uint32(1)
        self._offsets = (draws[1] >> 32).astype(np.uint32)[:, None]

    def signature(self, text: str) -> Signatures:
        """(num_permutations,). A text shorter than a shingle is one shingle; so is one without a single word."""
        tokens = token_hashes(text)
        shingles = gram_hashes(tokens, min(self.shingle, max(len(tokens), 1)))
        if not len(shingles):
            shingles = np.array([xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))], np.uint64)
        places = np.unique((shingles >> np.uint64(32)).astype(np.uint32))
        least = np.full(self.num_permutations, 2**32 - 1, np.uint32)
        for start in range(0, len(places), _SHINGLES_AT_ONCE):
            permuted = self._factors * places[start : start + _SHINGLES_AT_ONCE] + self._offsets
            np.minimum(least, permuted.min(axis=1), out=least)
        return least


def bands_and_rows(num_permutations: int, threshold: float, *, recall: float = 0.99) -> tuple[int, int]:
    """How a signature is cut for locality-sensitive hashing: `bands` of `rows` numbers each.

    Two documents of similarity s agree in all rows of at least one band, and are compared, with probability
    1 - (1 - s**rows)**bands: an S-shaped curve (Leskovec, Rajaraman and Ullman, "Mining of massive datasets", 3.4.2).
    More rows save comparisons, so rows are as many as leave pairs at the threshold the wanted `recall`.
    """
    for rows in range(num_permutations, 1, -1):
        bands = num_permutations // rows
        if -math.expm1(bands * math.log1p(-(threshold**rows))) >= recall:
            return bands, rows
    return num_permutations, 1
