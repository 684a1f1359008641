"""A disk that fills up while a run saves and logs: it says so, goes on, and loses nothing; it never claims success."""

import contextlib
import errno
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from bertsmith import cli
from bertsmith.errors import BertsmithError, CheckpointError
from bertsmith.model import BertModel
from bertsmith.training.log_file import LogFile
from bertsmith.training.plan import Due
from bertsmith.training.track import read_metrics
from finetune_case import write_tiny_model
from training_case import PLAN, TinyModel, make_batch, run, with_every_checkpoint

TALKATIVE = replace(with_every_checkpoint(), log_every=1, evaluate_every=1)
"""Its lines soon fill the last page that the log has."""
_CLOCK = ("elapsed_seconds", "seconds", "time", "tokens_per_second", "loader_wait_seconds", "memory_bytes")


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _log(directory: Path) -> list[dict[str, Any]]:
    """Without what a clock or meter says, starts, and failures to save."""
    kept = [e for e in read_metrics(directory / "metrics.jsonl") if e["event"] not in ("start", "checkpoint_failed")]
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("straight")
    _, model, _ = run(directory, plan=TALKATIVE, keep=2)
    return _bits(model), _log(directory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _fill(disk: Path) -> None:
    """Take the last byte."""
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


def _filling(disk: Path, *, at: int, until: int) -> Any:
    """Batches, with a disk that is full from update `at` on, and free again from update `until`."""

    def next_batches(due: Due) -> list[Any]:
        if at <= due.step < until:
            while any(thread.name.startswith("checkpoint") for thread in threading.enumerate()):
                time.sleep(0.01)  # a save at work takes room and gives it back
            _fill(disk)
        if due.step == until:
            (disk / "filler").unlink()
        return make_batch(due.step, 8).split([4, 4])

    return next_batches


def test_a_run_goes_on_while_the_disk_is_full_and_saves_and_logs_when_there_is_room(
    small_disk: Path, straight: tuple[dict[str, bytes], list[dict[str, Any]]]
) -> None:
    directory = small_disk / "run"
    kept: list[list[str]] = []

    def watching(due: Due) -> list[Any]:
        batches = filling(due)
        kept.append(sorted(path.name for path in (directory / "checkpoints").glob("step-*")))
        return batches

    filling = _filling(small_disk, at=4, until=9)
    _, model, printed = run(directory, plan=TALKATIVE, keep=2, next_batches=watching)
    assert kept[8][-1] == "step-00000004", "the last one before the disk was full stays"
    assert "step-00000005 was not written" in printed
    assert "it needs about 3," in printed
    assert "0 are free; earlier checkpoints are intact; make room; training goes on" in printed
    assert "metrics.jsonl cannot be written: no room for" in printed
    assert _bits(model) == straight[0]
    assert _log(directory) == straight[1], "no line is lost, and none is out of order"
    failed = [e["step"] for e in read_metrics(directory / "metrics.jsonl") if e["event"] == "checkpoint_failed"]
    assert failed[:4] == [5, 6, 7, 8], "each in its turn, until there is room"
    assert set(failed[4:]) <= {9}
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == ["step-00000011", "step-00000012"]


def test_a_disk_that_stays_full_is_no_success_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, straight: tuple[dict[str, bytes], list[dict[str, Any]]]
) -> None:
    directory = small_disk / "run"
    full = _filling(small_disk, at=7, until=99)
    with pytest.raises(CheckpointError, match=r"step-00000012 was not written .* make room and run the same command"):
        run(directory, plan=TALKATIVE, keep=2, next_batches=full)
    (small_disk / "filler").unlink()
    torch.manual_seed(9)
    result, model, _ = run(directory, plan=TALKATIVE, keep=2, model=TinyModel())
    assert result.resumed_from == 7
    assert _bits(model) == straight[0]
    assert _log(directory) == straight[1]


def test_a_disk_that_is_full_from_the_start_is_told_before_training(small_disk: Path) -> None:
    _fill(small_disk)
    with pytest.raises((BertsmithError, OSError)):
        run(small_disk / "run", plan=PLAN)


def test_a_log_keeps_whole_lines_in_their_order(tmp_path: Path) -> None:
    """The file may grow to 25 bytes, then to 50, then as it likes."""
    path = tmp_path / "log"
    child = os.fork()
    if child == 0:
        try:
            log = LogFile(path)
            no_limit = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (25, no_limit))
            for number in range(4):
                log.append(b"line %04d" % number)
            assert (path.read_bytes(), log.waiting) == (b"line 0000\nline 0001\n", b"line 0002\nline 0003\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, (50, no_limit))
            log.append(b"line 0004")
            assert log.waiting == b""
            log.append(b"line 0005")
            assert log.waiting == b"line 0005\n"
            resource.setrlimit(resource.RLIMIT_FSIZE, (no_limit, no_limit))
            log.append(b"line 0006")
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode() + b"\n")
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == b"".join(b"line %04d\n" % number for number in range(7))


def test_a_log_that_grows_in_memory_without_end_stops_the_run(tmp_path: Path) -> None:
    log = LogFile(Path("/dev/full"), most_waiting_bytes=25)
    log.append(b"line 0000")
    log.append(b"line 0001")
    with pytest.raises(BertsmithError, match=r"/dev/full could not be written .*No space left.*, 30 bytes of it; make"):
        log.append(b"line 0002")


def test_weights_for_which_there_is_no_room_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """safetensors tells of a full disk in an error of its own; the command says where, and the old weights stay."""
    base = write_tiny_model(tmp_path / "base")
    before = (base / "model.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        BertModel.from_pretrained(base).save_pretrained(base)
    assert caught.value.errno == errno.ENOSPC
    assert (base / "model.safetensors").read_bytes() == before
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "app", lambda: BertModel.from_pretrained(base).save_pretrained(base))
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert "No space left on device; make room, and give the same command again" in said
    assert "Traceback" not in said
