"""TensorFlow's checkpoints are read without it: files that it wrote, and those of a writer by the book."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.errors import CheckpointError
from bertsmith.model.crc32c import crc32c, masked
from bertsmith.model.tensor_bundle import TensorBundle
from bundle_case import Odd, entry_of, write_bundle
from bundle_case import crc32c as crc32c_slowly
from bundle_case import masked as masked_slowly
from tf1_case import FIXTURE, weights


def bundle(folder: Path, tensors: dict[str, object], odd: Odd | None = None) -> TensorBundle:
    write_bundle(folder / "some.ckpt", tensors, odd)
    return TensorBundle(folder / "some.ckpt")


def test_checksums() -> None:
    assert crc32c(np.frombuffer(b"123456789", dtype=np.uint8)) == 0xE3069283
    draw = np.random.default_rng(0)
    for count in (0, 1, 1023, 1024, 1025, 5000):
        data = draw.integers(0, 256, count, dtype=np.uint8)
        assert crc32c(data) == crc32c_slowly(data.tobytes())
        assert masked(crc32c(data)).to_bytes(4, "little") == masked_slowly(data.tobytes())


def test_checksums_of_much() -> None:
    """Whole blocks of lanes, and what is left; a CRC of zeros can be told by moving alone."""
    size = 4096 * 1024
    data = np.zeros(2 * size + 3000, dtype=np.uint8)
    data[:9] = np.frombuffer(b"123456789", dtype=np.uint8)
    whole = crc32c(data)
    assert whole == _over_zeros(0xE3069283, len(data) - 9)
    data[-1] ^= 1
    assert crc32c(data) != whole


def _over_zeros(crc: int, count: int) -> int:
    """By squaring a matrix over GF(2), as zlib's crc32_combine does."""
    register = crc ^ 0xFFFFFFFF
    matrix = [_byte(1 << bit) for bit in range(32)]
    while count:
        if count & 1:
            register = _times(matrix, register)
        matrix = [_times(matrix, column) for column in matrix]
        count >>= 1
    return register ^ 0xFFFFFFFF


def _byte(register: int) -> int:
    for _ in range(8):
        register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register


def _times(matrix: list[int], vector: int) -> int:
    found = 0
    for bit in range(32):
        if vector >> bit & 1:
            found ^= matrix[bit]
    return found


def test_what_tensorflow_wrote() -> None:
    found = TensorBundle(FIXTURE / "bert_model.ckpt")
    for name, value in weights().items():
        assert np.array_equal(found.read(name).numpy(), value), name
    assert found.read("global_step") == 20


def test_types_and_many_blocks(tmp_path: Path) -> None:
    half = np.arange(6, dtype=np.float16).reshape(2, 3)
    brain = torch.arange(4.0).to(torch.bfloat16)
    tensors = {f"layer/{n}/{n * 'x'}": np.full((n, 2), n, dtype=np.float32) for n in range(40)}
    tensors |= {"half": half, "one": np.float64(3.5).reshape(()), "whole": np.arange(3, dtype=np.int64)}
    found = bundle(tmp_path, tensors | {"brain": ("bfloat16", (4,), brain.view(torch.int16).numpy().tobytes())})
    for name, value in tensors.items():
        assert found.read(name).shape == value.shape
        assert np.array_equal(found.read(name).numpy(), value), name
    assert torch.equal(found.read("brain"), brain)


ONE = {"a": np.ones(3, dtype=np.float32)}
RAW = ONE["a"].tobytes()


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Odd(header=b"\x08\x01\x10\x01"), "numbers are big-endian"),
        (Odd(header=b"\x08\x00"), "it names 0 files of numbers"),
        (Odd(compression=1), "is compressed"),
        (Odd(header=b"\x08"), "a number has no end"),
        (Odd(header=b"\x0a\x7f\x00"), "a field is longer than its message"),
        (Odd(entry={"a": entry_of(7, (3,), 0, RAW)}), "a is stored of TensorFlow's type 7; only whole tensors"),
        (Odd(entry={"a": entry_of(1, (3,), 0, RAW) + b"\x3a\x00"}), "a is stored in slices"),
        (Odd(entry={"a": entry_of(1, (4,), 0, RAW)}), r"a has 12 bytes, and its shape \(4,\) needs others"),
        (
            Odd(entry={"a": entry_of(1, (1 << 40,), 0, RAW, size=1 << 42)}),
            "is cut off: a ends at byte 4,398,046,511,104",
        ),
        (Odd(entry={"a": entry_of(1, (3,), 4, RAW)}), "is cut off: a ends at byte 16 of 12"),
        (Odd(entry={"a": entry_of(1, (3,), (1 << 64) - 4, RAW)}), "is cut off"),
        (Odd(entry={"a": entry_of(1, ((1 << 64) - 1,), 0, RAW)}), r"a has shape \(-1,\)"),
        (Odd(entry={"a": entry_of(1, (1,) * 9, 0, RAW)}), r"a has shape \(1, 1, "),
        (Odd(entry={"a": entry_of(1, (3,), 0, RAW[:-1] + b"\x00")}), "the checksum of a is wrong"),
        (Odd(entry={"a": entry_of(1, (3,), 0, RAW) + b"\x18\x01"}), "in file 1 of 1"),
        (Odd(entry={"a": b"\x08\x01\x12\x02\x10\x01\x28\x00"}), "field 2 is no message"),
    ],
)
def test_what_is_not_as_it_should_be(tmp_path: Path, odd: Odd, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        bundle(tmp_path, dict(ONE), odd).read("a")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"some\.ckpt\.index does not exist; give the folder of a TensorFlow"):
        TensorBundle(tmp_path / "some.ckpt")
    found = bundle(tmp_path, dict(ONE))
    (tmp_path / "some.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"some\.ckpt\.data-00000-of-00001 is missing; copy or download"):
        found.read("a")


def test_keys_cannot_grow_without_end(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"an entry of the block at byte .* is longer than its block"):
        bundle(tmp_path, {"a" * 5000: ONE["a"]})
