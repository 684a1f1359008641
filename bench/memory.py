"""Memory of preparing text, by its size: made-up English and Chinese, two workers, the peak of each step.

    python bench/memory.py --out bench/results/DATE-memory.jsonl           # 0.25, 0.5, 1 and 2 GB
    python bench/memory.py --sizes 0.25 --out rows.jsonl

A step is a process of its own; every 50 ms the anonymous memory (RssAnon: pages that are not a mapped file's) of it and
of each process below it is read from /proc. A row says the highest of any one process. Rows already in --out are not
measured again, so a run that was stopped goes on. Linux only.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SIZES_GB = (0.25, 0.5, 1.0, 2.0)
STEPS = ("corpus", "tokenizer", "examples")
WORKERS = 2
_SAMPLE_SECONDS = 0.05
_FILE_BYTES = 64_000_000
_SYLLABLES = ("ba", "ker", "lo", "min", "tu", "sha", "re", "pon", "di", "vex", "an", "or", "est", "ing")
_FIRST_CHARACTER, _NUM_CHARACTERS = 0x4E00, 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES_GB, metavar="GB")
    parser.add_argument("--out", type=Path, help="append rows here; what it holds is not measured again")
    parser.add_argument("--folder", type=Path, help="where text and artifacts lie; needs 4 times the size")
    options = parser.parse_args()
    begun = time.monotonic()
    known = _known(options.out)
    for size_gb in options.sizes:
        if known >= {(size_gb, step) for step in STEPS}:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            for row in measure(Path(name), size_gb):
                print(json.dumps(row), flush=True)
                if options.out is not None and (size_gb, row["step"]) not in known:
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    print(f"{time.monotonic() - begun:.0f} s in all", file=sys.stderr)


def measure(folder: Path, size_gb: float) -> Iterator[dict[str, float | str]]:
    """A row for each step, over a corpus of `size_gb` made in `folder`."""
    write_corpus(folder / "text", round(size_gb * 1e9))
    (folder / "recipe.toml").write_text(
        f'name = "memory"\n[runtime]\nworkers = {WORKERS}\n[corpus]\n'
        'sources = [{ kind = "text", paths = ["text/*.txt"], layout = "sentences" }]\n'
        "[tokenizer]\nvocab_size = 8000\n[examples]\n",
        encoding="utf-8",
    )
    for step in STEPS:
        verb = "train" if step == "tokenizer" else "build"
        command = [sys.executable, "-m", "bertsmith", step, verb, "recipe.toml"]
        peak, processes, seconds = run_watched(command, folder)
        yield {
            "name": "memory",
            "gigabytes": size_gb,
            "step": step,
            "peak_mb": round(peak / 1e6, 1),
            "processes": processes,
            "seconds": round(seconds, 1),
        }


def write_corpus(folder: Path, num_bytes: int) -> None:
    """Files of documents, a sentence a line, English and Chinese in turn; the same for the same size."""
    folder.mkdir()
    draw = random.Random(1)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(20_000)]
    characters = [chr(_FIRST_CHARACTER + number) for number in range(_NUM_CHARACTERS)]
    written = number = 0
    while written < num_bytes:
        left = min(_FILE_BYTES, num_bytes - written)
        with (folder / f"{number:04d}.txt").open("wb") as file:
            while file.tell() < left:
                file.write(_document(draw, words if draw.random() < 0.7 else characters))
            written += file.tell()
        number += 1


def _document(draw: random.Random, alphabet: list[str]) -> bytes:
    space, stop = (" ", ".") if len(alphabet) > _NUM_CHARACTERS else ("", "。")
    lines = (space.join(draw.choices(alphabet, k=draw.randint(4, 40))).capitalize() for _ in range(draw.randint(2, 60)))
    return ((stop + "\n").join(lines) + stop + "\n\n").encode()


def run_watched(command: list[str], folder: Path) -> tuple[int, int, float]:
    """Run a command; returns the highest RssAnon of any one process (bytes), how many there were, and seconds."""
    begun = time.monotonic()
    peaks: dict[int, int] = {}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            for number in _family(process.pid):
                peaks[number] = max(peaks.get(number, 0), anonymous_bytes(number))
            time.sleep(_SAMPLE_SECONDS)
    finally:
        process.kill()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; see above")
    return max(peaks.values()), len(peaks), time.monotonic() - begun


def anonymous_bytes(process: int) -> int:
    """Memory of a process that is no file's; 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _family(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text(encoding="utf-8").split():
                yield from _family(int(child))


def _known(out: Path | None) -> set[tuple[float, str]]:
    if out is None or not out.exists():
        return set()
    rows = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    return {(row["gigabytes"], row["step"]) for row in rows}


if __name__ == "__main__":
    main()
