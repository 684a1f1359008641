"""Named tensors in safetensors files, a file a rank, and an index by which any number of ranks reads them back.

An index maps each tensor to its dtype, its global shape and the pieces it is made of, which tile it:

    {"bert.pooler.dense.weight": {
        "dtype": "float32",
        "shape": [256, 256],
        "pieces": [
            {"file": "model-00001-of-00002.safetensors", "offset": [0, 0], "shape": [128, 256]},
            {"file": "model-00002-of-00002.safetensors", "offset": [128, 0], "shape": [128, 256]}]}}

In its file a piece has the name of the tensor.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bertsmith.errors import CheckpointError

Index = dict[str, dict[str, Any]]
Block = tuple[tuple[int, ...], tuple[int, ...]]
"""Where it begins in each dimension, and its shape."""


@dataclass(frozen=True)
class Piece:
    """The block of a tensor of `global_shape` that begins at `offset`, an index for each dimension."""

    tensor: Tensor
    offset: tuple[int, ...]
    global_shape: tuple[int, ...]

    @classmethod
    def whole(cls, tensor: Tensor) -> "Piece":
        return cls(tensor, (0,) * tensor.ndim, tuple(tensor.shape))


def file_name(kind: str, rank: int, world_size: int) -> str:
    """`model.safetensors`, or of several ranks `model-00001-of-00004.safetensors`."""
    return f"{kind}.safetensors" if world_size == 1 else f"{kind}-{rank + 1:05d}-of-{world_size:05d}.safetensors"


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> Index:
    """Write one rank's pieces, at most one of each tensor; the part of the index that tells of them."""
    kept = {name: piece for name, piece in pieces.items() if piece.tensor.numel()}
    save_file({name: piece.tensor.contiguous() for name, piece in kept.items()}, path)
    return {
        name: {
            "dtype": str(piece.tensor.dtype).removeprefix("torch."),
            "shape": list(piece.global_shape),
            "pieces": [{"file": path.name, "offset": list(piece.offset), "shape": list(piece.tensor.shape)}]
            if name in kept
            else [],
        }
        for name, piece in pieces.items()
    }


def merged(parts: Sequence[Index]) -> Index:
    """The index of all ranks' files. Raises `CheckpointError` where pieces of a tensor do not tile it."""
    index: Index = {}
    for part in parts:
        for name, entry in part.items():
            whole = index.setdefault(name, {**entry, "pieces": []})
            if (whole["dtype"], whole["shape"]) != (entry["dtype"], entry["shape"]):
                raise CheckpointError(
                    f"ranks disagree on {name!r}: {whole['dtype']} of shape {whole['shape']}, "
                    f"{entry['dtype']} of shape {entry['shape']}"
                )
            whole["pieces"].extend(entry["pieces"])
    for name, entry in index.items():
        _check_tiles(name, entry)
    return index


class TensorFiles:
    """The tensors of an index, read whole or in part; a context manager that keeps files open.

    Raises `CheckpointError` where the pieces of a tensor do not tile it.
    """

    def __init__(self, directory: Path, index: Index):
        for name, entry in index.items():
            _check_tiles(name, entry)
        self._directory = directory
        self._index = index
        self._open: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._index[name]["shape"])

    def read(self, name: str, block: Block | None = None) -> Tensor:
        """A tensor, or a block of it, put together from as many files as hold some of it."""
        entry = self._index[name]
        start, shape = block or ((0,) * len(entry["shape"]), tuple(entry["shape"]))
        result = torch.empty(shape, dtype=getattr(torch, entry["dtype"]))
        for piece in entry["pieces"]:
            common = _overlap((start, shape), (tuple(piece["offset"]), tuple(piece["shape"])))
            if common is not None:
                source = self._read(piece, name, _within(common, tuple(piece["offset"])))
                result[_within(common, start)] = source
        return result

    def _read(self, piece: Mapping[str, Any], name: str, where: tuple[slice, ...]) -> Tensor:
        file = piece["file"]
        if file not in self._open:
            self._open[file] = self._stack.enter_context(safe_open(self._directory / file, "pt"))
        found: Tensor = self._open[file].get_slice(name)[where] if where else self._open[file].get_tensor(name)
        return found


def _overlap(one: Block, other: Block) -> Block | None:
    """The block in both, or None."""
    starts = tuple(max(a, b) for a, b in zip(one[0], other[0], strict=True))
    ends = (min(a + n, b + m) for a, n, b, m in zip(*one, *other, strict=True))
    shape = tuple(end - start for start, end in zip(starts, ends, strict=True))
    return (starts, shape) if all(size > 0 for size in shape) else None


def _within(block: Block, start: Sequence[int]) -> tuple[slice, ...]:
    """Slices of a block in a tensor whose first element is at `start`."""
    return tuple(slice(at - first, at - first + size) for at, size, first in zip(*block, start, strict=True))


def _check_tiles(name: str, entry: Mapping[str, Any]) -> None:
    """Pieces inside the shape, no two of which meet, and which have as many elements as the whole: they tile it."""
    shape = tuple(entry["shape"])
    blocks: list[Block] = [(tuple(piece["offset"]), tuple(piece["shape"])) for piece in entry["pieces"]]
    inside = all(
        len(start) == len(size) == len(shape)
        and all(at >= 0 and at + n <= most for at, n, most in zip(start, size, shape, strict=True))
        for start, size in blocks
    )
    apart = inside and not any(_overlap(one, other) for at, one in enumerate(blocks) for other in blocks[:at])
    if not apart or sum(math.prod(size) for _, size in blocks) != math.prod(shape):
        raise CheckpointError(f"the pieces of {name!r} do not make up its shape {list(shape)}")
