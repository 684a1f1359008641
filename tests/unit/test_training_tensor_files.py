"""Tensors written by some ranks are read back by others, whole or in any part."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertsmith.errors import CheckpointError
from bertsmith.training.tensor_files import Block, Index, Piece, TensorFiles, file_name, merged, write_pieces

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64)


def _cuts(size: int, parts: int) -> list[tuple[int, int]]:
    """As FSDP2 cuts a dimension: even chunks, the last ones shorter or empty."""
    chunk = -(-size // parts)
    return [(min(i * chunk, size), min((i + 1) * chunk, size)) for i in range(parts)]


def _block_of(tensor: Tensor, block: Block) -> Tensor:
    return tensor[tuple(slice(at, at + size) for at, size in zip(*block, strict=True))]


def _pieces(tensor: Tensor, dimension: int, world_size: int) -> list[Piece]:
    """One piece a rank, cut along one dimension; a scalar is the first rank's."""
    if not tensor.ndim:
        return [Piece.whole(tensor)]
    pieces = []
    for first, end in _cuts(tensor.shape[dimension], world_size):
        part = tensor.narrow(dimension, first, end - first)
        offset = tuple(first if d == dimension else 0 for d in range(tensor.ndim))
        pieces.append(Piece(part, offset, tuple(tensor.shape)))
    return pieces


def _write(directory: Path, tensors: dict[str, Tensor], dimensions: dict[str, int], world_size: int) -> Index:
    cut = {name: _pieces(tensor, dimensions[name], world_size) for name, tensor in tensors.items()}
    parts = []
    for rank in range(world_size):
        own = {name: pieces[rank] for name, pieces in cut.items() if rank < len(pieces)}
        parts.append(write_pieces(directory / file_name("model", rank, world_size), own))
    return merged(parts)


@st.composite
def tensors_and_dimensions(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, int]]:
    tensors, dimensions = {}, {}
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(0, 7), max_size=3)))
        values = torch.arange(math.prod(shape), dtype=torch.float64) + 100 * number
        tensors[f"t.{number}"] = values.reshape(shape).to(draw(st.sampled_from(DTYPES)))
        dimensions[f"t.{number}"] = draw(st.integers(0, max(len(shape) - 1, 0)))
    return tensors, dimensions


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=tensors_and_dimensions(), writers=st.sampled_from([1, 2, 4]), readers=st.sampled_from([1, 2, 3, 4, 5]))
def test_what_some_ranks_wrote_others_read(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[dict[str, Tensor], dict[str, int]],
    writers: int,
    readers: int,
) -> None:
    tensors, dimensions = made
    directory = tmp_path_factory.mktemp("files")
    index = _write(directory, tensors, dimensions, writers)
    assert len(list(directory.iterdir())) == writers
    with TensorFiles(directory, index) as files:
        assert list(files) == list(tensors)
        for name, tensor in tensors.items():
            assert files.shape(name) == tensor.shape
            assert torch.equal(files.read(name), tensor)
            assert files.read(name).dtype == tensor.dtype
            for dimension in range(tensor.ndim):  # another cut than that of the writers
                for piece in _pieces(tensor, dimension, readers):
                    block = (piece.offset, tuple(piece.tensor.shape))
                    assert torch.equal(files.read(name, block), piece.tensor)


def test_any_block_over_a_grid_of_pieces(tmp_path: Path) -> None:
    """Pieces cut in two dimensions, as by tensor and data parallelism at once."""
    tensor = torch.arange(35.0).reshape(5, 7)
    parts = []
    for number, ((a, b), (c, d)) in enumerate(itertools.product([(0, 2), (2, 5)], [(0, 3), (3, 4), (4, 7)])):
        pieces = {"w": Piece(tensor[a:b, c:d], (a, c), (5, 7))}
        parts.append(write_pieces(tmp_path / file_name("model", number, 6), pieces))
    with TensorFiles(tmp_path, merged(parts)) as files:
        starts = itertools.product(range(5), range(7))
        for top, left in starts:
            for height, width in itertools.product(range(6 - top), range(8 - left)):
                block = ((top, left), (height, width))
                assert torch.equal(files.read("w", block), _block_of(tensor, block))


@pytest.mark.parametrize(
    "pieces",
    {
        "a hole": [((0, 0), (2, 4)), ((3, 0), (1, 4))],
        "two that meet": [((0, 0), (2, 4)), ((1, 0), (2, 4))],
        "one beyond the end": [((0, 0), (2, 4)), ((2, 0), (3, 4))],
        "another rank": [((0,), (4,))],
        "nothing": [],
    }.values(),
)
def test_pieces_that_do_not_make_up_the_tensor_are_refused(tmp_path: Path, pieces: list[Block]) -> None:
    entry = {"dtype": "float32", "shape": [4, 4], "pieces": [{"file": "f", "offset": o, "shape": s} for o, s in pieces]}
    with pytest.raises(CheckpointError, match=r"the pieces of 'w' do not make up its shape \[4, 4\]"):
        TensorFiles(tmp_path, {"w": entry})
    with pytest.raises(CheckpointError, match="do not make up"):
        merged([{"w": entry}])


def test_ranks_that_disagree_on_a_tensor_are_refused(tmp_path: Path) -> None:
    one = write_pieces(tmp_path / "a", {"w": Piece(torch.zeros(2), (0,), (4,))})
    other = write_pieces(tmp_path / "b", {"w": Piece(torch.zeros(2, dtype=torch.int64), (2,), (4,))})
    with pytest.raises(CheckpointError, match=r"ranks disagree on 'w': float32 of shape \[4\], int64 of shape \[4\]"):
        merged([one, other])
