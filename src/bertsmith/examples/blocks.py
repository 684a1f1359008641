"""Blocks: a few million tokens of whole documents in one Arrow file, memory-mapped when read.

    SPLIT-00000.arrow ...    one block each; every number in it counts from the block's own first token, span, document
    SPLIT.arrow              the index: how many of each a block has, and its share of the split's numbering

A file is one record batch of one row whose columns are lists, so that each column is one run of bytes in the file and,
mapped, one NumPy array that nobody has copied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bertsmith.errors import ArtifactError
from bertsmith.examples.draws import Int64

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """The columns of one block."""

    tokens: npt.NDArray[Any]
    """(tokens,) ids: uint16 where the vocabulary fits into 16 bits, else int32."""
    word_starts: npt.NDArray[np.uint8]
    """(tokens / 8,) a bit a token, lowest bit first: 1 where a word begins."""
    sentence_ends: npt.NDArray[np.int32]
    """(sentences,) token number after each sentence's last token."""
    document_ends: npt.NDArray[np.int32]
    span_ends: npt.NDArray[np.int32]
    """(spans,) the same for spans, which tile the block."""
    span_documents: npt.NDArray[np.int32]
    """(spans,) number of the document that a span is of."""

    def columns(self) -> Columns:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def starts_word(self, tokens: Int64) -> npt.NDArray[np.bool_]:
        """Does a word begin at each of these token numbers?"""
        bits = self.word_starts[tokens >> 3]
        return np.asarray((bits >> (tokens & 7).astype(np.uint8)) & 1).astype(np.bool_)


@dataclass(frozen=True)
class Index:
    """(blocks,) each: how much is in every block of a split."""

    tokens: Int64
    spans: Int64
    sentences: Int64
    documents: Int64

    @property
    def num_spans(self) -> int:
        return int(self.spans.sum())


def block_path(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05d}.arrow"


def index_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.arrow"


def write_columns(path: Path, columns: Columns) -> None:
    """One row of lists, uncompressed."""
    lists = [
        pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pa.array(values))
        for values in columns.values()
    ]
    batch = pa.record_batch(lists, names=list(columns))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def map_columns(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Raises `ArtifactError` for a file that is missing or torn."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        return {name: batch.column(name).values.to_numpy(zero_copy_only=True) for name in batch.schema.names}
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtifactError(
            f"{path} is missing or torn; remove {path.parent} and run its stage again ({error})"
        ) from error


def map_block(folder: Path, split: str, number: int) -> Block:
    return Block(**map_columns(block_path(folder, split, number)))


def read_index(folder: Path, split: str) -> Index:
    return Index(**map_columns(index_path(folder, split)))


def ranges(starts: Int64, lengths: Int64) -> Int64:
    """start, start + 1, ... of each range, one after the other: ranges([5, 9], [2, 1]) is [5, 6, 9]."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.repeat(starts - before, lengths) + np.arange(lengths.sum()))
