"""What is on disk under runs/NAME, whatever part of it exists: also in the middle of a run, or after a crash."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.analysis.markup import number
from bertsmith.analysis.run_log import LogReader, Steps
from bertsmith.analysis.tail import object_of
from bertsmith.errors import ArtifactError

STAGES = ("corpus", "tokenizer", "examples", "labels")
"""Artifact directories, in the order in which a run writes them."""
_RUN_ORDER = {"pretrain": 0, "finetune": 1}


@dataclass(frozen=True)
class Stage:
    """A finished artifact: its counts and the seconds it took."""

    name: str
    counts: Mapping[str, Any]
    seconds: float | None


@dataclass(frozen=True)
class Training:
    """One run directory: what metrics.jsonl says, resumes already folded in."""

    name: str
    path: Path
    kind: str
    steps: Steps
    events: tuple[Mapping[str, Any], ...]
    """All but step lines."""
    notes: tuple[str, ...]
    """What is wrong with the log, in words."""

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Events of one kind, in order. Of step lines there may be a million: `steps` has them as columns."""
        if kind == "step":
            return list(self.steps.events())
        return [event for event in self.events if event.get("event") == kind]

    @property
    def start(self) -> Mapping[str, Any]:
        """The last start event (after a resume: that of the resumed part)."""
        starts = self.of("start")
        return starts[-1] if starts else {}

    @property
    def plan(self) -> Mapping[str, Any]:
        return mapping(self.start.get("plan"))

    @property
    def last_step(self) -> int:
        last = int(self.steps.step[-1]) if len(self.steps) else 0
        return max([last, *map(step_of, self.events)])

    @property
    def total_steps(self) -> int | None:
        """Planned steps; a budget's step count is known once it was decided."""
        decided = [e.get("value") for e in self.of("decision") if e.get("name") == "total_steps"]
        total = number(decided[-1] if decided else self.plan.get("steps"))
        return None if total is None else int(total)

    @property
    def elapsed_seconds(self) -> float | None:
        known = [number(event.get("elapsed_seconds")) for event in self.events]
        known.append(number(self.steps.largest("elapsed_seconds")))
        return max((seconds for seconds in known if seconds is not None), default=None)

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """The stop event, unless the run went on after it."""
        last = [event for event in self.events if event.get("event") in ("start", "stop")]
        return last[-1] if last and last[-1].get("event") == "stop" else None

    @property
    def is_done(self) -> bool:
        return self.stop is not None and self.stop.get("reason") == "done"

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe that the run directory keeps."""
        return _recipe(text_of(self.path / "recipe.toml"))

    @property
    def scores(self) -> Mapping[str, Any]:
        """scores.json of a finished fine-tuning."""
        return mapping(_json(self.path / "scores.json"))

    @property
    def predictions(self) -> list[tuple[str, Path]]:
        """(split, file) of each predictions-SPLIT.jsonl."""
        found = sorted(self.path.glob("predictions-*.jsonl"))
        return [(file.stem.removeprefix("predictions-"), file) for file in found]


@dataclass(frozen=True)
class RunFolder:
    """Everything a report is made from."""

    path: Path
    name: str
    recipe: Mapping[str, Any]
    recipe_text: str
    stages: tuple[Stage, ...]
    trainings: tuple[Training, ...]
    scores: Mapping[str, Any]
    fill_mask: tuple[Mapping[str, Any], ...]


def read_run_folder(path: Path, logs: dict[Path, LogReader] | None = None) -> RunFolder:
    """Read runs/NAME, or one run directory inside it.

    logs: readers to go on with, by run directory; new ones are put there. Reading a growing run again and again, only
    what is new is read of its logs.

    Raises `ArtifactError` where `path` is no directory, or has nothing of a run; unreadable parts are left out.
    """
    such_as = "give a folder such as runs/quickstart or runs/quickstart/finetune"
    if not path.is_dir():
        raise ArtifactError(f"{path} is not a run; {such_as}")
    recipe_text = text_of(path / "recipe.toml")
    recipe = _recipe(recipe_text)
    inner = sorted((file.parent for file in path.glob("*/metrics.jsonl")), key=_order)
    folders = [path] if (path / "metrics.jsonl").is_file() else inner
    stages = tuple(stage for stage in map(_stage, [path / name for name in STAGES]) if stage is not None)
    if not (recipe_text or folders or stages):
        raise ArtifactError(f"{path} is not a run: it has no recipe.toml, no metrics.jsonl and no stage; {such_as}")
    name = recipe.get("name") or path.resolve().name
    return RunFolder(
        path=path,
        name=f"{name} / {path.resolve().name}" if folders == [path] and path.resolve().name != name else str(name),
        recipe=recipe,
        recipe_text=recipe_text,
        stages=stages,
        trainings=tuple(_training(folder, _reader(folder, logs)) for folder in folders),
        scores=mapping(_json(path / "scores.json")),
        fill_mask=tuple(mapping(item) for item in sequence(_json(path / "fill_mask.json"))),
    )


def read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Objects of a .jsonl file; a line that is torn or no object is passed over."""
    with path.open("rb") as file:
        for line in file:
            if (value := object_of(line)) is not None:
                yield value


def mapping(value: object) -> Mapping[str, Any]:
    """`value` where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> list[Any]:
    """`value` where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def step_of(event: Mapping[str, Any]) -> int:
    return int(number(event.get("step")) or 0)


def _reader(folder: Path, logs: dict[Path, LogReader] | None) -> LogReader:
    log = LogReader(folder / "metrics.jsonl")
    return log if logs is None else logs.setdefault(folder, log)


def _training(path: Path, log: LogReader) -> Training:
    try:
        steps, notes = log.read()
    except OSError as error:
        steps, notes = Steps(), [f"its log cannot be read: {error}"]
    starts = [event for event in log.events if event.get("event") == "start"]
    kind = str(starts[-1].get("kind") or "") if starts else ""
    fallback = "pretrain" if path.name.startswith("pretrain") else "finetune"
    return Training(path.resolve().name, path, kind or fallback, steps, tuple(log.events), tuple(notes))


def _stage(path: Path) -> Stage | None:
    manifest = mapping(_json(path / "manifest.json"))
    if not manifest:
        return None
    seconds = number(mapping(_json(path / "run.json")).get("seconds"))
    return Stage(path.name, mapping(manifest.get("counts")), seconds)


def _recipe(text: str) -> Mapping[str, Any]:
    """Empty where it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _order(path: Path) -> tuple[int, str]:
    return _RUN_ORDER.get(path.name, 2), path.name


def _json(path: Path) -> object:
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError):
        return None


def text_of(path: Path) -> str:
    """Of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
