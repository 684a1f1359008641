"""TensorBoard, Weights & Biases, Trackio and MLflow behind one small interface, each in a process of its own.

    python -m bertsmith.training.trackers NAME

reads lines of JSON from standard input: first a `Run`, then `{"step": ..., "values": {...}}` each; at its end the
tracker is finished. It answers with lines of JSON: `{"say": ...}` for people, `{"error": ...}` before it gives up. What
such a package prints, imports, waits for or does to its process never reaches training (`tracking` is the other end).
"""

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

Config = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Run:
    """What a tracker is told at the start."""

    name: str
    """Of the recipe."""
    kind: str
    """ "pretrain" or "finetune"."""
    folder: str
    """Of the run, absolute."""
    id: str
    """The same for every process that works on this run, so that a resumed one goes on in the same place."""
    first_step: int
    """What was logged for later steps is from before a stop, and is logged again."""
    config: Config


class Tracker(Protocol):
    """What is asked of each; anything may be raised, which ends the tracker and nothing else."""

    def start(self, run: Run) -> str:
        """Begin, or go on, and return one line that says where to look."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def finish(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def start(self, run: Run) -> str:
        writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        folder = Path(run.folder) / "tensorboard"
        self._writer = writer.EventFileWriter(str(folder))
        if run.first_step:  # readers drop what comes later in earlier files
            log = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(step=run.first_step + 1, session_log=log)
        return f"tensorboard --logdir {folder}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        summary = self._summaries.Summary(
            value=[self._summaries.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._add(step=step, summary=summary)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()

    def _add(self, *, step: int, **content: Any) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, **content))


class WeightsAndBiases:
    """Files in RUN/wandb, sent to where `wandb login` or its WANDB_... variables say; WANDB_MODE=offline sends none."""

    def start(self, run: Run) -> str:
        wandb = importlib.import_module("wandb")
        project = wandb.setup().settings.project or "bertsmith"
        self._run = wandb.init(
            project=project,
            id=run.id,
            name=f"{run.name}, {run.kind}",
            dir=run.folder,
            config=dict(run.config),
            resume="allow",
        )
        return f"wandb: {self._run.url or f'offline; wandb sync {self._run.settings.sync_dir}'}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio's own folder, or the server or Space that its TRACKIO_... variables name."""

    def start(self, run: Run) -> str:
        self._trackio = importlib.import_module("trackio")
        self._trackio.init(
            project=run.name,
            name=f"{run.kind}-{run.id[:8]}",
            resume="allow",
            config=dict(run.config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return f"trackio show --project {run.name}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def finish(self) -> None:
        self._trackio.finish()


class MLflow:
    """The server or database that MLFLOW_TRACKING_URI names, else RUN/mlflow.db; experiment "bertsmith"."""

    def start(self, run: Run) -> str:
        tracking = importlib.import_module("mlflow.tracking")
        entities = importlib.import_module("mlflow.entities")
        self._metric = entities.Metric
        uri = tracking.get_tracking_uri() if tracking.is_tracking_uri_set() else f"sqlite:///{run.folder}/mlflow.db"
        self._client = tracking.MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name("bertsmith")
        number = self._client.create_experiment("bertsmith") if experiment is None else experiment.experiment_id
        known = self._client.search_runs([number], f"tags.`bertsmith.id` = '{run.id}'", max_results=1)
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {"bertsmith.id": run.id, "bertsmith.kind": run.kind}
            self._id = self._client.create_run(number, tags=tags, run_name=f"{run.name}, {run.kind}").info.run_id
            params = [entities.Param(name, str(value)) for name, value in run.config.items()]
            self._client.log_batch(self._id, params=params)
        return f"mlflow ui --backend-store-uri {uri}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [self._metric(name, value, now, step) for name, value in values.items()])

    def finish(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
    "mlflow": MLflow,
}
"""Name, which is also that of the package, -> tracker."""


def serve(tracker: Tracker, lines: Iterable[str], answer: Callable[[Mapping[str, str]], None]) -> int:
    """Hand what comes in to `tracker` until there is no more; 0, or 1 after it raised."""
    source = iter(lines)
    try:
        answer({"say": tracker.start(Run(**json.loads(next(source))))})
        for line in source:
            message = json.loads(line)
            tracker.log(message["step"], message["values"])
        tracker.finish()
    except Exception as error:  # whatever the package raises is its own affair
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        answer({"error": text[:300]})
        return 1
    return 0


def main() -> None:
    """The process of one tracker. What its package prints goes nowhere: standard output is for answers."""
    answers: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())

    def answer(message: Mapping[str, str]) -> None:
        with contextlib.suppress(OSError):  # training has ended and hears nothing any more
            answers.write(json.dumps(message) + "\n")

    sys.exit(serve(TRACKERS[sys.argv[1]](), sys.stdin, answer))


if __name__ == "__main__":
    main()
