"""Reading text from files: ours against `datasets` (streaming), one process on each side, the same rows on both.

    text       100 MB of 100-byte lines; ours also finds the blank lines that part documents
    jsonl      50 MB, a kilobyte a line
    csv        20 MB, a hundred bytes a row
    parquet    50 MB of text, a kilobyte a row

First both must have read the same text, by its length in characters.

    python bench/sources.py --quick
"""

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from measure import arguments, compare, emit

from bertsmith.config import Source
from bertsmith.corpus.sources import plan_chunks, read_chunk

LINE = "The quick brown fox jumps over the lazy dog, and the dog, which is not that lazy, jumps after it . "
PEERS = {"text": "text", "jsonl": "json", "csv": "csv", "parquet": "parquet"}


def write(kind: str, path: Path) -> None:
    if kind == "text":
        block = "\n".join([LINE] * 19) + "\n\n"
        path.write_text(block * 52_000, encoding="utf-8")
    elif kind == "jsonl":
        path.write_text((json.dumps({"text": LINE * 10}) + "\n") * 50_000, encoding="utf-8")
    elif kind == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *((number, LINE) for number in range(200_000))])
    else:
        rows = [f"{number} {LINE * 10}" for number in range(50_000)]
        pq.write_table(pa.table({"text": rows}), path, row_group_size=5000)


def ours(kind: str, path: Path) -> int:
    """Characters read, line ends left out."""
    source = Source.model_validate({"kind": kind, "paths": (str(path),), "layout": "sentences"})
    read = 0
    for chunk in plan_chunks(source):
        for document in read_chunk(chunk, Counter()):
            read += sum(map(len, document.sentences)) if document.sentences else len(document.text)
    return read


def peer(kind: str, path: Path) -> int:
    rows = datasets.load_dataset(PEERS[kind], data_files=str(path), split="train", streaming=True)
    return sum(len(row["text"]) for row in rows)


def main() -> None:
    options = arguments(__doc__ or "")
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        for kind in PEERS:
            if options.only not in (None, kind):
                continue
            path = Path(folder) / f"rows.{kind}"
            write(kind, path)
            mine, theirs = ours(kind, path), peer(kind, path)
            if mine != theirs:
                raise SystemExit(f"{kind}: {mine:,} characters read, by the peer {theirs:,}; nothing is measured")
            row = compare(
                f"sources-{kind}",
                timed(ours, kind, path, mine / 1e6),
                timed(peer, kind, path, mine / 1e6),
                rounds=1 if options.quick else 3,
                unit="MB/s",
            )
            emit(row, options)
            path.unlink()


def timed(read: Callable[[str, Path], int], kind: str, path: Path, megabytes: float) -> Callable[[], float]:
    def work() -> float:
        read(kind, path)
        return megabytes

    return work


if __name__ == "__main__":
    main()
