"""Torn checkpoints, kill -9 while saving, full disks and signals: what was saved is found, and the run is the same."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from bertsmith.config import OptimizerConfig
from bertsmith.errors import CheckpointError, Stopped
from bertsmith.training import tensor_files
from bertsmith.training.checkpoint import finish, open_checkpoint, pieces_of, write_part
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Due, Evaluation
from bertsmith.training.tensor_files import Piece
from training_case import PLAN, TinyModel, events, make_batch, run, with_every_checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "index.json", "state.json", "manifest.json")


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A run with a checkpoint after each of its 12 steps, and its final weights."""
    directory = tmp_path_factory.mktemp("straight")
    _, model, _ = run(directory, plan=with_every_checkpoint())
    return directory, _bits(model)


def _until(step: int, straight: Path, directory: Path) -> Path:
    """A copy of the straight run as if it had been killed after the checkpoint of `step`; that checkpoint."""
    shutil.copytree(straight, directory)
    for later in range(step + 1, PLAN.total_steps + 1):  # type: ignore[operator]
        shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
    return directory / "checkpoints" / f"step-{step:08d}"


def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "manifest missing": lambda path: (path / "manifest.json").unlink(),
    "manifest empty": lambda path: (path / "manifest.json").write_text(""),
    "manifest is a list": lambda path: (path / "manifest.json").write_text("[]"),
    "weights missing": lambda path: (path / "model.safetensors").unlink(),
    "weights cut short": lambda path: os.truncate(path / "model.safetensors", 100),
    "optimizer empty": lambda path: os.truncate(path / "optimizer.safetensors", 0),
    "bit flipped in weights": lambda path: _flip(path / "model.safetensors", random.Random(1)),
    "index missing": lambda path: (path / "index.json").unlink(),
    "bit flipped in state": lambda path: _flip(path / "state.json", random.Random(2)),
    "folder empty": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_newest_checkpoint_is_passed_over_and_named(
    damage: str, straight: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    torn = _until(7, straight[0], tmp_path / "run")
    DAMAGES[damage](torn)
    result, model, printed = run(tmp_path / "run", plan=PLAN, model=TinyModel())
    assert result.resumed_from == 6
    assert f"passed over a checkpoint: {torn}" in printed
    assert _bits(model) == straight[1]
    assert open_checkpoint(tmp_path / "run/checkpoints/step-00000012").step == 12
    assert not torn.exists(), "a torn checkpoint ahead of the run would be taken for the newest again"


def test_when_all_are_torn_the_run_starts_again(straight: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    _until(3, straight[0], tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").iterdir():
        (path / "state.json").unlink()
    torch.manual_seed(1)
    result, model, printed = run(tmp_path / "run", plan=PLAN, model=TinyModel())
    assert result.resumed_from is None
    assert "starting again from step 0" in printed
    assert _bits(model) == straight[1]
    assert [event["step"] for event in events(tmp_path / "run", "evaluation")] == [4, 8, 12]


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_goes_unnoticed(name: str, straight: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """Whatever bit of a checkpoint flips, it is either refused or says exactly what it said before."""
    original = straight[0] / "checkpoints" / "step-00000005"
    copy = tmp_path / original.name
    draw = random.Random(name)
    for _ in range(100):
        shutil.copytree(original, copy)
        _flip(copy / name, draw)
        try:
            assert open_checkpoint(copy).state == open_checkpoint(original).state
            assert name == "manifest.json", "data changed unnoticed"
        except CheckpointError:
            pass
        shutil.rmtree(copy)


def _in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process and give its wait status; the parent has run no parallel region by then."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode() + b"\n")
            os._exit(1)
    return os.waitpid(child, 0)[1]


def _saver(directory: Path) -> tuple[Checkpoints, Callable[[int], None]]:
    """Saves whose every tensor holds the step's number."""
    model = TinyModel()
    optimizer = make_optimizer(model, OptimizerConfig())
    for parameter in model.parameters():
        optimizer.state[parameter] = {"exp_avg": torch.zeros_like(parameter)}
    checkpoints = Checkpoints(directory, keep=2)

    def save(step: int) -> None:
        for parameter in model.parameters():
            parameter.data.numpy()[...] = step
            optimizer.state[parameter]["exp_avg"].numpy()[...] = step
        checkpoints.save(step, model, optimizer, {"step": step})

    return checkpoints, save


def _check_newest(checkpoints: Checkpoints, allowed: set[int]) -> int:
    newest, _ = checkpoints.latest()
    assert newest is not None
    assert newest.step in allowed
    assert newest.state == {"step": newest.step}
    model = TinyModel()
    newest.restore(model, make_optimizer(model, OptimizerConfig()))
    assert all((p.detach().numpy() == newest.step).all() for p in model.parameters())
    return newest.step


def _die_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 at the n-th of all calls that change the disk."""
    calls = 0

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    for owner, name in ((os, "fsync"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"), (Path, "replace")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    monkeypatch.setattr(tensor_files, "save_file", dying(tensor_files.save_file))


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step again"])
def test_kill_9_at_every_point_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """Die before each call that changes the disk: a whole checkpoint is always found, and the next save cleans up."""
    second = 20 if again else 30
    for call in range(1, 100):
        directory = tmp_path / str(call)
        checkpoints, save = _saver(directory)
        save(10)
        save(20)

        def work(save: Callable[[int], None] = save, call: int = call) -> None:
            with monkeypatch.context() as patch:
                _die_at(call, patch)
                save(second)

        status = _in_child(work)
        newest = _check_newest(checkpoints, {10, 20, 30} if again else {20, 30})
        save(40)
        assert sorted(path.name for path in directory.iterdir()) == [f"step-{newest:08d}", "step-00000040"]
        if status == 0:
            assert call > 10, "the save was hardly interrupted"
            return
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
    pytest.fail("the save never came to its end")


def test_kill_9_at_random_times(tmp_path: Path) -> None:
    checkpoints, save = _saver(tmp_path)
    started = time.monotonic()
    save(1)
    save_seconds = time.monotonic() - started
    draw = random.Random(0)

    def work() -> None:
        for step in range(newest + 1, newest + 10_000):
            save(step)

    newest = 1
    for _ in range(30):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        time.sleep(draw.uniform(0.001, 3 * save_seconds + 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = _check_newest(checkpoints, set(range(newest, newest + 10_000)))
    assert newest > 1, "no child ever got to save"


def test_a_full_disk_is_told_and_what_was_saved_before_stays(tmp_path: Path) -> None:
    checkpoints, save = _saver(tmp_path / "checkpoints")
    save(1)
    message = tmp_path / "message"

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        with pytest.raises(CheckpointError) as caught:
            save(2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        message.write_text(str(caught.value))

    assert _in_child(work) == 0
    assert f"checkpoint {checkpoints.path(2)} was not written" in message.read_text()
    assert "needs about 2,0" in message.read_text()
    assert [path.name for path in checkpoints.directory.iterdir()] == ["step-00000001"]
    assert _check_newest(checkpoints, {1}) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_a_run_on_a_full_disk_stops_with_one_clear_error(
    error: Exception, straight: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _until(5, straight[0], tmp_path / "run")

    def full(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tensor_files, "save_file", full)
        with pytest.raises(CheckpointError, match=r"earlier checkpoints are intact"):
            run(tmp_path / "run", plan=with_every_checkpoint(), model=TinyModel())
    assert events(tmp_path / "run", "stop")[-1]["reason"] == "error"
    result, model, _ = run(tmp_path / "run", plan=PLAN, model=TinyModel())
    assert result.resumed_from == 5
    assert _bits(model) == straight[1]


def _signal_in(where: str, number: int) -> dict[str, Any]:
    """Arguments of `run` that raise a signal in the middle of step 6 (from 0), or of the evaluation after it."""
    seen = 0

    def next_batches(due: Due) -> list[Any]:
        if where == "batches" and due.step == 6:
            signal.raise_signal(number)
        return make_batch(due.step, 8).split([4, 4])

    def wrap(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def loss_sums(batch: Any) -> Any:
            nonlocal seen
            seen += 1
            if (where, seen) in (("first micro-batch", 13), ("last micro-batch", 14)):
                signal.raise_signal(number)
            return function(batch)

        return loss_sums

    def callback(step: int, _evaluation: Any) -> None:
        if where == "callback" and step == 8:
            signal.raise_signal(number)

    return {"next_batches": next_batches, "wrap": wrap, "callbacks": [callback]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("where", "saved"), [("batches", 6), ("first micro-batch", 6), ("last micro-batch", 7), ("callback", 8)]
)
def test_a_signal_saves_and_the_resumed_run_is_the_same(
    where: str, saved: int, number: int, straight: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run(tmp_path, plan=PLAN, **_signal_in(where, number))
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"step-{saved:08d}"]
    stop = events(tmp_path, "stop")[-1]
    assert (stop["step"], stop["reason"]) == (saved, signal.Signals(number).name)
    result, model, _ = run(tmp_path, plan=PLAN, model=TinyModel())
    assert result.resumed_from == saved
    assert _bits(model) == straight[1]
    assert [event["step"] for event in events(tmp_path, "evaluation")] == [4, 8, 12]
    assert [event["reason"] for event in events(tmp_path, "stop")] == ["done"]


def test_a_signal_ends_an_evaluation_at_once_and_it_is_made_up_for(
    straight: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training_case

    def evaluate_with(model: nn.Module) -> Callable[[int], Any]:
        def evaluate(step: int) -> Any:
            if step == 8:
                signal.raise_signal(signal.SIGTERM)
                pytest.fail("the evaluation went on")
            return original(step)

        original = training_case_evaluate(model)
        return evaluate

    training_case_evaluate = training_case.evaluate_with
    with monkeypatch.context() as patch:
        patch.setattr(training_case, "evaluate_with", evaluate_with)
        with pytest.raises(Stopped):
            run(tmp_path, plan=PLAN)
    result, model, _ = run(tmp_path, plan=PLAN, model=TinyModel())
    assert result.resumed_from == 8
    assert _bits(model) == straight[1]
    assert [event["step"] for event in events(tmp_path, "evaluation")] == [4, 8, 12]


def test_a_signal_before_the_first_update_leaves_nothing_and_starts_over(tmp_path: Path) -> None:
    def next_batches(due: Due) -> list[Any]:
        signal.raise_signal(signal.SIGINT)
        return make_batch(due.step, 8).split([4, 4])

    with pytest.raises(Stopped):
        run(tmp_path, plan=PLAN, next_batches=next_batches)
    assert not (tmp_path / "checkpoints").exists()
    assert run(tmp_path, plan=PLAN)[0].resumed_from is None


def test_training_outside_the_main_thread_leaves_signals_alone(tmp_path: Path) -> None:
    handlers: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run(tmp_path, plan=PLAN, callbacks=[lambda *_: handlers.append(signal.getsignal(signal.SIGINT))])
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert handlers
    assert all(handler is signal.getsignal(signal.SIGINT) for handler in handlers)


_PROGRAM = """
import sys, time
from pathlib import Path
from bertsmith.errors import Stopped
from training_case import make_batch, run, with_every_checkpoint
directory = Path(sys.argv[1])

def next_batches(due):
    if due.step == 3:
        while not (directory / "checkpoints" / "step-00000003").exists():
            time.sleep(0.01)  # a thread is saving it
        (directory / "ready").touch()
        while not (directory / "go on").exists():
            time.sleep(0.01)
    return make_batch(due.step, 8).split([4, 4])

try:
    run(directory, plan=with_every_checkpoint(), next_batches=next_batches)
except Stopped as stopped:
    print(stopped, flush=True)
    sys.exit(stopped.exit_code)
"""


def _start(directory: Path) -> "subprocess.Popen[str]":
    """Another process in the middle of its fourth update, which waits there for a file named "go on"."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(directory)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (directory / "ready").exists():
        assert process.poll() is None, "ended before it was ready"
        assert time.monotonic() < deadline, "never got ready"
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_another_process_is_stopped_and_its_run_finished_here(
    number: signal.Signals, exit_code: int, straight: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    process = _start(tmp_path)
    process.send_signal(number)
    (tmp_path / "go on").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert exit_code < 0 or "stopped by SIGTERM; to go on: run the same command again" in output
    result, model, _ = run(tmp_path, plan=PLAN, model=TinyModel())
    assert result.resumed_from == 3
    assert _bits(model) == straight[1]


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    process = _start(tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None, "the first signal waits for the end of the micro-batch"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143


def test_a_checkpoint_of_another_version_is_refused_and_kept(
    straight: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """Never begun again from step 0 over the work of another version."""
    _until(3, straight[0], tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").iterdir():
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(CheckpointError, match=r"step-00000003 is of format 1, this version reads 2; go on with"):
        run(tmp_path / "run", plan=PLAN)
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 3


@pytest.mark.parametrize("writers", [1, 2, 4])
def test_a_checkpoint_of_several_ranks_is_taken_up_by_one(
    writers: int, straight: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """Each rank writes a share of every tensor's rows; the run that goes on from their files is the same."""
    one = _until(5, straight[0], tmp_path / "run")
    torch.manual_seed(2)
    model = TinyModel()
    optimizer = make_optimizer(model, OptimizerConfig())
    whole = open_checkpoint(one)
    whole.restore(model, optimizer)
    draft = tmp_path / "draft"
    draft.mkdir()
    parts = []
    for rank in range(writers):
        pieces: dict[str, dict[str, Piece]] = {"model": {}, "optimizer": {}}
        for kind, whole_pieces in pieces_of(model, optimizer).items():
            for name, tensor in ((name, piece.tensor) for name, piece in whole_pieces.items()):
                if tensor.ndim:
                    rows = tensor.tensor_split(writers)[rank]
                    first = sum(len(part) for part in tensor.tensor_split(writers)[:rank])
                    pieces[kind][name] = Piece(rows, (first, *[0] * (tensor.ndim - 1)), tuple(tensor.shape))
                elif rank == 0:
                    pieces[kind][name] = Piece.whole(tensor)
        parts.append(write_part(draft, pieces, rank=rank, world_size=writers))
    finish(draft, one, step=5, parts=parts, state=whole.state)
    assert len(list(one.glob("*.safetensors"))) == 2 * writers
    result, resumed, _ = run(tmp_path / "run", plan=PLAN, model=TinyModel())
    assert result.resumed_from == 5
    assert _bits(resumed) == straight[1]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save of step 4 waits until update 7 has begun; what it holds is the state of step 4."""
    has_begun, steps = threading.Event(), []
    save_file = tensor_files.save_file

    def slow(tensors: dict[str, torch.Tensor], path: Path) -> None:
        assert has_begun.wait(60), "the loop waited for the disk"
        save_file(tensors, path)

    def next_batches(due: Due) -> list[Any]:
        steps.append(due.step)
        if due.step == 7:
            has_begun.set()
        return make_batch(due.step, 8).split([4, 4])

    with monkeypatch.context() as patch:
        patch.setattr(tensor_files, "save_file", slow)
        plan = replace(PLAN, keep_best=True, evaluate_every=4, total_steps=8)
        _, straight, _ = run(tmp_path, plan=plan, next_batches=next_batches)
    assert steps == list(range(8))
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000008")
    result, resumed, _ = run(tmp_path, plan=plan, model=TinyModel())
    assert result.resumed_from == 4
    assert _bits(resumed) == _bits(straight)


def test_what_a_save_raises_comes_back_to_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect, no full disk")

    monkeypatch.setattr(tensor_files, "save_file", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        run(tmp_path, plan=with_every_checkpoint())


@pytest.mark.parametrize(("keep", "left"), [(1, [4, 12]), (2, [4, 11, 12])])
def test_the_last_ones_and_the_best_are_kept(
    keep: int, left: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training_case

    values = {2: 0.5, 4: 0.9, 6: 0.7, 8: 0.9, 10: 0.1, 12: 0.8}
    evaluation = lambda step: Evaluation(loss=1.0, scores={"f1": values[step]}, metric="f1")  # noqa: E731
    monkeypatch.setattr(training_case, "evaluate_with", lambda model: evaluation)
    run(tmp_path, plan=replace(with_every_checkpoint(), evaluate_every=2, keep_best=True), keep=keep)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"step-{n:08d}" for n in left]
    assert open_checkpoint(tmp_path / "checkpoints/step-00000012").state["best_step"] == 4


def test_the_best_is_saved_even_where_no_other_would_be(tmp_path: Path) -> None:
    run(tmp_path, plan=replace(PLAN, keep_best=True), keep=1)
    assert events(tmp_path, "evaluation")[-1]["best"]
    assert [event["step"] for event in events(tmp_path, "checkpoint")] == [4, 8, 12]
