"""The report of a run with a million logged steps: how long it takes to write, how heavy it is, how fast it opens.

    python bench/report.py --out bench/results/2026-12-01-report.jsonl

The log is made up, in the very format of a training. `chromium` and the package `playwright` are needed for the time to
open the page; a plain page of a few bytes, opened in the same way, is measured beside it.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path


def make_log(path: Path, steps: int) -> None:
    """A pre-training: a loss that falls, noise, one spike, a checkpoint and an evaluation every hundredth."""
    noise = random.Random(1)
    environment = {"matmul_flops_per_second": 1.1e11}
    plan = {"steps": steps, "batch_size": 32, "device": "A CPU", "dtype": "bfloat16", "threads": 2}
    start = {"event": "start", "step": 0, "kind": "pretrain", "task": None, "time": 1.8e9, "plan": plan}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({**start, "environment": environment, "data": {}}) + "\n")
        for step in range(1, steps + 1):
            mlm, nsp = 2 + 6 * math.exp(-5 * step / steps) + noise.gauss(0, 0.1), 0.4 + noise.gauss(0, 0.02)
            mlm += 30 * (step == steps // 3)
            event = {
                "event": "step", "step": step, "epoch": step / steps, "elapsed_seconds": 0.1 * step, "loss": mlm + nsp,
                "losses": {"mlm": mlm, "nsp": nsp}, "accuracies": {"mlm": 0.4, "nsp": 0.8}, "learning_rate": 1e-4,
                "gradient_norm": abs(noise.gauss(1, 0.2)), "clip_rate": 0.0,
                "tokens_per_second": noise.gauss(12e3, 300), "flops_per_token": 3.2e6,
                "examples": 32 * step, "loader_wait_seconds": 0.001, "padding_share": 0.04,
                "truncation_share": None, "memory_bytes": 812_000_000, "skipped_updates": 0, "batch_size": 32,
                "gradient_noise_scale": None,
            }  # fmt: skip
            file.write(json.dumps(event) + "\n")
            if step % (steps // 100) == 0:
                scores = {"mlm_accuracy": 0.1 + 0.4 * step / steps}
                evaluation = {
                    "event": "evaluation",
                    "step": step,
                    "loss": mlm,
                    "losses": {"mlm": mlm},
                    "scores": scores,
                }
                file.write(json.dumps({**evaluation, "seconds": 1.0, "best": False}) + "\n")
                file.write(json.dumps({"event": "checkpoint", "step": step, "seconds": 0.1}) + "\n")


def write_report(run: Path, out: Path) -> dict[str, float]:
    """Seconds and peak memory of a process of its own; the figures of one that only imports are beside them."""
    code = (
        "import resource,sys,time\nfrom pathlib import Path\nfrom bertsmith.analysis.report import write_report\n"
        "before=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbegun=time.perf_counter()\n"
        "write_report(Path(sys.argv[1]),Path(sys.argv[2]))\n"
        "print(time.perf_counter()-begun,before/1024,resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, run, out], check=True, capture_output=True, text=True)
    seconds, before, peak = map(float, done.stdout.split())
    return {"write_seconds": round(seconds, 2), "import_memory_mb": round(before), "peak_memory_mb": round(peak)}


def open_in_chromium(page: Path, rounds: int) -> float:
    """Median milliseconds from the request to the end of the load event, scripts run."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        found = []
        for _ in range(rounds):
            tab = browser.new_page()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
            found.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            tab.close()
        browser.close()
    return round(statistics.median(found), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="times the page is opened; the median is told")
    parser.add_argument("--out", type=Path, help="append the row to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, page, plain = Path(folder) / "run", Path(folder) / "report.html", Path(folder) / "plain.html"
        run.mkdir()
        make_log(run / "metrics.jsonl", given.steps)
        plain.write_text("<!doctype html><title>plain</title><p>A page.", encoding="utf-8")
        begun = time.perf_counter()
        with (run / "metrics.jsonl").open("rb") as file:
            for line in file:
                json.loads(line)
        plain_seconds = time.perf_counter() - begun
        row = {
            "date": datetime.now(UTC).date().isoformat(),
            "steps": given.steps,
            "log_mb": round((run / "metrics.jsonl").stat().st_size / 1e6, 1),
            "json_loads_seconds": round(plain_seconds, 2),
            **write_report(run, page),
            "page_kb": round(page.stat().st_size / 1e3),
            "spike_is_in_the_page": f",{given.steps // 3}," in page.read_text(encoding="utf-8"),
            "open_ms": open_in_chromium(page, given.rounds),
            "plain_page_open_ms": open_in_chromium(plain, given.rounds),
        }
    print(json.dumps(row))
    if given.out is not None:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
