"""A run's metrics.jsonl, read bit by bit: step lines as columns, all else as events, and words for what is wrong.

A log may hold a million step lines. They are parsed by Arrow, some megabytes at a time, and kept as numbers only. Where
lines cannot be read, or tell two values of one step, nothing is guessed: there is a gap, and a sentence that says so.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json

from bertsmith.analysis.markup import number
from bertsmith.analysis.tail import Tail, object_of

Floats: TypeAlias = npt.NDArray[np.float64]

_STEP_LINE = (b'{"event": "step"', b'{"event":"step"')
_SLOW_LINES = 32
"""So few lines are parsed one by one, where Arrow did not take them."""
_NAMED_STEPS = 5


@dataclass(frozen=True)
class Steps:
    """Step lines in the order of their steps, each step once."""

    step: Floats = field(default_factory=lambda: np.empty(0))
    columns: Mapping[str, Floats] = field(default_factory=dict)
    """Field -> values; of a field in an object `losses.mlm`. NaN where a line has no finite number there."""
    gaps: Floats = field(default_factory=lambda: np.empty(0))
    """Steps after which lines could not be read."""

    def __len__(self) -> int:
        return len(self.step)

    def column(self, name: str) -> Floats:
        """Values of a field; all NaN where no line has it."""
        return self.columns[name] if name in self.columns else np.full(len(self), np.nan)

    def mean(self, name: str) -> float | None:
        """Mean of a field over the lines that have it."""
        known = self.column(name)
        known = known[np.isfinite(known)]
        return float(known.mean()) if len(known) else None

    def largest(self, name: str) -> float | None:
        known = self.column(name)
        known = known[np.isfinite(known)]
        return float(known.max()) if len(known) else None

    def inner(self, outer: str) -> list[str]:
        """Names of the numbers in an object: `losses` -> `mlm`, `nsp`."""
        return [name.removeprefix(f"{outer}.") for name in self.columns if name.startswith(f"{outer}.")]

    def events(self) -> Iterator[dict[str, Any]]:
        """Lines as objects, one after the other; only with what is a number in them."""
        for i, step in enumerate(self.step):
            event: dict[str, Any] = {"event": "step", "step": int(step)}
            for name, values in self.columns.items():
                if np.isfinite(values[i]):
                    inside = event
                    *outer, last = name.split(".")
                    for key in outer:
                        inside = inside.setdefault(key, {})
                    inside[last] = float(values[i])
            yield event


class LogReader:
    """Reads what is new at each `read`; after a resume cut the log off, all of it again."""

    def __init__(self, path: Path):
        self._path = path
        self._tail = Tail(path)
        self._forget()

    def _forget(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        """All but step lines."""
        self._parts: list[dict[str, Floats]] = []
        self._waiting: list[tuple[int, bytes]] = []
        """Step lines with their numbers in the file, to be parsed together."""
        self._gaps: list[float] = []
        self._last_step = 0.0
        self._line = 0
        self._broken: list[int] = []
        self._num_broken = 0

    def read(self) -> tuple[Steps, list[str]]:
        """All step lines so far, and what is wrong with the log, in words. Raises `OSError` where it is gone."""
        while True:
            anew, lines = self._tail.look()
            if anew:
                self._forget()
            for line in lines:
                self._take(line)
            self._parse_waiting()
            if not self._tail.is_behind:
                break
        steps, said = _in_order(self._parts, np.array(self._gaps))
        if len(self._parts) > 1:
            self._parts = [_joined(self._parts)]
        return steps, [*self._broken_lines(), *said]

    def _take(self, line: bytes) -> None:
        self._line += 1
        if line.startswith(_STEP_LINE):
            self._waiting.append((self._line, line))
            return
        event = object_of(line)
        if event is None:
            self._parse_waiting()
            self._lost(self._line)
        elif event.get("event") == "step":
            self._waiting.append((self._line, line))
        else:
            resumed_from = number(event.get("resumed_from"))
            if resumed_from is not None:
                self._go_back(resumed_from)
            self.events.append(event)

    def _go_back(self, step: float) -> None:
        """What a resume did again replaces what stood after its checkpoint."""
        self._parse_waiting()
        self.events = [kept for kept in self.events if (number(kept.get("step")) or 0) <= step]
        self._parts = [_chosen(part, part["step"] <= step) for part in self._parts]
        self._gaps = [gap for gap in self._gaps if gap <= step]
        self._last_step = min(self._last_step, step)

    def _lost(self, line: int) -> None:
        self._gaps.append(self._last_step)
        self._num_broken += 1
        if len(self._broken) < _NAMED_STEPS:
            self._broken.append(line)

    def _parse_waiting(self) -> None:
        numbers = [at for at, _ in self._waiting]
        lines = [line for _, line in self._waiting]
        self._waiting = []
        for begin, end, part in _stretches(lines):
            if part is not None:
                self._keep(part)
                continue
            for i in range(begin, end):
                event = object_of(lines[i])
                if event is None or number(event.get("step")) is None:
                    self._lost(numbers[i])
                else:
                    self._keep({name: np.array([value]) for name, value in _numbers(event)})

    def _keep(self, part: dict[str, Floats]) -> None:
        if len(part["step"]):
            self._parts.append(part)
            self._last_step = float(part["step"][-1])

    def _broken_lines(self) -> list[str]:
        said = []
        if self._num_broken:
            many = self._num_broken > 1
            shown = ", ".join(map(str, self._broken)) + (", …" if self._num_broken > len(self._broken) else "")
            said.append(
                f"{self._num_broken:,} line{'s' * many} of the log cannot be read (line{'s' * many} {shown}): "
                f"{'gaps' if many else 'a gap'} in the curves"
            )
        if self._tail.has_torn_end:
            said.append("the last line of the log is torn: the run is at work, or was killed")
        return said


def _stretches(lines: Sequence[bytes]) -> Iterator[tuple[int, int, dict[str, Floats] | None]]:
    """Begin, end and columns of stretches that Arrow can parse whole; None for small ones with what it cannot."""
    open_stretches = [(0, len(lines))] if lines else []
    while open_stretches:
        begin, end = open_stretches.pop()
        part = _by_arrow(lines[begin:end])
        if part is not None or end - begin <= _SLOW_LINES:
            yield begin, end, part
        else:
            middle = (begin + end) // 2
            open_stretches += [(middle, end), (begin, middle)]


def _by_arrow(lines: Sequence[bytes]) -> dict[str, Floats] | None:
    """Columns of step lines; None where a line is odd in any way, so that it is looked at alone."""
    text = b"".join(lines)
    try:
        options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
        table = pyarrow.json.read_json(io.BytesIO(text), read_options=options)
        while any(pa.types.is_struct(column.type) for column in table.columns):
            table = table.flatten()
        columns: dict[str, Floats] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                columns[name] = _finite(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    except (pa.ArrowException, ValueError, RecursionError):
        return None
    steps = columns.get("step")
    return columns if steps is not None and len(steps) == len(lines) and not np.isnan(steps).any() else None


def _finite(values: npt.NDArray[Any]) -> Floats:
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)


def _numbers(event: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, float]]:
    for key, value in event.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{inside}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found = number(value)
            yield f"{inside}{key}", np.nan if found is None else found


def _chosen(part: Mapping[str, Floats], rows: npt.NDArray[Any]) -> dict[str, Floats]:
    return {name: values[rows] for name, values in part.items()}


def _joined(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([part[name] if name in part else np.full(len(part["step"]), np.nan) for part in parts])
        for name in names
    }


def _in_order(parts: Sequence[Mapping[str, Floats]], gaps: Floats) -> tuple[Steps, list[str]]:
    """Lines by step. Of lines of one step that tell different values, none is believed."""
    if not parts:
        return Steps(gaps=np.unique(gaps)), []
    columns, said = _joined(parts), []
    backwards = columns["step"][1:][np.diff(columns["step"]) < 0]
    if len(backwards):
        said.append(f"the log is not in order at {_steps(backwards)}: its lines are shown by their steps")
        columns = _chosen(columns, np.argsort(columns["step"], kind="stable"))
    repeated = np.diff(columns["step"]) == 0
    if repeated.any():
        columns, of_repeated = _once(columns, repeated)
        said += of_repeated
    step = columns.pop("step")
    if "loss" in columns and np.isnan(columns["loss"]).any():
        said.append(f"no finite loss at {_steps(step[np.isnan(columns['loss'])])}: gaps in the curve")
    return Steps(step, columns, np.unique(gaps)), said


def _once(columns: Mapping[str, Floats], repeated: npt.NDArray[np.bool_]) -> tuple[dict[str, Floats], list[str]]:
    steps = columns["step"]
    last = np.append(~repeated, True)
    group = np.concatenate([[0], np.cumsum(~repeated)])
    differ = np.zeros(group[-1] + 1, dtype=bool)
    kept: dict[str, Floats] = {}
    for name, values in columns.items():
        same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
        torn = np.zeros(len(differ), dtype=bool)
        torn[group[1:][repeated & ~same]] = True
        differ |= torn
        kept[name] = np.where(torn, np.nan, values[last])
    said = [f"{int(repeated.sum()):,} lines repeat a step that was logged before ({_steps(steps[1:][repeated])})"]
    if differ.any():
        said.append(f"lines of one step tell different values at {_steps(steps[last][differ])}: gaps in the curves")
    return kept, said


def _steps(steps: Floats) -> str:
    """`step 7`, `steps 7, 8`, `12,345 steps: 7, 8, 9, 10, 11, …`."""
    found = np.unique(steps)
    shown = ", ".join(f"{int(step):,}" for step in found[:_NAMED_STEPS])
    if len(found) == 1:
        return f"step {shown}"
    return f"steps {shown}" if len(found) <= _NAMED_STEPS else f"{len(found):,} steps: {shown}, …"
