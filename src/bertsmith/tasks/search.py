"""Many fine-tunings of one recipe: every combination of a grid, each with several seeds; the best by validation score.

The test rows are touched once, at the end, by the settings that the validation rows chose. A row a trial is appended to
search.jsonl as soon as it is there, and a search that was stopped goes on after the last of them.
"""

import io
import itertools
import json
import shutil
import statistics
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.artifact import canonical, write_text
from bertsmith.config import Recipe, parse_recipe
from bertsmith.errors import ArtifactError, UsageError
from bertsmith.model.weights import resolve_model_dir
from bertsmith.runtime import Runtime
from bertsmith.tasks.finetune import FinetuneResult, finetune
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.splits import read_splits
from bertsmith.training.run_dir import model_digest

PAPER_GRID: Mapping[str, tuple[Any, ...]] = {
    "batch_size": (16, 32),
    "learning_rate": (5e-5, 3e-5, 2e-5),
    "epochs": (2, 3, 4),
}
"""Devlin et al. 2018, appendix A.3."""

_OF_THE_END = {"test", "baselines", "literature", "refit"}
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


@dataclass(frozen=True)
class Standing:
    """One combination over its seeds."""

    settings: Mapping[str, Any]
    mean: float
    deviation: float
    """Of the seeds' scores; 0 with one seed."""
    best: float
    seeds: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    metric: str
    trials: tuple[Trial, ...]
    standings: tuple[Standing, ...]
    """Best first, by the mean over seeds."""
    final: FinetuneResult
    """The best settings, fine-tuned with the recipe's own seed and scored on its test files."""


def search(
    recipe: Recipe,
    folder: str | Path,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 1,
    console: Console | None = None,
    runtime: Runtime | None = None,
    **tables: Any,
) -> SearchResult:
    """Try every combination of `grid`, keys of `[finetune]` with their values, each with `seeds` seeds.

    Args:
        grid: default: that of the BERT paper (`PAPER_GRID`).
        seeds: the recipe's own, and the numbers after it.
        tables: `model`, `train`, `validation`, `test` in memory, as `finetune` takes them.

    Writes search.jsonl, and the final model into `folder`/finetune. Raises what `finetune` raises.
    """
    config, folder = recipe.finetune, Path(folder)
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [finetune] section")
    grid = PAPER_GRID if grid is None else grid
    console = console or Console(soft_wrap=True)
    metric = config.metric or TASKS[config.task].default_metric
    first = recipe.seed if config.seed is None else config.seed
    plans = [(settings, first + number) for settings in _combinations(grid) for number in range(seeds)]
    known = [_with(recipe, settings, seed) for settings, seed in plans]  # all keys and values are looked at first
    log = _Log(folder, _made_from(recipe, grid, tables))
    sign = -1 if metric in TASKS[config.task].smaller_is_better else 1
    trials: list[Trial] = []
    for number, ((settings, seed), trial_recipe) in enumerate(zip(plans, known, strict=True), start=1):
        trial = log.find(settings, seed)
        if trial is None:
            trial = _run(trial_recipe, folder / "trial", settings, seed, runtime=runtime, tables=tables)
            log.add(trial)
        trials.append(trial)
        best = max(sign * one.score for one in trials) * sign
        told = f"{_in_words(settings)}  seed {seed}  {metric} {trial.score:.4f}  best {best:.4f}"
        console.print(f"trial {number}/{len(plans)}  {told}", markup=False, highlight=False)
    standings = _standings(trials, sign)
    final = finetune(
        _with(recipe, standings[0].settings, first), folder / "finetune", console=console, runtime=runtime, **tables
    )
    return SearchResult(metric, tuple(trials), standings, final)


def grid_of(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`KEY=[VALUES]` as the command line has it, values in TOML; raises `UsageError` for what is none."""
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        try:
            listed = tomllib.loads(f"values = {values}")["values"] if equals else None
        except tomllib.TOMLDecodeError:
            listed = None
        if not isinstance(listed, list):
            raise UsageError(f"--grid {text!r}: write KEY=[VALUE, ...], such as epochs=[2, 3, 4]")
        found[key.strip().removeprefix("finetune.")] = tuple(listed)
    return found


def _combinations(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    if not grid or any(not values for values in grid.values()):
        raise UsageError("a search needs keys, and at least one value for each")
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _with(recipe: Recipe, settings: Mapping[str, Any], seed: int) -> Recipe:
    """The recipe with these keys of [finetune]; raises `RecipeError` for a key or value that cannot be."""
    raw = json.loads(recipe.model_dump_json(exclude_unset=True))
    raw["finetune"] = {**raw["finetune"], **settings, "seed": seed}
    return parse_recipe(raw, where=f"search of {recipe.name!r}")


def _run(
    recipe: Recipe,
    folder: Path,
    settings: Mapping[str, Any],
    seed: int,
    *,
    runtime: Runtime | None,
    tables: Mapping[str, Any],
) -> Trial:
    """One trial; its folder, some hundred megabytes, is removed when its score is known. A stopped one goes on."""
    assert recipe.finetune is not None
    to_its_best = recipe.finetune.model_copy(update={"test": {}, "baselines": (), "refit": False})
    untested = recipe.model_copy(update={"finetune": to_its_best})
    started = time.monotonic()
    quiet = Console(file=io.StringIO())
    result = finetune(untested, folder, console=quiet, runtime=runtime, **{**tables, "test": {}})
    best = next(row for row in reversed(result.table) if row.best)
    shutil.rmtree(folder)
    return Trial(dict(settings), seed, best.score, best.step, round(time.monotonic() - started, 1))


def _standings(trials: Sequence[Trial], sign: int) -> tuple[Standing, ...]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
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


def _made_from(recipe: Recipe, grid: Mapping[str, Sequence[Any]], tables: Mapping[str, Any]) -> dict[str, Any]:
    """All that scores depend on besides the trial: other keys, the rows as they are now, and the model's files."""
    config = recipe.finetune
    assert config is not None
    chosen = tables.get("model") or config.model
    if chosen is None:
        raise UsageError("no model to fine-tune; set finetune.model to a directory, a run or a hub name")
    given = {name: tables.get(name) for name in ("train", "validation")}
    task = TASKS[config.task].with_options(**config.task_options)
    share = 0.0 if tables.get("test") else config.test_share
    splits = read_splits(config, task, seed=recipe.seed, test_share=share, **given)
    fixed = config.model_dump(mode="json", exclude={*grid, *_OF_THE_END, "seed", "model", "train"})
    return {"config": fixed, "rows": splits.training_digest(), "model": model_digest(resolve_model_dir(chosen))}


class _Log:
    """search.jsonl: what the search is of, then a trial a line. One of another recipe, rows or model is begun anew."""

    def __init__(self, folder: Path, made_from: Mapping[str, Any]):
        self.path = folder / "search.jsonl"
        self.header = {"search": json.loads(json.dumps(made_from))}
        folder.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        kept = rows if rows[:1] == [self.header] else [self.header]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))  # without a torn last line

    def find(self, settings: Mapping[str, Any], seed: int) -> Trial | None:
        for row in self._read()[1:]:
            if canonical(row["settings"]) == canonical(settings) and row["seed"] == seed:
                return Trial(**row)
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


def _in_words(settings: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
