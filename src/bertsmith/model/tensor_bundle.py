"""TensorFlow's checkpoints (tensor bundles) without TensorFlow: PREFIX.index and PREFIX.data-00000-of-00001.

The index is a table as LevelDB has it: blocks of entries whose keys share prefixes, each with a masked CRC-32C, and
a footer that says where the block of blocks is. An entry is a variable's name and a `BundleEntryProto`: type, shape,
shard, place, size, masked CRC-32C of its bytes. Written down in tensorflow/core/util/tensor_bundle/tensor_bundle.h,
tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/lib/io/format.cc, and LevelDB's doc/table_format.md.

Nothing in a file is trusted: every place and size is compared with the file's before it is read, and whatever is not as
it should be is a `CheckpointError` that names the file.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bertsmith.errors import CheckpointError
from bertsmith.model.crc32c import crc32c, masked

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # kind of compression, CRC
_MOST_INDEX_BYTES = 64 << 20
_MOST_KEY_BYTES = 4096
_MOST_ENTRIES = 1_000_000
_MOST_DIMENSIONS = 8
_DTYPES = {1: torch.float32, 2: torch.float64, 3: torch.int32, 9: torch.int64, 14: torch.bfloat16, 19: torch.float16}
"""Number in TensorFlow's `DataType` -> what it is here."""


@dataclass(frozen=True)
class Entry:
    """Where a variable's numbers are."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    is_sliced: bool


class TensorBundle:
    """A checkpoint, opened: names and shapes are read, numbers only when asked for."""

    def __init__(self, prefix: Path):
        """`prefix`: the path without `.index`. Raises `CheckpointError` where the index is not whole."""
        self.prefix = prefix
        self.index = prefix.with_name(prefix.name + ".index")
        entries = dict(_entries(self.index))
        header = entries.pop("", None)
        if header is None:
            raise self._damaged("it has no header")
        try:
            fields = _fields(header)
            self._num_shards = _number(fields, 1, 1)
            if _number(fields, 2, 0) != 0:
                raise CheckpointError(f"{self.index}: numbers are big-endian, which no machine of today writes")
            self.entries = {name: _entry(raw) for name, raw in entries.items()}
        except ValueError as error:
            raise self._damaged(str(error)) from error
        if not 1 <= self._num_shards <= 99_999:
            raise self._damaged(f"it names {self._num_shards} files of numbers")

    def read(self, name: str) -> Tensor:
        """A variable's numbers, checked against their CRC. Raises `CheckpointError` naming it and the file."""
        entry = self.entries[name]
        dtype = _DTYPES.get(entry.dtype)
        if dtype is None or entry.is_sliced:
            what = "in slices" if entry.is_sliced else f"of TensorFlow's type {entry.dtype}"
            raise CheckpointError(f"{self.index}: {name} is stored {what}; only whole tensors of numbers can be read")
        if len(entry.shape) > _MOST_DIMENSIONS or min(entry.shape, default=0) < 0 or entry.shard >= self._num_shards:
            raise self._damaged(f"{name} has shape {entry.shape} in file {entry.shard} of {self._num_shards}")
        if entry.size != math.prod(entry.shape) * dtype.itemsize:
            raise self._damaged(f"{name} has {entry.size:,} bytes, and its shape {entry.shape} needs others")
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._num_shards:05d}")
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; copy or download the checkpoint again")
        if entry.offset < 0 or entry.offset + entry.size > path.stat().st_size:
            raise CheckpointError(
                f"{path} is cut off: {name} ends at byte {entry.offset + entry.size:,} of {path.stat().st_size:,}; "
                "copy or download the checkpoint again"
            )
        raw = np.fromfile(path, dtype=np.uint8, count=entry.size, offset=entry.offset)
        if masked(crc32c(raw)) != entry.crc:
            raise CheckpointError(
                f"{path} is damaged: the checksum of {name} is wrong; copy or download the checkpoint again"
            )
        return torch.from_numpy(raw).view(dtype).view(entry.shape) if entry.size else torch.empty(entry.shape).to(dtype)

    def _damaged(self, what: str) -> CheckpointError:
        return _damaged(self.index, what)


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or no index of a TensorFlow checkpoint ({what}); copy or download it again"
    )


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, value) of a table file."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the folder of a TensorFlow checkpoint, or its prefix")
    size = path.stat().st_size
    if not _FOOTER_BYTES <= size <= _MOST_INDEX_BYTES:
        raise _damaged(path, f"{size:,} bytes")
    data, count = path.read_bytes(), 0
    try:
        footer = data[-_FOOTER_BYTES:]
        if int.from_bytes(footer[-8:], "little") != _MAGIC:
            raise ValueError("its last bytes are others")
        (offset, length), place = _handle(footer, 0)
        list(_block(data, offset, length))  # of other things than entries: read for its checksum
        (offset, length), _ = _handle(footer, place)
        for _, handle in _block(data, offset, length):
            (offset, length), _ = _handle(handle, 0)
            for key, value in _block(data, offset, length):
                count += 1
                if count > _MOST_ENTRIES:
                    raise ValueError(f"more than {_MOST_ENTRIES:,} entries")
                yield key.decode("utf-8"), value
    except ValueError as error:  # UnicodeDecodeError too
        raise _damaged(path, str(error)) from error


