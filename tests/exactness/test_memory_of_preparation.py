"""No step of preparing text takes more memory for more text: 800 MB a process at most."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "memory.py"
LIMIT_MB = 800
ANONYMOUS = """
import mmap, sys, time
held = bytearray(150_000_000)
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    sum(mapped[::4096])
    time.sleep(1)
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCH.parent))
    return __import__("memory")


def test_what_is_measured_is_memory_and_not_the_pages_of_a_file(bench, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 100_000_000)
    peak, processes, seconds = bench.run_watched([sys.executable, "-c", ANONYMOUS, "large"], tmp_path)
    assert 150e6 < peak < 200e6
    assert (processes, seconds > 1) == (1, True)


def test_made_up_text_is_of_the_size_asked_for_and_always_the_same(bench, tmp_path: Path) -> None:
    for name in ("once", "again"):
        bench.write_corpus(tmp_path / name, 300_000)
    (once,), (again,) = ((tmp_path / name).iterdir() for name in ("once", "again"))
    assert once.read_bytes() == again.read_bytes()
    assert 300_000 <= once.stat().st_size < 320_000
    assert {"。", "."} <= set(once.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_more_for_twice_the_text(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    subprocess.run(
        [sys.executable, BENCH, "--sizes", "0.25", "0.5", "--out", rows, "--folder", tmp_path], check=True, timeout=3500
    )
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(found) == 6
    assert max(row["peak_mb"] for row in found) < LIMIT_MB
    for small, large in zip(found[:3], found[3:], strict=True):
        assert small["step"] == large["step"]
        assert large["peak_mb"] < 1.1 * small["peak_mb"]
