"""One rank of several ends, raises, stands still or gets a signal: all end together, in time, and say why."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from rich.console import Console

import bertsmith
from bertsmith.runtime import Runtime
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Due
from bertsmith.training.sharding import shard
from pretrain_case import make_examples
from ranks_case import Failure, free_port, on_ranks
from training_case import PLAN, TinyBatch, TinyModel, events, make_batch, run

STEPS, BATCH = 12, 12
TIMEOUT_SECONDS = 6.0


def training(ranks: Ranks, runtime: Runtime, directory: Path, fault: str) -> Any:
    """Weights after 12 updates; at the fifth something happens to rank 1."""
    torch.manual_seed(3)
    model = TinyModel()

    def next_batches(due: Due) -> list[TinyBatch]:
        if due.step == 4 and ranks.rank == 1:
            happen(fault)
        mine = make_batch(due.step, BATCH).split([BATCH // ranks.size] * ranks.size)[ranks.rank]
        return mine.split([len(mine.input_ids) // 2] * 2)

    run(
        directory,
        plan=replace(PLAN, batch_size=BATCH, total_steps=STEPS),
        model=model,
        runtime=runtime,
        next_batches=next_batches,
        ranks=ranks,
    )
    return {name: parameter.detach().numpy().tobytes() for name, parameter in model.named_parameters()}


def happen(fault: str) -> None:
    if fault == "raise":
        raise ValueError("a shard of rank 1 is torn")
    if fault:
        os.kill(os.getpid(), getattr(signal, fault))


@pytest.mark.parametrize("fault", ["SIGKILL", "raise", "SIGSTOP"])
def test_when_one_rank_is_lost_the_others_end_and_name_it(tmp_path: Path, fault: str) -> None:
    found = on_ranks(
        3, training, tmp_path, fault, timeout_seconds=TIMEOUT_SECONDS, silent=1 if fault == "SIGSTOP" else None
    )
    lost = {
        "SIGKILL": -signal.SIGKILL,
        "raise": Failure("ValueError", "a shard of rank 1 is torn"),
        "SIGSTOP": None,
    }
    assert found[1] == lost[fault]
    for survivor in (found[0], found[2]):
        assert isinstance(survivor, Failure), survivor
        assert survivor.kind == "LostRank"
        assert "process 1 of 3 (from 0)" in survivor.message
    if fault == "raise":
        assert all("a shard of rank 1 is torn" in survivor.message for survivor in (found[0], found[2]))
    (stop,) = events(tmp_path, "stop")
    assert (stop["reason"], stop["step"]) == ("error", 4)


def uneven(ranks: Ranks, runtime: Runtime, directory: Path) -> None:
    model = TinyModel()
    shard(model, [], ranks)
    run(
        directory,
        model=model,
        runtime=runtime,
        next_batches=lambda _: make_batch(0, 4).split([2, 2] if ranks.rank else [4]),
        ranks=ranks,
    )


def test_fsdp_refuses_unequal_numbers_of_micro_batches(tmp_path: Path) -> None:
    """Each would wait for the other for ever."""
    for number, failure in enumerate(on_ranks(2, uneven, tmp_path, parallel="fsdp"), start=1):
        assert failure.kind == "UsageError"
        assert f"this one has {number} of 3 in step 1" in failure.message


def test_a_signal_at_one_rank_stops_all_after_the_same_update(tmp_path: Path) -> None:
    straight = on_ranks(2, training, tmp_path / "straight", "")
    stopped = on_ranks(2, training, tmp_path / "stopped", "SIGTERM")
    for failure in stopped:
        assert (failure.kind, "SIGTERM" in failure.message) == ("Stopped", True)
    assert [path.name for path in (tmp_path / "stopped/checkpoints").iterdir()] == ["step-00000005"]
    assert [(e["reason"], e["step"]) for e in events(tmp_path / "stopped", "stop")] == [("SIGTERM", 5)]
    assert on_ranks(2, training, tmp_path / "stopped", "") == straight
    losses = [[e["losses"] for e in events(tmp_path / name, "step")] for name in ("straight", "stopped")]
    assert losses[0] == losses[1]


def whole_chain(_runtime: Runtime, recipe: Path, runs: Path) -> str:
    """What `bertsmith run` prints."""
    printed = io.StringIO()
    bertsmith.run(recipe, runs=runs, console=Console(file=printed, width=120))
    return printed.getvalue()


def _torchrun(recipe: Path, runs: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(free_port()), "-m", "bertsmith", "run", str(recipe), "--runs", str(runs)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_sigterm_to_torchrun_saves_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    raw = make_examples(tmp_path).raw
    raw["pretrain"] |= {"max_steps": 300, "evaluate_every_steps": 100, "compile": "off", "log_every_steps": 1}
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tomli_w.dumps(raw | {"runtime": {"dtype": "float32", "threads": 1}}))
    first, other = on_ranks(2, whole_chain, recipe, tmp_path / "straight", joins=False)
    assert "held-out mlm loss" in first
    assert other == "", "one rank prints"

    stopped = _torchrun(recipe, tmp_path / "stopped")
    metrics = tmp_path / "stopped/tiny/pretrain/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and '"event": "step"' in metrics.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    printed, _ = stopped.communicate(timeout=60)
    assert "stopped by SIGTERM; to go on: torchrun --nproc-per-node 2 -m bertsmith run" in printed
    assert stopped.returncode != 0
    stop = [json.loads(line) for line in metrics.read_text().splitlines()][-1]
    assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM")
    assert 0 < stop["step"] < 300

    first, _ = on_ranks(2, whole_chain, recipe, tmp_path / "stopped", joins=False)
    assert f"resumed    from step {stop['step']}" in first
    model = "tiny/pretrain/model/model.safetensors"
    assert (tmp_path / "stopped" / model).read_bytes() == (tmp_path / "straight" / model).read_bytes()
