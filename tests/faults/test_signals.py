"""SIGTERM and Ctrl-C in another process, at each moment of a run: saved, exit 143 or 130, and resumed exactly."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import tomli_w
from torch import nn

from bertsmith.training.compiling import has_compiler
from pretrain_case import make_examples
from training_case import TinyModel, events, run

_PROGRAM = """
import sys, time
from pathlib import Path
import training_case
from bertsmith.errors import Stopped
from bertsmith.training import tensor_files
from dataclasses import replace
from training_case import PLAN, make_batch, run

directory, moment = Path(sys.argv[1]), sys.argv[2]
calls = 0


def here(name):
    if name == moment and not (directory / "ready").exists():
        (directory / "ready").touch()
        for _ in range(1000):  # until the signal has come
            if (directory / "go on").exists():
                break
            time.sleep(0.01)


def next_batches(due):
    if due.step in (0, 6):
        here(f"batches of step {due.step}")
    return make_batch(due.step, 8).split([4, 4])


def wrap(function):
    def loss_sums(batch):
        global calls
        calls += 1
        here(f"micro-batch {calls}")
        return function(batch)

    return loss_sums


def evaluate_with(model):
    inner = original(model)

    def evaluate(step):
        here(f"evaluation after step {step}")
        return inner(step)

    return evaluate


def save_file(tensors, path):
    if "step-00000004" in str(path) and "model" in path.name:
        here("saving step 4")
    save(tensors, path)


original, training_case.evaluate_with = training_case.evaluate_with, evaluate_with
save, tensor_files.save_file = tensor_files.save_file, save_file
try:
    run(directory, plan=replace(PLAN, keep_best=True), next_batches=next_batches, wrap=wrap)
except Stopped as stopped:
    print(stopped, flush=True)
    sys.exit(stopped.exit_code)
"""

MOMENTS = {
    "batches of step 0": None,  # nothing is done yet, and nothing is saved
    "micro-batch 3": 1,  # warm-up of the learning rate
    "micro-batch 13": 6,  # the first micro-batch of two: its update is dropped
    "micro-batch 14": 7,  # the last one: its update is finished
    "batches of step 6": 6,
    "evaluation after step 8": 8,
    "saving step 4": 4,  # or later: training goes on beside it
}


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return _bits(run(tmp_path_factory.mktemp("straight"))[1])


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def _wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while not file.exists():
        assert process.poll() is None, f"ended before {file.name}"
        assert time.monotonic() < deadline, f"{file.name} never came"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_each_moment(
    moment: str, number: signal.Signals, straight: dict[str, bytes], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tmp_path), moment], env=_environment(), stdout=subprocess.PIPE, text=True
    )
    _wait_for(tmp_path / "ready", process)
    process.send_signal(number)
    time.sleep(0.1)
    (tmp_path / "go on").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; to go on: run the same command again" in output
    saved = MOMENTS[moment]
    steps = sorted(int(path.name[-8:]) for path in (tmp_path / "checkpoints").glob("step-*"))
    if moment == "saving step 4":
        assert steps[0] == 4
        saved = steps[-1]
        assert 4 <= saved <= 8, "the save of step 8 waits for that of step 4"
    assert steps == sorted({*range(4, (saved or 0) + 1, 4), *([saved] if saved else [])}), "best ones, and the last"
    assert not list(tmp_path.glob("checkpoints/.step*"))
    result, model, _ = run(tmp_path, model=TinyModel() if saved else None)
    assert result.resumed_from == saved
    assert _bits(model) == straight
    assert [event["step"] for event in events(tmp_path, "evaluation")] == [4, 8, 12]


@contextmanager
def _training(tmp_path: Path, *, compiler: str) -> Iterator["subprocess.Popen[str]"]:
    """The command itself, about to compile with that script; what it leaves behind is ended with it."""
    made = make_examples(tmp_path)
    raw = {**made.raw, "pretrain": {**made.raw["pretrain"], "compile": "on"}, "runtime": {"dtype": "float32"}}
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    script = tmp_path / "compiler"
    script.write_text(compiler, encoding="utf-8")
    script.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "bertsmith", "run", "tiny.toml"],
        cwd=tmp_path,
        env={**_environment(), "CXX": str(script), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


_SLEEPS_AT_ONCE = """#!/bin/sh
touch "{folder}/compiling"
exec sleep 600
"""
_SLEEPS_OVER_KERNELS = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    *.cpp) grep -q 'kernel(' "$word" && touch "{folder}/compiling" && exec sleep 600 ;;
  esac
done
exec g++ "$@"
"""


@pytest.mark.skipif(not has_compiler() or shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("compiler", [_SLEEPS_AT_ONCE, _SLEEPS_OVER_KERNELS], ids=["at once", "over kernels"])
def test_a_signal_while_compiling_does_not_wait_for_the_compiler(compiler: str, tmp_path: Path) -> None:
    """The compiler would take ten minutes; a run that waited for it would not be gone in one."""
    with _training(tmp_path, compiler=compiler.format(folder=tmp_path)) as process:
        _wait_for(tmp_path / "compiling", process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "stopped by SIGTERM; to go on: " in errors
        assert "Traceback" not in errors
