"""What the table of runs says of one run, from its log alone, read line by line as the lines come.

A log may hold a million step lines, and a folder thousands of logs: of the step lines only the last few are parsed, and
some in between for the small curve. Nothing of a line is kept but the numbers told of.
"""

import itertools
import re
import statistics
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bertsmith.analysis.folder import mapping, step_of, text_of
from bertsmith.analysis.markup import duration, number, words
from bertsmith.analysis.tail import Tail, object_of

State = Literal["waiting", "running", "done", "stopped", "failed", "killed"]
SILENT_SECONDS = 120.0
"""A log that says nothing for so long, for ten times its usual pause, and for three times the longest evaluation, is
taken for that of a killed run."""
SILENT_AT_START_SECONDS = 600.0
"""The same before the first step line: rows are read, steps compiled."""
CURVE_POINTS = 32
LONGEST = 300
"""Characters of a text from a log, in the table."""
_STEP = re.compile(rb'\{"event": ?"step"')
_METRIC = re.compile(r'^metric = "(\w+)"', re.MULTILINE)


class Summary:
    """One run: `update` reads what is new, `row` says what is known."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._tail = Tail(folder / "metrics.jsonl")
        self._forget()

    def _forget(self) -> None:
        self.start: Mapping[str, Any] = {}
        self.stop: Mapping[str, Any] | None = None
        self.begun: float | None = None
        self.step = 0
        self.total: float | None = None
        self.loss: float | None = None
        self.elapsed_seconds: float | None = None
        self.best: Mapping[str, Any] = {}
        self.broken_lines = 0
        self._evaluation_seconds = 0.0
        self._recent: deque[bytes] = deque(maxlen=8)
        self._times: deque[float] = deque(maxlen=9)
        """Seconds at which the last step lines in a row were written, of this start of the run."""
        self._curve: list[float] = []
        self._stride, self._num_steps = 1, 0

    @property
    def is_behind(self) -> bool:
        return self._tail.is_behind

    def update(self) -> bool:
        """Read what is new; False where there was nothing. Raises `OSError` where the log is gone."""
        anew, lines = self._tail.look()
        if anew:
            self._forget()
        for line in lines:
            if _STEP.match(line):
                if len(self._recent) == self._recent.maxlen:
                    self._times.clear()
                self._recent.append(line)
                if self._num_steps % self._stride == 0:
                    self._draw(line)
                self._num_steps += 1
            else:
                self._read_recent()
                self._event(self._parsed(line))
        self._read_recent()
        return anew or bool(lines)

    def row(self, name: str, now: float) -> dict[str, Any]:
        """What a row of the table shows, as JSON; `now` in Unix time."""
        state, said = self._state(now)
        metric, score = self._score()
        return {
            "name": name,
            "kind": str(self.start.get("kind") or "")[:LONGEST],
            "task": str(self.start.get("task") or "")[:LONGEST],
            "state": state,
            "said": said[:LONGEST],
            "step": self.step,
            "total": self.total,
            "loss": _short(self.loss),
            "metric": metric[:LONGEST],
            "score": _short(score),
            "seconds": _short(self.elapsed_seconds),
            "begun": self.begun,
            "changed": round(self._tail.modified_seconds),
            "curve": list(self._curve),
            "broken": self.broken_lines,
        }

    def _parsed(self, line: bytes) -> Mapping[str, Any]:
        event = object_of(line)
        self.broken_lines += event is None
        return event or {}

    def _event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind == "start":
            self.start, self.stop = event, None
            self._times.clear()
            if self.begun is None:
                self.begun = number(event.get("time"))
        if kind in ("start", "phase"):
            self.total = number(mapping(event.get("plan")).get("steps")) or self.total
        elif kind == "decision" and event.get("name") == "total_steps":
            self.total = number(event.get("value")) or self.total
        elif kind == "evaluation":
            self._evaluation_seconds = max(self._evaluation_seconds, number(event.get("seconds")) or 0.0)
            if event.get("best") or not self.best.get("best"):
                self.best = {key: event.get(key) for key in ("best", "loss", "scores")}
        elif kind == "stop":
            self.stop = event
        resumed = number(event.get("resumed_from"))
        self.step = int(resumed) if resumed is not None else max(self.step, step_of(event))
        self.elapsed_seconds = number(event.get("elapsed_seconds")) or self.elapsed_seconds

    def _read_recent(self) -> None:
        """The last step lines; of those before them nothing is told."""
        for line in self._recent:
            event = self._parsed(line)
            self._event(event)
            self.loss = number(event.get("loss")) if "loss" in event else self.loss
            seconds = number(event.get("elapsed_seconds"))
            if seconds is not None:
                self._times.append(seconds)
        self._recent.clear()

    def _draw(self, line: bytes) -> None:
        """Every so-many-th loss: where there are too many, every other is dropped, and from then on skipped."""
        loss = number((object_of(line) or {}).get("loss"))
        if loss is not None:
            self._curve.append(float(f"{loss:.4g}"))
        if len(self._curve) >= CURVE_POINTS:
            self._curve, self._stride = self._curve[::2], 2 * self._stride

    def _state(self, now: float) -> tuple[State, str]:
        if self.stop is not None:
            reason = str(self.stop.get("reason") or "unknown")
            if reason == "done":
                return "done", ""
            message = str(self.stop.get("message") or "")
            return ("stopped", f"by {reason}") if reason.startswith("SIG") else ("failed", message or reason)
        patience = self._patience_seconds()
        if now - self._tail.modified_seconds > patience:
            return "killed", f"a guess: no line for over {duration(patience)}, and none that tells of an end"
        return "running", ""

    def _patience_seconds(self) -> float:
        """How long the log may say nothing before its run is taken for killed."""
        if not self._times:
            return SILENT_AT_START_SECONDS
        pauses = [after - before for before, after in itertools.pairwise(self._times)]
        usual = statistics.median(pauses) if pauses else 0.0
        return max(SILENT_SECONDS, 10 * usual, 3 * self._evaluation_seconds)

    def _score(self) -> tuple[str, float | None]:
        """The best evaluation's score by the metric that chooses: of a pre-training its loss."""
        scores = mapping(self.best.get("scores"))
        if self.start.get("kind") == "pretrain" or not scores:
            return "validation loss", number(self.best.get("loss"))
        chosen = _METRIC.search(text_of(self.folder / "recipe.toml"))
        metric = chosen[1] if chosen and chosen[1] in scores else next(iter(scores))
        return words(metric), number(scores[metric])


def waiting_row(name: str, changed: float) -> dict[str, Any]:
    """The row of a run whose first training has not begun; `changed` in Unix time."""
    unknown = dict.fromkeys(("step", "total", "loss", "score", "seconds", "begun"))
    said = "no training has begun: its text is being prepared, or was"
    known = {"name": name, "kind": "", "task": "", "state": "waiting", "said": said, "metric": ""}
    return {**known, **unknown, "changed": round(changed), "curve": [], "broken": 0}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
