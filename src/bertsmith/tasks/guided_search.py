"""A search whose next settings follow from what came of those before; trials that are hopeless end early.

As with a grid, the test rows are touched once, at the end, and search.jsonl has a row a trial. A search that was
stopped, in the middle of a trial too, goes on as if it never had been.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.config import Recipe
from bertsmith.errors import UsageError
from bertsmith.runtime import Runtime
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.search import SearchResult, conclude
from bertsmith.tasks.search_space import USUAL_SPACE, Guide, Interval, Space, bounds_of
from bertsmith.tasks.trials import Log, in_words, made_from, run_trial, with_settings


def guided_search(
    recipe: Recipe,
    folder: str | Path,
    *,
    space: Space | None = None,
    trials: int = 30,
    prunes: bool = True,
    console: Console | None = None,
    runtime: Runtime | None = None,
    **tables: Any,
) -> SearchResult:
    """Try so many settings of `space`, keys of `[finetune]` with what each may be, all with the recipe's seed.

    Args:
        space: default: around the grid of the BERT paper (`USUAL_SPACE`).
        trials: in all; a later call with more of them goes on.
        prunes: end a trial whose best score is below the median of the others after as many evaluations.
        tables: `model`, `train`, `validation`, `test` in memory, and `head`, as `finetune` takes them.

    Needs the extra `search`. Writes search.jsonl, and the final model into `folder`/finetune. Raises what `finetune`
    raises.
    """
    config, folder = recipe.finetune, Path(folder)
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [finetune] section")
    space = USUAL_SPACE if space is None else space
    seed = recipe.seed if config.seed is None else config.seed
    for settings in bounds_of(space):  # all keys and values are looked at first
        with_settings(recipe, settings, seed)
    task = TASKS[config.task]
    metric = config.metric or task.default_metric
    guide = Guide(space, seed, smaller_is_better=metric in task.smaller_is_better, prunes=prunes)
    console = console or Console(soft_wrap=True)
    about = {"space": _as_json(space), "seed": seed, "prunes": prunes}
    log = Log(folder, made_from(recipe, space, tables) | about)
    found = log.trials()[:trials]
    for number in range(trials):
        if number == len(found):
            proposal = guide.propose(found)
            chosen = with_settings(recipe, proposal.settings, seed)
            trial = run_trial(
                chosen, folder / "trial", proposal.settings, seed, runtime=runtime, tables=tables, watch=proposal.tell
            )
            log.add(trial)
            found.append(trial)
        trial = found[number]
        ended = f"  ended after {len(trial.scores)} evaluations" if trial.pruned else ""
        told = f"trial {number + 1}/{trials}  {in_words(trial.settings)}  {trial.score:.4f}{ended}"
        console.print(told, markup=False, highlight=False)
    return conclude(recipe, folder, found, console=console, runtime=runtime, tables=tables)


def _as_json(space: Space) -> Mapping[str, Any]:
    return {key: asdict(some) if isinstance(some, Interval) else list(some) for key, some in space.items()}
