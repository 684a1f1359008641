"""Torn, cut and hostile TensorFlow checkpoints: a sentence that names the file, nothing left, memory bounded."""

import contextlib
import random
import shutil
import tracemalloc
from pathlib import Path

import pytest

from bertsmith.errors import BertsmithError, CheckpointError
from bertsmith.export.bring_in import import_tf1
from bertsmith.model.tensor_bundle import TensorBundle
from tf1_case import FIXTURE

INDEX, DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"


def spoilt(folder: Path, name: str, content: bytes) -> Path:
    shutil.copytree(FIXTURE, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def read_all(folder: Path) -> None:
    bundle = TensorBundle(folder / "bert_model.ckpt")
    for name in bundle.entries:
        bundle.read(name)


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    whole = (FIXTURE / name).read_bytes()
    for size in {0, 1, 47, 48, *random.Random(0).sample(range(len(whole)), 30), len(whole) - 1}:
        with pytest.raises(CheckpointError, match=r"copy or download|is missing"):
            read_all(spoilt(tmp_path / "bad", name, whole[:size]))


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_any_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    """Each byte but those between the footer's two places and its end stands under a checksum."""
    whole, draw = (FIXTURE / name).read_bytes(), random.Random(1)
    for place in draw.sample(range(len(whole) - 48 * (name == INDEX)), 150 if name == INDEX else 30):
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            read_all(spoilt(tmp_path / "bad", name, bytes(content)))


def test_random_bytes_never_end_otherwise(tmp_path: Path) -> None:
    """With true checksums too, by which what lies beneath them is reached."""
    from bundle_case import Odd, write_bundle

    draw = random.Random(2)
    tracemalloc.start()
    for number in range(300):
        folder = tmp_path / "bad"
        folder.mkdir(exist_ok=True)
        noise = draw.randbytes(draw.randrange(60))
        if number % 3 == 0:
            (folder / INDEX).write_bytes(draw.randbytes(200) + (FIXTURE / INDEX).read_bytes()[-48:])
        else:
            odd = Odd(header=noise) if number % 3 == 1 else Odd(entry={"a": noise})
            write_bundle(folder / "bert_model.ckpt", {"a": ("float32", (1,), bytes(4))}, odd)
        with contextlib.suppress(CheckpointError):
            read_all(folder)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("bert_config.json", b"{", r"bert_config\.json is no readable JSON"),
        ("bert_config.json", b'{"hidden_size": 12}', "config.json asks for 12 layers"),
        ("bert_config.json", None, r"bert_config\.json does not exist"),
        ("vocab.txt", None, r"vocab\.txt is missing"),
        ("vocab.txt", b"[PAD]\n[UNK]\n", r"the vocabulary has no \[CLS\]"),
        ("vocab.txt", b"\xff\n", r"vocab\.txt is not UTF-8"),
        (INDEX, None, "holds no TensorFlow checkpoint"),
        (DATA, None, "is missing; copy or download"),
    ],
)
def test_what_lies_beside_it(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    folder = spoilt(tmp_path / "bad", name, content or b"")
    if content is None:
        (folder / name).unlink()
    with pytest.raises(BertsmithError, match=reason):
        import_tf1(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
