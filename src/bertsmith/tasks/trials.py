"""Fine-tunings that a search tries: one run each, and search.jsonl, where a row of each is kept."""

import io
import json
import shutil
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.artifact import canonical, write_text
from bertsmith.config import Recipe, parse_recipe
from bertsmith.errors import ArtifactError, UsageError
from bertsmith.model.weights import resolve_model_dir
from bertsmith.runtime import Runtime
from bertsmith.tasks.evaluations import read_evaluations
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.inputs import augment_model_digest
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.splits import read_splits
from bertsmith.tasks.starting_model import head_digest
from bertsmith.training.plan import Evaluation
from bertsmith.training.run_dir import model_digest

_OF_THE_END = {"test", "baselines", "literature", "refit", "slice_columns", "calibrate"}
"""Keys that bear on the chosen settings' own run alone."""


@dataclass(frozen=True)
class Trial:
    """One combination of settings with one seed, and what came of it."""

    settings: Mapping[str, Any]
    seed: int
    score: float
    """Of the best weights on the validation rows."""
    step: int
    """At which they were."""
    seconds: float
    scores: Sequence[float] = ()
    """Of each evaluation, in order."""
    pruned: bool = False
    """Ended early, because it was hopeless."""


@dataclass(frozen=True)
class Standing:
    """One combination over its seeds."""

    settings: Mapping[str, Any]
    mean: float
    deviation: float
    """Of the seeds' scores; 0 with one seed."""
    best: float
    seeds: int


def with_settings(recipe: Recipe, settings: Mapping[str, Any], seed: int) -> Recipe:
    """The recipe with these keys of [finetune]; raises `RecipeError` for a key or value that cannot be."""
    raw = json.loads(recipe.model_dump_json(exclude_unset=True))
    raw["finetune"] = {**raw["finetune"], **settings, "seed": seed}
    return parse_recipe(raw, where=f"search of {recipe.name!r}")


Watch = Callable[[Sequence[float]], bool]
"""Of all scores of a trial so far, an evaluation each: whether the trial is not worth going on with."""


def run_trial(
    recipe: Recipe,
    folder: Path,
    settings: Mapping[str, Any],
    seed: int,
    *,
    runtime: Runtime | None,
    tables: Mapping[str, Any],
    watch: Watch | None = None,
) -> Trial:
    """One trial; its folder, some hundred megabytes, is removed when its score is known. A stopped one goes on."""
    config = recipe.finetune
    assert config is not None
    share = 0.0 if tables.get("test") else config.test_share  # as in the run of the settings that are chosen
    bare = {"test": {}, "test_share": share, "baselines": (), "refit": False, "slice_columns": (), "calibrate": False}
    to_its_best = config.model_copy(update=bare)
    untested = recipe.model_copy(update={"finetune": to_its_best})
    started = time.monotonic()
    quiet = Console(file=io.StringIO())

    def hopeless(_step: int, evaluation: Evaluation) -> bool:
        """Told of all evaluations, also of those before a stop."""
        rows = read_evaluations(folder / "metrics.jsonl", str(evaluation.metric))
        return watch is not None and watch([row.score for row in rows])

    result = finetune(
        untested, folder, console=quiet, runtime=runtime, on_evaluation=hopeless, **{**tables, "test": {}}
    )
    best = next(row for row in reversed(result.table) if row.best)
    scores = tuple(row.score for row in result.table)
    is_whole = result.table[-1].epoch >= config.epochs
    pruned = watch is not None and watch(scores) and not is_whole
    shutil.rmtree(folder)
    seconds = round(time.monotonic() - started, 1)
    return Trial(dict(settings), seed, best.score, best.step, seconds, scores, pruned)


def standings_of(trials: Sequence[Trial], sign: int) -> tuple[Standing, ...]:
    """By settings, the best first; trials that were ended early do not count."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.pruned:
            continue
        groups.setdefault(canonical(trial.settings), []).append(trial)
    found = [
        Standing(
            settings=some[0].settings,
            mean=statistics.fmean(trial.score for trial in some),
            deviation=statistics.stdev(trial.score for trial in some) if len(some) > 1 else 0.0,
            best=sign * max(sign * trial.score for trial in some),
            seeds=len(some),
        )
        for some in groups.values()
    ]
    return tuple(sorted(found, key=lambda one: -sign * one.mean))


def made_from(recipe: Recipe, keys: Collection[str], tables: Mapping[str, Any]) -> dict[str, Any]:
    """All that scores depend on besides the trial: keys but these, the rows as they are now, the files of models, and
    a head of one's own.
    """
    config = recipe.finetune
    assert config is not None
    chosen = tables.get("model") or config.model
    if chosen is None:
        raise UsageError("no model to fine-tune; set finetune.model to a directory, a run or a hub name")
    if config.learn_on is not None:
        raise UsageError("a search takes no [finetune.learn_on]; search without it, then learn on with what it found")
    train, validation = tables.get("train"), tables.get("validation")
    task = TASKS[config.task].with_options(**config.task_options)
    share = 0.0 if tables.get("test") else config.test_share
    splits = read_splits(config, task, seed=recipe.seed, test_share=share, train=train, validation=validation)
    fixed = config.model_dump(mode="json", exclude={*keys, *_OF_THE_END, "seed", "model", "train"})
    head = tables.get("head")
    return {
        "config": fixed,
        "rows": splits.training_digest(),
        "model": model_digest(resolve_model_dir(chosen)),
        "augment_model": augment_model_digest(config, allow_pickle=recipe.runtime.allow_pickle),
        "head": None if head is None else head_digest(head),
    }


class Log:
    """search.jsonl: what the search is of, then a trial a line. One of another recipe, rows or model is begun anew."""

    def __init__(self, folder: Path, made_from: Mapping[str, Any]):
        self.path = folder / "search.jsonl"
        self.header = {"search": json.loads(json.dumps(made_from))}
        folder.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        kept = rows if rows[:1] == [self.header] else [self.header]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))  # without a torn last line

    def trials(self) -> list[Trial]:
        """All of them, in the order in which they were tried."""
        return [Trial(**row) for row in self._read()[1:]]

    def find(self, settings: Mapping[str, Any], seed: int) -> Trial | None:
        for trial in self.trials():
            if canonical(trial.settings) == canonical(settings) and trial.seed == seed:
                return trial
        return None

    def add(self, trial: Trial) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(trial)) + "\n")

    def _read(self) -> list[dict[str, Any]]:
        """Whole lines; a last one that a crash tore is left out."""
        if not self.path.exists():
            return []
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
            for row in rows[1:]:
                Trial(**row)
        except (ValueError, TypeError, OSError) as error:
            raise ArtifactError(f"{self.path} cannot be read ({error}); remove it to begin the search anew") from error
        return rows


def in_words(settings: Mapping[str, Any]) -> str:
    told = (f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items())
    return "  ".join(told) or "as it is"
