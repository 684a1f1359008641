"""What is in a finished corpus: counts from its manifest, and documents by number or by what they hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bertsmith.artifact import open_artifact
from bertsmith.corpus.build import KIND, read_documents
from bertsmith.corpus.document import Document, Split
from bertsmith.errors import UsageError

_DUPLICATE = "duplicate"


@dataclass(frozen=True)
class CorpusStats:
    """What the manifest of a corpus says."""

    documents: int
    sentences: int
    characters: int
    splits: dict[str, int]
    lengths: dict[str, int]
    """Documents by length: `below 1024` counts those of 512 to 1023 characters."""
    dropped: dict[str, int]
    """Documents that were left out, by reason, the commonest first."""
    cleaned: dict[str, int]
    """What cleaning changed, by kind."""
    sources: dict[str, dict[str, int]]
    """Documents and characters of each source, the largest first."""

    @property
    def duplicates(self) -> int:
        return sum(number for reason, number in self.dropped.items() if _DUPLICATE in reason)


def corpus_dir(path: Path) -> Path:
    """`path`, or the corpus of the run that it is."""
    return path if (path / "manifest.json").is_file() or not (path / KIND).is_dir() else path / KIND


def corpus_stats(path: Path) -> CorpusStats:
    """Counts of the corpus at `path` (a corpus, or a run that has one). Raises `ArtifactError` where there is none."""
    counts = open_artifact(corpus_dir(path), KIND, verify=False).counts
    return CorpusStats(
        documents=counts["documents"],
        sentences=counts["sentences"],
        characters=counts["characters"],
        splits=counts["splits"],
        lengths=dict(sorted(counts["lengths"].items(), key=lambda item: int(item[0].split()[1]))),
        dropped=_commonest_first(counts["dropped"]),
        cleaned=_commonest_first(counts["cleaned"]),
        sources=dict(sorted(counts["sources"].items(), key=lambda item: (-item[1]["characters"], item[0]))),
    )


def find_documents(path: Path, *, grep: str | None = None, split: str | None = None) -> Iterator[Document]:
    """Documents of a corpus in order, all or those in whose text the regular expression `grep` is found.

    Raises `UsageError` for a pattern or a split that is none.
    """
    if split is not None and split not in get_args(Split):
        raise UsageError(f"there is no split {split!r}; use {', '.join(get_args(Split))}")
    try:
        pattern = re.compile(grep or "")
    except re.error as error:
        raise UsageError(f"--grep {grep!r} is no regular expression: {error}") from error
    for document in read_documents(corpus_dir(path), split):
        if pattern.search(document.text):
            yield document


def _commonest_first(counts: dict[str, Any]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
