"""Lines that tell how far a stage is, where there is no terminal: each counts what it is given."""

import io
import itertools

import pytest
from rich.console import Console

from bertsmith import progress


@pytest.mark.parametrize(
    ("show", "done", "total", "line"),
    [
        (progress.shown, 40_000_000, 100_000_000, "corpus 40 of 100 MB, 2.0 MB/s, 30 s left\n"),
        (progress.shown, 40_000_000, 0, "corpus 40 MB, 2.0 MB/s\n"),
        (progress.rows_shown, 4_000, 10_000, "corpus 4,000 of 10,000 rows, 200 rows/s, 30 s left\n"),
        (progress.rows_shown, 4_000, 0, "corpus 4,000 rows, 200 rows/s\n"),
    ],
)
def test_a_line_has_its_own_unit(monkeypatch, show, done, total, line):
    clock = itertools.chain([0.0], itertools.repeat(20.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=200)
    with show("corpus", console) as report:
        report(0, total)
        report(done, total)
        report(done, total)  # at once again: nothing more
    assert console.file.getvalue() == line
