"""The second pass over a chunk: what was chosen of its documents becomes parts of the corpus, and is counted."""

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bertsmith.corpus.document import Document, Split
from bertsmith.corpus.prepare import SCHEMA, parquet_writer, write_reject

TAKEN, DUPLICATE, NEAR_DUPLICATE, LEFT_BY_WEIGHT, PAST_THE_LAST = range(5)
REASONS = {
    DUPLICATE: "duplicate",
    NEAR_DUPLICATE: "near duplicate",
    LEFT_BY_WEIGHT: "mixing weight",
    PAST_THE_LAST: "past max_documents",
}


@dataclass(frozen=True)
class FinishTask:
    """A prepared chunk, and what becomes of each of its documents."""

    piece: Path
    part_rows: Sequence[int]
    """Documents of each of the piece's parts."""
    fates: npt.NDArray[np.uint8]
    """(documents,) `TAKEN`, or why not."""
    copies: npt.NDArray[np.uint8]
    """(documents,) how often each is written; 0 where it is not taken."""
    splits: npt.NDArray[np.uint8]
    """(documents,) index into `SPLITS`."""
    out: Path
    first_part: int
    rejects: Path | None = None
    """Where rows that are not taken go, with their reason."""


SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass
class KeptCounts:
    """What the manifest says of the documents that were kept."""

    documents: int = 0
    sentences: int = 0
    characters: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    """Documents by the power of two that their characters are below."""
    sources: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, other: "KeptCounts") -> None:
        self.documents += other.documents
        self.sentences += other.sentences
        self.characters += other.characters
        self.splits += other.splits
        self.lengths += other.lengths
        for name, counts in other.sources.items():
            self.sources.setdefault(name, Counter()).update(counts)

    def summary(self, *, most_sources: int) -> dict[str, Any]:
        largest = sorted(self.sources.items(), key=lambda item: (-item[1]["characters"], item[0]))
        named = {name: dict(counts) for name, counts in sorted(largest[:most_sources])}
        if rest := largest[most_sources:]:
            named[f"{len(rest)} others"] = dict(sum((counts for _, counts in rest), Counter()))
        return {
            "documents": self.documents,
            "sentences": self.sentences,
            "characters": self.characters,
            "splits": dict(sorted(self.splits.items())),
            "lengths": {f"below {1 << power}": self.lengths[power] for power in sorted(self.lengths)},
            "sources": named,
        }


def finish_chunk(task: FinishTask) -> KeptCounts:
    """Write the chunk's parts into `task.out`, numbered from `task.first_part` on; those without rows are left out."""
    counts = KeptCounts()
    facts = np.load(task.piece / "facts.npy")
    number, first = task.first_part, 0
    with contextlib.ExitStack() as stack:
        rejects = None if task.rejects is None else stack.enter_context(task.rejects.open("w", encoding="utf-8"))
        for part, num_rows in enumerate(task.part_rows):
            source = task.piece / f"rows-{part:03d}.parquet"
            rows = slice(first, first + num_rows)
            first += num_rows
            if task.copies[rows].any():
                _write_part(source, task.out / f"part-{number:05d}.parquet", task.copies[rows], task.splits[rows])
                number += 1
            _count_sources(counts, source, facts["characters"][rows], task.copies[rows])
            if rejects is not None:
                _write_rejects(rejects, source, task.fates[rows])
    _count(counts, facts, task.copies, task.splits)
    return counts


def _write_part(source: Path, out: Path, copies: npt.NDArray[np.uint8], splits: npt.NDArray[np.uint8]) -> None:
    """The part as it was prepared, or with the rows chosen."""
    with pq.ParquetFile(source) as file:
        as_it_is = bool((copies == 1).all()) and _splits_of(file) == [SPLITS[index] for index in splits]
        if not as_it_is:
            with parquet_writer(out) as writer:
                first = 0
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    rows = slice(first, first + table.num_rows)
                    first += table.num_rows
                    chosen = _chosen(table, copies[rows], splits[rows])
                    if chosen.num_rows:
                        writer.write_table(chosen)
    if as_it_is:
        out.unlink(missing_ok=True)  # of this very task, where it is run a second time
        try:
            os.link(source, out)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, out)


def _chosen(table: pa.Table, copies: npt.NDArray[np.uint8], splits: npt.NDArray[np.uint8]) -> pa.Table:
    """Rows as often as `copies` says; the second copy of a document is named `ID~2`."""
    named = pa.array([SPLITS[index] for index in splits], pa.string())
    table = table.set_column(SCHEMA.get_field_index("split"), "split", named)
    chosen = table.take(pa.array(np.repeat(np.arange(len(copies)), copies)))
    if copies.max(initial=0) > 1:
        numbers = np.concatenate([np.arange(1, count + 1) for count in copies]) if len(copies) else copies
        ids = [name if k == 1 else f"{name}~{k}" for name, k in zip(chosen["id"].to_pylist(), numbers, strict=True)]
        chosen = chosen.set_column(0, "id", pa.array(ids, pa.string()))
    return chosen.cast(SCHEMA)


def _splits_of(file: pq.ParquetFile) -> list[str]:
    return list(file.read(columns=["split"]).column("split").to_pylist())


def _count(
    counts: KeptCounts, facts: npt.NDArray[Any], copies: npt.NDArray[np.uint8], splits: npt.NDArray[np.uint8]
) -> None:
    times = copies.astype(np.int64)
    counts.documents = int(times.sum())
    counts.sentences = int((facts["sentences"] * times).sum())
    counts.characters = int((facts["characters"] * times).sum())
    for index, name in enumerate(SPLITS):
        if number := int(times[splits == index].sum()):
            counts.splits[name] = number
    powers = np.ceil(np.log2(facts["characters"] + 1)).astype(np.int64)
    for power, number in enumerate(np.bincount(powers, weights=times)):
        if number:
            counts.lengths[power] = int(number)


def _count_sources(
    counts: KeptCounts, part: Path, characters: npt.NDArray[np.int64], copies: npt.NDArray[np.uint8]
) -> None:
    times = copies.astype(np.int64)
    source = pq.read_table(part, columns=["source"])["source"]
    table = pa.table({"source": source, "documents": times, "characters": characters * times})
    grouped = table.group_by("source").aggregate([("documents", "sum"), ("characters", "sum")])
    for row in grouped.to_pylist():
        if row["documents_sum"]:
            found = counts.sources.setdefault(row["source"], Counter())
            found.update(documents=row["documents_sum"], characters=row["characters_sum"])


def _write_rejects(out: TextIO, part: Path, fates: npt.NDArray[np.uint8]) -> None:
    first = 0
    with pq.ParquetFile(part) as file:
        for batch in file.iter_batches(columns=["id", "text", "source"]):
            for row, fate in zip(batch.to_pylist(), fates[first : first + len(batch)], strict=True):
                if fate != TAKEN:
                    write_reject(out, Document(row["id"], row["text"], row["source"], (), "train"), REASONS[int(fate)])
            first += len(batch)
