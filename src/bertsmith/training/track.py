"""metrics.jsonl (format 1, docs/metrics.md) and what a person sees while a run goes on."""

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.errors import DataError
from bertsmith.training.log_file import LogFile
from bertsmith.training.tracking import Tracking
from bertsmith.training.view import View, clock_text

FORMAT_VERSION = 1

_SHOWN_SCORES = 5
"""Of an evaluation, in the table; all are in metrics.jsonl."""


class Track:
    """Appends events to metrics.jsonl and shows progress.

    `about` goes into the start event: run, kind ("pretrain" or "finetune"), task, environment, data. Where the
    environment says the machine's `matmul_flops_per_second`, steps are shown as a share of it. `trackers` get steps and
    evaluations too.
    Use it as a context manager while training; `event` and `say` work only inside.
    """

    def __init__(
        self, path: Path, *, about: Mapping[str, Any], console: Console | None = None, trackers: Sequence[str] = ()
    ):
        self.path = path
        self.about = about
        self._view = View(console or Console(), peak=about.get("environment", {}).get("matmul_flops_per_second"))
        self.say = self._view.say
        self._tracking = Tracking(trackers, path.parent, self.say)
        self._has_table = False
        self._has_started = False

    def __enter__(self) -> "Track":
        self._log = LogFile(self.path)
        self._log_waits = False
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._view.stop()
        self._log.write_waiting()
        self._log.close()
        if self._log.waiting:
            if kind is None:
                raise self._log.not_written()
            self.say(f"error: {self._log.not_written()}")

    def event(self, event: str, step: int, fields: Mapping[str, Any]) -> None:
        """Append one line; a number that is not finite is written as null.

        On a full disk lines wait in memory, which is told once; raises `BertsmithError` when too many do.
        """
        line = json.dumps(_finite({"event": event, "step": step, **fields}), ensure_ascii=False, default=str)
        self._log.append(line.encode())
        waits = bool(self._log.waiting)
        if waits and not self._log_waits:
            self.say(
                f"{self.path} cannot be written: no room for {len(line):,} bytes; its lines wait in memory, make room"
            )
        self._log_waits = waits
        self._tracking.event(event, step, fields)
        if event == "stop":
            self._tracking.finish(wait=fields["reason"] == "done")

    def start(self, step: int, plan: Mapping[str, Any], *, resumed: bool) -> None:
        """The start event and the opening lines, once; and the event and the lines of a phase where it begins."""
        lines = opening_lines(plan)
        if not self._has_started:
            fields = {"format": FORMAT_VERSION, **self.about, "time": round(time.time(), 3), "plan": plan}
            self.event("start", step, fields | ({"resumed_from": step} if resumed else {}))
        if plan["phases"] > 1:
            title = f"phase      {plan['phase'] + 1} of {plan['phases']}: {plan['phase_name']}"
            lines = [title, *(lines[2:] if self._has_started else lines)]
            if step == plan["first_step"]:
                self.event("phase", step, {"time": round(time.time(), 3), "plan": plan})
        for line in lines:
            self.say(line)
        if resumed and not self._has_started:
            self.say(f"resumed    from step {step:,}")
        self._tracking.start(
            name=str(self.about["run"]),
            kind=str(self.about.get("kind", "")),
            first_step=step,
            config={**self.about, **plan},
        )
        self._has_started, self._has_table = True, False

    def sync(self) -> None:
        """Have what is logged on the disk."""
        self._log.sync()

    def place(self) -> tuple[int, str]:
        """Length of the log so far, and lines for which the disk had no room yet."""
        return self._log.num_bytes(), self._log.waiting.decode()

    def rewind(self, num_bytes: int, step: int, *, unwritten: str = "") -> None:
        """Cut off what was logged after the checkpoint of `step`, at which the log was `num_bytes` long and lines were
        `unwritten`.

        The line that tells of that checkpoint itself was written just after it and stays.
        """
        then = unwritten.encode()
        with self.path.open("rb") as file:
            kept = file.read(num_bytes)
            kept = kept[: kept.rfind(b"\n") + 1]
            after = file.read().removeprefix(then)
        after = after[: after.find(b"\n") + 1]
        if _is_checkpoint(after, step):
            then += after
        self._log.truncate(len(kept), then=then)

    def steps(self, step: int, total_steps: int | None, fields: Mapping[str, Any]) -> None:
        """The step event, in the log and before people's eyes."""
        self.event("step", step, fields)
        self._view.show(step, total_steps, fields)

    def evaluation(self, step: int, place: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """A row of the table of evaluations, with the first few scores; its head comes before the first row."""
        scores = dict(itertools.islice(result["scores"].items(), _SHOWN_SCORES))
        names = ["step", "epoch", "training loss", "validation loss", *scores, "time"]
        widths = [max(7, len(name)) for name in names]
        training_loss = "" if result["training_loss"] is None else f"{result['training_loss']:.4f}"
        cells = [f"{step:,}", f"{place['epoch']:.2f}", training_loss, f"{result['loss']:.4f}"]
        cells += [f"{value:.4f}" for value in scores.values()]
        cells += [clock_text(place["elapsed_seconds"])]
        if not self._has_table:
            self._has_table = True
            if "unigram_entropy" in result:
                self.say(f"baseline   {result['unigram_entropy']:.4f} is the loss at hidden words by frequency alone")
            self.say("  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True)))
        row = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        self.say(row + ("  best" if result["best"] else ""))


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Events of a metrics.jsonl in order; a torn last line is passed over, any other is a `DataError`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"not a line of JSON ({error})", path=path, line=number) from error


def opening_lines(plan: Mapping[str, Any]) -> list[str]:
    """What is about to be run, in a few lines."""
    steps = "as many as the budget holds" if plan["steps"] is None else f"{plan['steps']:,}"
    epochs = "" if plan["epochs"] is None else f", {plan['epochs']:.3g} epochs"
    frozen = (
        f"; {plan['frozen_parameters']:,} of them frozen ({plan['frozen_tensors']} tensors), "
        f"{plan['trained_parameters']:,} train ({plan['trained_tensors']} tensors)"
        if plan.get("frozen_tensors")
        else ""
    )
    return [
        f"device     {plan['device_count']} x {plan['device']}, {plan['dtype']}, {plan['threads']} threads",
        f"model      {plan['parameters']:,} parameters{frozen}",
        f"examples   {plan['examples']:,}{epochs}",
        f"batch      {plan['micro_batch_size']} (micro-batch) x {plan['accumulation']} (accumulation) "
        f"x {plan['ranks']} (ranks) = {plan['batch_size']}",
        f"steps      {steps}",
    ]


def _is_checkpoint(line: bytes, step: int) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return bool(event.get("event") == "checkpoint" and event.get("step") == step)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
