"""A writer of TensorFlow's checkpoints by the book, and of wrong ones: independent of the reader, slow, for tests.

By tensorflow/core/util/tensor_bundle/tensor_bundle.h, tensor_bundle.proto, and LevelDB's doc/table_format.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19, "bfloat16": 14}


@dataclass(frozen=True)
class Odd:
    """What is written otherwise than it should be."""

    header: bytes = b"\x08\x01\x1a\x02\x08\x01"  # one shard, little-endian, version 1
    entry: Mapping[str, bytes] | None = None
    """Name -> its entry in place of the right one."""
    compression: int = 0
    block_entries: int = 5
    """Entries of a block."""


def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def entry_of(dtype: int, shape: tuple[int, ...], offset: int, data: bytes, *, size: int | None = None) -> bytes:
    dims = b"".join(b"\x12" + varint(len(dim)) + dim for dim in (b"\x08" + varint(one) for one in shape))
    place = (b"\x20" + varint(offset) if offset else b"") + b"\x28" + varint(len(data) if size is None else size)
    return b"\x08" + varint(dtype) + b"\x12" + varint(len(dims)) + dims + place + b"\x35" + masked(data)


def block_of(entries: list[tuple[bytes, bytes]]) -> bytes:
    content, last = b"", b""
    for key, value in entries:
        shared = next((n for n, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return content + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def write_bundle(prefix: Path, tensors: Mapping[str, Any], odd: Odd | None = None) -> None:
    """`tensors`: name -> array, or (name of a type, shape, bytes)."""
    odd, data, entries = odd or Odd(), b"", []
    for name, value in sorted(tensors.items()):
        if not isinstance(value, tuple):
            value = (value.dtype.name, value.shape, value.tobytes())
        kind, shape, raw = value
        entries.append((name.encode(), entry_of(TYPES[kind], shape, len(data), raw)))
        data += raw
    entries = [(key, (odd.entry or {}).get(key.decode(), value)) for key, value in entries]
    entries = [(b"", odd.header), *entries]
    file, handles = b"", []

    def place(block: bytes) -> bytes:
        nonlocal file
        whole = block + bytes([odd.compression])
        handle = varint(len(file)) + varint(len(block))
        file += whole + masked(whole)
        return handle

    for start in range(0, len(entries), odd.block_entries):
        some = entries[start : start + odd.block_entries]
        handles.append((some[-1][0], place(block_of(some))))
    footer = place(block_of([])) + place(block_of(handles))
    file += footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    prefix.with_name(prefix.name + ".index").write_bytes(file)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
