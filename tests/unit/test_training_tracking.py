"""Trackers: what is logged is read back with each package's own reader; one that fails harms nothing."""

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bertsmith.training import tracking
from bertsmith.training.pretrain import pretrain
from bertsmith.training.track import Track, read_metrics
from pretrain_case import make_examples
from training_case import CPU, PLAN

STEPS = {step: 4.0 / step for step in (10, 20, 30)}
LOSS, ACCURACY, SCORE = "train/loss", "train/accuracies/mlm", "validation/scores/mlm_accuracy"


def _track(folder: Path, *trackers: str) -> tuple[Track, io.StringIO]:
    output = io.StringIO()
    about = {"run": "tiny", "kind": "pretrain", "environment": {"torch": "2"}}
    console = Console(file=output, width=300)
    return Track(folder / "metrics.jsonl", about=about, console=console, trackers=trackers), output


def _log(folder: Path, *trackers: str, steps: dict[int, float], first_step: int = 0, done: bool = True) -> str:
    """A run, or the rest of one, as the loop logs it; what was said."""
    track, output = _track(folder, *trackers)
    with track:
        plan = PLAN.facts(CPU, last_step=30, parameters=7)
        track.start(first_step, plan, resumed=first_step > 0)
        for step, loss in steps.items():
            fields = {"loss": loss, "accuracies": {"mlm": 0.5}, "tokens_per_second": 9.0, "truncation_share": None}
            track.steps(step, 30, fields)
        track.event("evaluation", 30, {"loss": 1.0, "scores": {"mlm_accuracy": 0.25}, "hardest": [{"loss": 3.0}]})
        track.event("stop", 30, {"reason": "done" if done else "SIGINT"})
    return output.getvalue()


Read = Callable[[Path, str], dict[int, float]]


def _read_tensorboard(folder: Path, name: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def _read_wandb(folder: Path, name: str) -> dict[int, float]:
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in _wandb_records(path.read_bytes()):
            record = Record.FromString(data)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if name in items:
                found[int(items["_step"])] = float(items[name])
    return found


def _wandb_records(data: bytes) -> Iterator[bytes]:
    """The file is a LevelDB log behind a header of 7 bytes: blocks of 32 KB, in them a checksum (4 bytes), a length
    (2), a kind (1: whole, 2, 3, 4: first, middle and last part) and so many bytes.
    """
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def _read_trackio(folder: Path, name: str) -> dict[int, float]:
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_run_records("tiny")
    logs = SQLiteStorage.get_logs("tiny", run["name"], run_id=run["id"])
    return {line["step"]: line[name] for line in logs if name in line}


def _read_mlflow(folder: Path, name: str) -> dict[int, float]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("bertsmith")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["batch_size"] == "8"
    assert run.info.status == "FINISHED"
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}


READERS: dict[str, Read] = {
    "tensorboard": _read_tensorboard,
    "wandb": _read_wandb,
    "trackio": _read_trackio,
    "mlflow": _read_mlflow,
}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 200.0)  # importing one takes long on a busy machine


@pytest.mark.filterwarnings("ignore")  # of packages that are not ours
@pytest.mark.parametrize("name", READERS)
@pytest.mark.usefixtures("offline")
def test_what_is_logged_is_read_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    if name == "trackio":  # its folder is fixed when it is imported
        from trackio import sqlite_storage, utils

        for module in (sqlite_storage, utils):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio", raising=False)
    said = _log(tmp_path, name, steps=STEPS)
    assert "tracker    " in said
    assert "switched off" not in said
    read = READERS[name]
    assert read(tmp_path, LOSS) == pytest.approx(STEPS)
    assert read(tmp_path, ACCURACY) == dict.fromkeys(STEPS, 0.5)
    assert read(tmp_path, SCORE) == {30: 0.25}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
