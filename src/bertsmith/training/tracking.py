"""Events on their way to trackers: nothing that a tracker does, or fails to do, holds training up.

Each runs in a process of its own (`trackers`). One that is not installed, that raises, or that takes nothing in any
more is told of in one line and switched off.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_json
from bertsmith.errors import MissingExtraError
from bertsmith.training.trackers import Run

ID_FILE = "trackers.json"
_MOST_WAITING_BYTES = 1_000_000
_FINISH_SECONDS = 30.0
_PREFIX = {"step": "train", "evaluation": "validation"}


class Tracking:
    """The trackers of one run: `names` of `trackers.TRACKERS`; `say` prints a line."""

    def __init__(self, names: Sequence[str], folder: Path, say: Callable[[str], None]):
        self.names, self.folder, self.say = names, folder, say
        self._at_work: list[_Process] = []
        self._has_started = False

    def start(self, *, name: str, kind: str, first_step: int, config: Mapping[str, Any]) -> None:
        """Once for a process, whatever the number of phases."""
        if self._has_started or not self.names:
            return
        self._has_started = True
        folder = self.folder.absolute()
        run = Run(name, kind, str(folder), _stable_id(folder), first_step, dict(_flat(config)))
        for tracker in self.names:
            if importlib.util.find_spec(tracker) is None:
                self.say(str(MissingExtraError(tracker, "track")))
            else:
                self._at_work.append(process := _Process(tracker))
                process.send(asdict(run))

    def event(self, event: str, step: int, fields: Mapping[str, Any]) -> None:
        """Pass the numbers of a step or an evaluation on."""
        if not self._at_work or event not in _PREFIX:
            return
        numbers = {f"{_PREFIX[event]}/{name}": value for name, value in _flat(fields) if _is_number(value)}
        for process in list(self._at_work):
            process.send({"step": step, "values": numbers})
            self._hear(process)

    def finish(self, *, wait: bool) -> None:
        """Let them end; with `wait`, for as long as half a minute, so that all is written or sent."""
        for process in list(self._at_work):
            if not process.end(_FINISH_SECONDS if wait else 0.0) and wait:
                self.say(f"{process.name} did not finish within {_FINISH_SECONDS:g} s and is switched off")
                process.kill()
            else:
                self._hear(process)
            process.close()
        self._at_work = []

    def _hear(self, process: "_Process") -> None:
        for answer in process.answers():
            if "say" in answer:
                self.say(f"tracker    {answer['say']}")
            else:
                self.say(f"{process.name} failed and is switched off: {answer['error']}")
                process.failed = True
        if process.waiting_bytes > _MOST_WAITING_BYTES:
            self.say(f"{process.name} takes nothing in any more and is switched off")
            process.failed = True
        if not process.failed and process.died():
            self.say(f"{process.name} ended by itself and is switched off")
            process.failed = True
        if process.failed and process in self._at_work:
            process.kill()
            process.close()
            self._at_work.remove(process)


class _Process:
    """A tracker's process and the pipes to and from it, neither of which is ever waited on."""

    def __init__(self, name: str):
        self.name = name
        self.failed = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bertsmith.training.trackers", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for training alone, which then lets this end
        )
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._pipes = (self._process.stdin, self._process.stdout)
        self._input, self._output = (pipe.fileno() for pipe in self._pipes)
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._unsent, self._unread = b"", b""

    @property
    def waiting_bytes(self) -> int:
        return len(self._unsent)

    def send(self, message: Mapping[str, Any]) -> None:
        self._unsent += json.dumps(message).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._input, self._unsent) :]
        except BlockingIOError:
            pass  # kept for the next time
        except BrokenPipeError:
            self._unsent = b""  # it has ended, and its last answer says why

    def answers(self) -> Iterator[dict[str, str]]:
        """Whole lines that have come in."""
        try:
            while part := os.read(self._output, 65_536):
                self._unread += part
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b"\n")
        yield from map(json.loads, lines)

    def died(self) -> bool:
        return self._process.poll() not in (None, 0)

    def end(self, seconds: float) -> bool:
        """Send what is left, say that nothing follows, and wait so long at most; False where it is still at work."""
        deadline = time.monotonic() + seconds
        while self._unsent and time.monotonic() < deadline:
            time.sleep(0.02)
            self._write()
        self._pipes[0].close()
        try:
            self._process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Nothing is heard of it any more; one that is still at work goes on to its end."""
        for pipe in self._pipes:
            pipe.close()


def _stable_id(folder: Path) -> str:
    """Of the run in this folder: made once, kept beside its log."""
    path = folder / ID_FILE
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        made = uuid.uuid4().hex
        write_json(path, {"id": made})
        return made


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | None]]:
    """Plain values, with those of inner tables under NAME/INNER; lists are left out."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif value is None or isinstance(value, str | int | float):
            yield f"{prefix}{name}", value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
