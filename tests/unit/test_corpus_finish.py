"""The second pass over a chunk: what becomes parts of the corpus."""

from pathlib import Path

import numpy as np
import pytest

from bertsmith.artifact import Piece
from bertsmith.config import CorpusConfig
from bertsmith.corpus.finish import FinishTask, finish_chunk
from bertsmith.corpus.prepare import PrepareTask, prepare_chunk
from bertsmith.corpus.sources import plan_chunks, source_inputs
from corpus_case import source_of, write


@pytest.fixture
def piece(tmp_path: Path) -> Piece:
    """A prepared chunk of three documents."""
    text = write(tmp_path / "text.txt", "\n\n".join(f"The {name} document, long enough." for name in "abc"))
    source = source_of(text, layout="sentences")
    (chunk,) = plan_chunks(source)
    config = CorpusConfig(sources=(source,), min_characters=1, validation_share=0.0)
    return prepare_chunk(PrepareTask(chunk, config, tmp_path / "work", source_inputs(source)))


@pytest.mark.parametrize("copies", [(1, 1, 1), (0, 1, 2)], ids=["as it is", "chosen"])
def test_run_again_after_its_process_died_it_writes_the_same(
    piece: Piece, tmp_path: Path, copies: tuple[int, ...]
) -> None:
    rows = np.array(copies, dtype=np.uint8)
    out = tmp_path / "out"
    out.mkdir()
    task = FinishTask(piece.path, piece.counts["parts"], (rows == 0).astype(np.uint8), rows, rows * 0, out, 0)
    first, parts = finish_chunk(task), {path.name: path.read_bytes() for path in out.iterdir()}
    assert first.documents == 3
    assert finish_chunk(task) == first
    assert {path.name: path.read_bytes() for path in out.iterdir()} == parts