@pytest.mark.usefixtures("offline")
def test_a_resumed_run_goes_on_in_the_same_place(name: str, tmp_path: Path) -> None:
    """After step 30 it was killed, and its last checkpoint is of step 15: 20 and 30 come again, with other values."""
    _log(tmp_path, name, steps=STEPS)
    _log(tmp_path, name, steps={20: 7.0, 30: 8.0}, first_step=15)
    assert READERS[name](tmp_path, LOSS) == pytest.approx({10: 0.4, 20: 7.0, 30: 8.0})


def _fake(folder: Path, monkeypatch: pytest.MonkeyPatch, *, init: str = "pass", log: str = "pass") -> None:
    """A package `wandb` that does what these lines say, for this process and those it starts."""
    (folder / "wandb.py").write_text(
        f"""
import os, sys, time, types
def setup(): return types.SimpleNamespace(settings=types.SimpleNamespace(project=None))
class Run:
    url = "here"
    def log(self, values, step): {log}
    def finish(self): pass
def init(**_):
    {init}
    return Run()
""",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(folder)
    before = tracking.os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{before}" if before else str(folder))


@pytest.mark.parametrize(
    ("init", "log", "said"),
    [
        ("raise ValueError('no such\\nproject')", "pass", "wandb failed and is switched off: no such"),
        ("print('noise'); sys.stderr.write('noise')", "raise KeyError('lost')", "switched off: 'lost'"),
        ("os._exit(3)", "pass", "wandb ended by itself and is switched off"),
        ("time.sleep(60)", "pass", "wandb did not finish within 1 s and is switched off"),
    ],
)
def test_one_that_fails_is_told_of_once_and_training_goes_on(
    init: str, log: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake(tmp_path, monkeypatch, init=init, log=log)
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 1.0 if "sleep" in init else 60.0)
    printed = _log(tmp_path, "wandb", steps=STEPS)
    assert printed.count("switched off") == 1
    assert said in printed
    assert "noise" not in printed
    events = [event["event"] for event in read_metrics(tmp_path / "metrics.jsonl")]
    assert events == ["start", "step", "step", "step", "evaluation", "stop"]


def test_one_that_takes_nothing_in_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(tmp_path, monkeypatch, init="time.sleep(60)")
    monkeypatch.setattr(tracking, "_MOST_WAITING_BYTES", 1000)
    printed = _log(tmp_path, "wandb", steps=dict.fromkeys(range(1, 2000), 1.0))
    assert "wandb takes nothing in any more and is switched off" in printed
    assert printed.count("switched off") == 1


def test_after_a_signal_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker, which has hardly begun by then, writes all it was given by itself."""
    note = tmp_path / "note"
    _fake(tmp_path, monkeypatch, init="time.sleep(1)", log=f"open({str(note)!r}, 'a').write(str(step) + ' ')")
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", None)  # not to be asked for
    assert "switched off" not in _log(tmp_path, "wandb", steps=STEPS, done=False)
    assert not note.exists()
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text() == "10 20 30 30 ") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert note.read_text() == "10 20 30 30 "


def test_one_that_is_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tracking.importlib.util.find_spec
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None if name == "mlflow" else found(name))
    printed = _log(tmp_path, "mlflow", steps=STEPS)
    assert 'mlflow needs an optional dependency: pip install "bertsmith[track]"' in printed


@pytest.mark.usefixtures("offline")
def test_a_recipe_names_them_and_its_digest_does_not(tmp_path: Path) -> None:
    made = make_examples(tmp_path)
    recipe = made.recipe(max_steps=2, log_every_steps=1)
    tracked = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"track": ("tensorboard",)})})
    arguments: dict[str, Any] = {"examples": made.examples, "tokenizer": made.tokenizer, "runtime": replace(CPU)}
    pretrain(tracked, tmp_path / "run", **arguments, console=Console(file=io.StringIO()))
    losses = {e["step"]: e["loss"] for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if e["event"] == "step"}
    assert _read_tensorboard(tmp_path / "run", LOSS) == pytest.approx(losses)
    assert json.loads((tmp_path / "run" / tracking.ID_FILE).read_text())["id"]
    output = io.StringIO()
    pretrain(recipe, tmp_path / "run", **arguments, console=Console(file=output))
    assert "done before" in output.getvalue()
