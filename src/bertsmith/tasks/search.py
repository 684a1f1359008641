"""Many fine-tunings of one recipe: every combination of a grid, each with several seeds; the best by validation score.

The test rows are touched once, at the end, by the settings that the validation rows chose. A row a trial is appended to
search.jsonl as soon as it is there, and a search that was stopped goes on after the last of them.
"""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.config import Recipe
from bertsmith.errors import UsageError
from bertsmith.runtime import Runtime
from bertsmith.tasks.finetune import FinetuneResult, finetune
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.trials import Log, Standing, Trial, in_words, made_from, run_trial, standings_of, with_settings

PAPER_GRID: Mapping[str, tuple[Any, ...]] = {
    "batch_size": (16, 32),
    "learning_rate": (5e-5, 3e-5, 2e-5),
    "epochs": (2, 3, 4),
}
"""Devlin et al. 2018, appendix A.3."""


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
        grid: default: that of the BERT paper (`PAPER_GRID`); empty: the recipe as it is, with each seed.
        seeds: the recipe's own, and the numbers after it.
        tables: `model`, `train`, `validation`, `test` in memory, and `head`, as `finetune` takes them.

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
    known = [
        with_settings(recipe, settings, seed) for settings, seed in plans
    ]  # all keys and values are looked at first
    log = Log(folder, made_from(recipe, grid, tables))
    sign = -1 if metric in TASKS[config.task].smaller_is_better else 1
    trials: list[Trial] = []
    for number, ((settings, seed), trial_recipe) in enumerate(zip(plans, known, strict=True), start=1):
        trial = log.find(settings, seed)
        if trial is None:
            trial = run_trial(trial_recipe, folder / "trial", settings, seed, runtime=runtime, tables=tables)
            log.add(trial)
        trials.append(trial)
        best = max(sign * one.score for one in trials) * sign
        told = f"{in_words(settings)}  seed {seed}  {trial.score:.4f}  best {best:.4f}"
        console.print(f"trial {number}/{len(plans)}  {told}", markup=False, highlight=False)
    return conclude(recipe, folder, trials, console=console, runtime=runtime, tables=tables)


def conclude(
    recipe: Recipe,
    folder: Path,
    trials: Sequence[Trial],
    *,
    console: Console,
    runtime: Runtime | None,
    tables: Mapping[str, Any],
) -> SearchResult:
    """Fine-tune with the best settings of trials that were not ended early, and score them on the test files."""
    config = recipe.finetune
    assert config is not None
    task = TASKS[config.task]
    metric = config.metric or task.default_metric
    standings = standings_of(trials, -1 if metric in task.smaller_is_better else 1)
    chosen = with_settings(recipe, standings[0].settings, recipe.seed if config.seed is None else config.seed)
    final = finetune(chosen, folder / "finetune", console=console, runtime=runtime, **tables)
    return SearchResult(final.table[-1].metric, tuple(trials), standings, final)


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
    if any(not values for values in grid.values()):
        raise UsageError("a search needs at least one value for each key")
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
