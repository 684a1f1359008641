"""CRC-32C (Castagnoli), as TensorFlow's files carry it, in NumPy: lanes side by side, then put together.

A CRC is linear over bits: that of two parts is that of the first, moved over as many zero bytes as the second has, xor
that of the second. `masked` is LevelDB's disguise of a CRC that is itself part of what a CRC is taken of.
"""

from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = npt.NDArray[np.uint32]
_POLYNOMIAL = 0x82F63B78
_LANES, _LANE_BYTES = 4096, 1024
_MASK_DELTA = 0xA282EAD8


def crc32c(data: npt.NDArray[np.uint8]) -> int:
    """Of (n,) bytes; some hundred megabytes a second."""
    crc, block = 0, _LANES * _LANE_BYTES
    for start in range(0, len(data) - block + 1, block):
        lanes = _of_lanes(data[start : start + block].reshape(_LANES, _LANE_BYTES))
        crc = _moved(np.array([crc], dtype=np.uint32), block)[0] ^ _joined(lanes, _LANE_BYTES)
    rest = data[len(data) - len(data) % block :]
    return int(_moved(np.array([crc], dtype=np.uint32), len(rest))[0] ^ _of_few(rest))


def masked(crc: int) -> int:
    """As it stands in a file."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@cache
def _table() -> Words:
    """(256,) CRC register after a byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def _of_lanes(lanes: npt.NDArray[np.uint8]) -> Words:
    """(lanes,) CRCs of (lanes, bytes)."""
    table, crc = _table(), np.full(len(lanes), 0xFFFFFFFF, dtype=np.uint32)
    for column in np.ascontiguousarray(lanes.T):
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    return ~crc


def _of_few(data: npt.NDArray[np.uint8]) -> np.uint32:
    """Of less than a block: as many lanes as are whole, and byte by byte what is left."""
    whole = len(data) // _LANE_BYTES
    crc = np.zeros(1, dtype=np.uint32)
    if whole:
        lanes = _of_lanes(data[: whole * _LANE_BYTES].reshape(whole, _LANE_BYTES))
        for lane in lanes:
            crc = _moved(crc, _LANE_BYTES) ^ lane
    rest = data[whole * _LANE_BYTES :]
    found: np.uint32 = (_moved(crc, len(rest)) ^ _of_lanes(rest[None]))[0]
    return found


def _joined(lanes: Words, width: int) -> np.uint32:
    """The CRC of all lanes end to end; their number is a power of two."""
    while len(lanes) > 1:
        lanes = _moved(lanes[::2], width) ^ lanes[1::2]
        width *= 2
    found: np.uint32 = lanes[0]
    return found


def _moved(crcs: Words, zero_bytes: int) -> Words:
    """CRCs over as many zero bytes more, in place of what follows."""
    moved = np.zeros_like(crcs)
    for bit, image in enumerate(_images(zero_bytes)):
        moved ^= np.where((crcs >> np.uint32(bit)) & 1, np.uint32(image), np.uint32(0))
    return moved


@cache
def _images(zero_bytes: int) -> tuple[int, ...]:
    """Where each of the 32 bits goes over so many zero bytes."""
    if zero_bytes == 0:
        return tuple(1 << bit for bit in range(32))
    if zero_bytes == 1:
        return tuple(int(_table()[(1 << bit) & 0xFF]) ^ ((1 << bit) >> 8) for bit in range(32))
    half = np.array(_images(zero_bytes // 2), dtype=np.uint32)
    whole = _moved(half, zero_bytes // 2)
    return tuple(map(int, _moved(whole, zero_bytes % 2)))
