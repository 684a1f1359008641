"""More training rows out of those there are: changed copies that keep the label (`edits`, `replace_words`).

A copy is a pure function of the seed, the row's words and the copy's number: not of other copies, nor of the order of
the rows. Only what may be inserted hangs on the other training rows. Copies are made of training rows alone, after
validation rows were split off.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bertsmith.config import AugmentConfig
from bertsmith.progress import Report
from bertsmith.runtime import Runtime, derive_seed
from bertsmith.tasks.edits import EDITS, Draws, Editor, Segments, row_of, segments_of, tags_of
from bertsmith.tasks.replace_words import WordReplacer
from bertsmith.tasks.rows import TaggedRow, TextRow

REPLACE = "replace"


@dataclass(frozen=True)
class Copy:
    """A row made from another."""

    row: Any
    source: int
    """Number of the row that it is made from, from 0."""
    method: str


def copies_of(
    rows: Sequence[Any],
    config: AugmentConfig,
    *,
    seed: int,
    runtime: Runtime | None = None,
    progress: Report = lambda _done, _total: None,
) -> Iterator[Copy]:
    """`copies` of each row, in their order; fewer of a row in which no method can change anything.

    The methods take turns, and which of them a row begins with hangs on its words. `progress` is told of characters.
    """
    tags = tags_of(rows)
    cut = [segments_of(row, tags) for row in rows]
    editor = Editor.of(cut, tags, config.rate)
    edits: dict[str, Callable[[Segments, Draws], Segments | None]] = {}
    if config.model is not None:
        replacer = WordReplacer.load(config.model, cut, top_k=config.top_k, runtime=runtime)
        edits[REPLACE] = lambda segments, draws: replacer.replace(segments, draws, editor.changes(segments))
    for name in set(config.methods) & EDITS.keys():
        edits[name] = lambda segments, draws, edit=EDITS[name]: edit(editor, segments, draws)  # type: ignore[misc]
    total, done = sum(len(row.content) for row in rows), 0
    for number, (row, segments) in enumerate(zip(rows, cut, strict=True)):
        first = derive_seed("augment", seed, row.content) % len(config.methods)
        for copy in range(config.copies):
            for turn in range(len(config.methods)):
                method = config.methods[(first + copy + turn) % len(config.methods)]
                changed = edits[method](segments, Draws("augment", seed, row.content, copy, method))
                if changed is not None:
                    yield Copy(row_of(row, changed), number, method)
                    break
        done += len(row.content)
        progress(done, total)


def told(rows: Sequence[Any], copies: Sequence[Copy], *, samples: int = 2) -> Iterator[str]:
    """Lines for a person: how many copies, and of each method the first few beside their originals."""
    counts = Counter(copy.method for copy in copies)
    unchanged = len(rows) - len({copy.source for copy in copies})
    parts = ", ".join(f"{method} {count:,}" for method, count in sorted(counts.items()))
    none = f"; {unchanged:,} rows have none: nothing in them can be changed" if unchanged else ""
    yield f"augmented  {len(rows):,} training rows and {len(copies):,} copies ({parts or 'none'}){none}"
    for method in sorted(counts):
        for copy in [copy for copy in copies if copy.method == method][:samples]:
            yield f"           {'original':<8} {in_words(rows[copy.source])}"
            yield f"           {method:<8} {in_words(copy.row)}"


def in_words(row: TextRow[Any] | TaggedRow) -> str:
    """A row as a person reads it, with its tags."""
    if isinstance(row, TaggedRow):
        pairs = zip(row.words, row.labels or (), strict=True)
        return " ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in pairs)
    return row.text if row.pair is None else f"{row.text} | {row.pair}"
