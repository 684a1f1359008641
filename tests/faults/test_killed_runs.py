"""kill -9 at random instants, during saves too: every resume succeeds, and the losses are those of one straight run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertsmith.training.track import read_metrics
from training_case import TinyModel

_PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from training_case import PLAN, make_batch, run

directory = Path(sys.argv[1])


def next_batches(due):
    begun.touch()
    return make_batch(due.step, 8).split([4, 4])


plan = replace(PLAN, total_steps=300, log_every=1, evaluate_every=50, checkpoint_every_seconds=0.02, keep_best=True)
run(directory, plan=plan, keep=2, next_batches=next_batches)
"""
_FORKS = """
import os, signal, sys, time
from pathlib import Path
import torch._dynamo, training_case  # so that each run begins sooner
begun = Path(sys.argv[1] + ".begun")
program = compile(PROGRAM, "run", "exec")
for line in sys.stdin:
    begun.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        exec(program, {"__name__": "__main__", "begun": begun})
        os._exit(0)
    if line.strip():
        while not begun.exists() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("status", status, flush=True)
"""


class _Runs:
    """A process that starts the same run again and again, each time as a child of its own, with PyTorch loaded."""

    def __init__(self, directory: Path):
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"PROGRAM = {_PROGRAM!r}\n{_FORKS}", str(directory)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "_Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, *, kill_after_seconds: float | None = None) -> int:
        """Run once, and be killed so long after the first update has begun; the wait status, 0 for a run to the end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{'' if kill_after_seconds is None else kill_after_seconds}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:  # in which it finds room between what the run prints
            if line.startswith("status "):
                return int(line.split()[1])
        raise AssertionError("the process that starts runs has ended")


def _losses(directory: Path) -> list[tuple[int, str]]:
    """(step, all digits of the loss), of training and of evaluations."""
    kept = [e for e in read_metrics(directory / "metrics.jsonl") if e["event"] in ("step", "evaluation")]
    return [(event["step"], repr(event["loss"])) for event in kept]


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not(tmp_path: Path, kills: int) -> None:
    assert TinyModel().dropout.p > 0
    with _Runs(tmp_path / "straight") as runs:
        started = time.monotonic()
        assert runs.run() == 0
        seconds = time.monotonic() - started
    expected = _losses(tmp_path / "straight")
    assert len(expected) == 306

    draw = random.Random(kills)
    killed = finished = saves_cut_short = 0
    with _Runs(tmp_path / "killed") as runs:
        while killed < kills:
            status = runs.run(kill_after_seconds=draw.uniform(0.0, 2 * seconds / kills))
            if status == 0:  # it came to its end: once more from the start
                assert _losses(tmp_path / "killed") == expected
                finished += 1
                (tmp_path / "killed").rename(tmp_path / f"finished-{finished}")
                continue
            assert os.WTERMSIG(status) == signal.SIGKILL, "a resume failed"
            killed += 1
            saves_cut_short += bool(list((tmp_path / "killed" / "checkpoints").glob(".step-*.draft-*")))
        assert runs.run() == 0, "the last resume failed"
    assert _losses(tmp_path / "killed") == expected
    assert kills < 60 or saves_cut_short >= 5, "hardly a save was cut short"
