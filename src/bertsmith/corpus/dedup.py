"""Exact duplicates: texts that are equal but for case and spaces."""

import xxhash


class Seen:
    """Remembers texts by a 128-bit hash of their words."""

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()

    def add(self, text: str) -> bool:
        """True where an equal text was added before."""
        digest = xxhash.xxh3_128_digest(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))
        known = digest in self._hashes
        self._hashes.add(digest)
        return known
