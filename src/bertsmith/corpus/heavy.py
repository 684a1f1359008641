"""What a corpus is mostly made of, said in words: one line again and again, or documents dropped for one reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import xxhash

_HEAVY_SHARE = 0.05
_DROPPED_SHARE = 0.5
_SHOWN_CHARACTERS = 60


@dataclass
class HeavyLines:
    """The lines that hold most of a corpus's characters, in bounded memory.

    The mergeable summary of Misra and Gries (Agarwal et al. 2012, "Mergeable summaries"): weights of at most `capacity`
    lines after each compression; what is known of a line is too small by at most total / capacity. Merging the chunks
    in their order gives the same summary however many processes made them.
    """

    capacity: int = 256
    total: int = 0
    """Characters in all lines."""
    weights: dict[int, int] = field(default_factory=dict)
    """Hash of a line -> characters in it and its repetitions."""
    lines: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Hash of a line -> its start, and its length."""

    def add(self, text: str) -> None:
        """Count the lines of a document."""
        for line in text.split("\n"):
            if line:
                self._add(
                    xxhash.xxh3_64_intdigest(line.encode("utf-8", "surrogatepass")),
                    len(line),
                    (line[:_SHOWN_CHARACTERS], len(line)),
                )
        self._compress(at=4 * self.capacity)

    def merge(self, other: "HeavyLines") -> None:
        """Take in the summary of another chunk."""
        rest = other.total - sum(other.weights.values())
        for hashed, weight in other.weights.items():
            self._add(hashed, weight, other.lines[hashed])
        self.total += rest
        self._compress(at=self.capacity)

    def share(self) -> tuple[str, float]:
        """The start of the heaviest line that stands more than once, and the share of all characters that it makes up
        at least; `("", 0.0)` where none does.
        """
        repeated = [hashed for hashed, weight in self.weights.items() if weight > self.lines[hashed][1]]
        if not repeated:
            return "", 0.0
        hashed = max(repeated, key=lambda key: (self.weights[key], key))
        return self.lines[hashed][0], self.weights[hashed] / self.total

    def _add(self, hashed: int, weight: int, line: tuple[str, int]) -> None:
        self.total += weight
        self.weights[hashed] = self.weights.get(hashed, 0) + weight
        self.lines.setdefault(hashed, line)

    def _compress(self, *, at: int) -> None:
        """Take the weight of the heaviest line that has no room from all, and forget those with nothing left."""
        if len(self.weights) <= at:
            return
        least = sorted(self.weights.values(), reverse=True)[self.capacity]
        self.weights = {hashed: weight - least for hashed, weight in self.weights.items() if weight > least}
        self.lines = {hashed: self.lines[hashed] for hashed in self.weights}


def describe(heavy: HeavyLines, *, kept: int, dropped: Mapping[str, int]) -> list[str]:
    """Warnings for people, none where nothing is odd; `kept` documents, and how many were `dropped` by reason."""
    warnings = []
    line, share = heavy.share()
    if share >= _HEAVY_SHARE:
        warnings.append(
            f"the line {line!r} makes up {share:.0%} of the corpus; "
            "corpus.clean.boilerplate_documents leaves out what stands in many documents"
        )
    read = kept + sum(dropped.values())
    for reason, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
        if count > _DROPPED_SHARE * read:
            warnings.append(f"{count:,} of {read:,} documents ({count / read:.0%}) were dropped: {reason}")
    return warnings
