"""A stage's pieces: kept when it is stopped, taken up by the next try."""

import errno
import os
from pathlib import Path

import pytest

from bertsmith.artifact import make_piece, output_to
from bertsmith.errors import BertsmithError, UsageError


def test_a_finished_piece_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> dict[str, int]:
        made.append(folder)
        (folder / "rows.txt").write_text("one\ntwo\n")
        return {"rows": 2}

    first = make_piece(tmp_path / "work", "a1", make)
    again = make_piece(tmp_path / "work", "a1", make)
    assert (first.path, first.counts) == (again.path, again.counts) == (tmp_path / "work" / "a1", {"rows": 2})
    assert len(made) == 1
    (first.path / "rows.txt").write_text("one\n")  # torn
    assert make_piece(tmp_path / "work", "a1", make).counts == {"rows": 2}
    assert (first.path / "rows.txt").read_text() == "one\ntwo\n"
    assert len(made) == 2


def test_a_piece_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, int]:
        (folder / "rows.txt").write_text("one\n")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        make_piece(tmp_path / "work", "a1", fail)
    assert not list((tmp_path / "work").iterdir())


def test_a_file_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"there is no folder .*nowhere; make it"),
        output_to(tmp_path / "nowhere" / "x"),
    ):
        raise AssertionError("nothing is begun")
    with (
        pytest.raises(BertsmithError, match="No space left on device; nothing was left behind"),
        output_to(tmp_path / "x"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
