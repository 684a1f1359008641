"""What every benchmark shares: two step functions timed in turn, and a JSON line a row."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bertsmith.runtime import available_cpus, cpu_has_bfloat16, cpu_name


@dataclass(frozen=True)
class Row:
    """One comparison; `ratio` above 1 means we are ahead, `min` and `max` are those of the rounds."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    min: float
    max: float
    note: str = ""


def arguments(description: str, **flags: str) -> argparse.Namespace:
    """Those of every benchmark, and `flags` of this one with their help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, meaning in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; ends within 4 minutes")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="threads of both sides")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    parser.add_argument("--only", help="run only the row of this name")
    return parser.parse_args()


def compare(
    name: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    *,
    rounds: int,
    unit: str,
    note: str = "",
    between: Callable[[], None] = lambda: None,
) -> Row:
    """Call both in turn (ours, peer, peer, ours, ...); each does its work and returns how much of it, in units. What
    is to be measured `between` the rounds is called there.

    The figures are work per second, medians over the rounds; the ratio is the median of each round's own.
    """
    rates: list[tuple[float, float]] = []
    for number in range(rounds):
        between()
        order = (ours, peer) if number % 2 == 0 else (peer, ours)
        first, second = (_rate(work) for work in order)
        rates.append((first, second) if number % 2 == 0 else (second, first))
    ratios = [mine / theirs for mine, theirs in rates]
    return Row(
        name=name,
        ours=round(statistics.median(mine for mine, _ in rates), 1),
        peer=round(statistics.median(theirs for _, theirs in rates), 1),
        unit=unit,
        ratio=round(statistics.median(ratios), 2),
        min=round(min(ratios), 2),
        max=round(max(ratios), 2),
        note=note,
    )


def _rate(work: Callable[[], float]) -> float:
    started = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - started)


def matmul_peak(dtype: torch.dtype, *, size: int = 2048, repeats: int = 6) -> float:
    """FLOP/s of a large matrix product on this machine, the best of some."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    torch.mm(a, b)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cpus": available_cpus(),
        "threads": torch.get_num_threads(),
        "bfloat16": cpu_has_bfloat16(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def emit(row: Row, options: argparse.Namespace, **facts: Any) -> None:
    """Print the row; with --out, append it with date and machine."""
    print(json.dumps(asdict(row) | facts), flush=True)
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row) | facts | machine()) + "\n")