def _block(data: bytes, offset: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of the block at `offset`, whose trailer is checked."""
    if offset + length + _TRAILER_BYTES > len(data):
        raise ValueError(f"a block ends after the file, at byte {offset + length:,}")
    content, kind = data[offset : offset + length], data[offset + length]
    stored = int.from_bytes(data[offset + length + 1 : offset + length + _TRAILER_BYTES], "little")
    if masked(crc32c(np.frombuffer(data[offset : offset + length + 1], dtype=np.uint8))) != stored:
        raise ValueError(f"the checksum of the block at byte {offset:,} is wrong")
    if kind != 0:
        raise ValueError(f"the block at byte {offset:,} is compressed, which TensorFlow's own are not")
    restarts = int.from_bytes(content[-4:], "little")
    end = length - 4 * (restarts + 1)
    if end < 0:
        raise ValueError(f"the block at byte {offset:,} has {restarts:,} restarts in {length:,} bytes")
    place, key = 0, b""
    while place < end:
        shared, place = _varint(content, place)
        fresh, place = _varint(content, place)
        size, place = _varint(content, place)
        if shared > len(key) or shared + fresh > _MOST_KEY_BYTES or place + fresh + size > end:
            raise ValueError(f"an entry of the block at byte {offset:,} is longer than its block")
        key = key[:shared] + content[place : place + fresh]
        place += fresh
        yield key, content[place : place + size]
        place += size


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """(offset, length) of a block, and where its handle ends."""
    offset, place = _varint(data, place)
    length, place = _varint(data, place)
    return (offset, length), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("a number has no end")


def _fields(data: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protobuf message by number: whole numbers, or bytes of what has a length."""
    found: dict[int, list[int | bytes]] = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, place = _varint(data, place)
        elif kind in (1, 2, 5):
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, place = _varint(data, place)
            if place + size > len(data):
                raise ValueError("a field is longer than its message")
            value = data[place : place + size] if kind == 2 else int.from_bytes(data[place : place + size], "little")
            place += size
        else:
            raise ValueError(f"a field of kind {kind}")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _number(fields: dict[int, list[int | bytes]], field: int, default: int = 0) -> int:
    value = fields.get(field, [default])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value - (1 << 64) if value >= 1 << 63 else value


def _messages(fields: dict[int, list[int | bytes]], field: int) -> list[bytes]:
    values = fields.get(field, [])
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError(f"field {field} is no message")
    return [value for value in values if isinstance(value, bytes)]


def _entry(raw: bytes) -> Entry:
    """A BundleEntryProto."""
    fields = _fields(raw)
    shapes = _messages(fields, 2)
    dims = _messages(_fields(shapes[-1]), 2) if shapes else []
    return Entry(
        dtype=_number(fields, 1),
        shape=tuple(_number(_fields(dim), 1) for dim in dims),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc=_number(fields, 6),
        is_sliced=7 in fields,
    )
