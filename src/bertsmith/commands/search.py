"""`bertsmith search`: many fine-tunings of one recipe."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.commands.options import (
    AllowPickle,
    AsJson,
    Overrides,
    RecipePath,
    RunsFolder,
    console_for,
    print_json,
    read_recipe,
)
from bertsmith.errors import UsageError


def search(
    recipe: RecipePath,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", metavar="KEY=[VALUES]", help="A key of [finetune] and its values; default: the paper's."
        ),
    ] = None,
    no_grid: Annotated[bool, typer.Option("--no-grid", help="The recipe as it is, with each seed.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each combination.")] = 1,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="KEY=...",
            help="A key of [finetune] with log(LOW, HIGH), range(LOW, HIGH) or [VALUES]: settings are proposed.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Settings to try of a space; default: 30, around the paper's.")
    ] = None,
    prune: Annotated[bool, typer.Option(help="End hopeless trials of a space early.")] = True,
    runs: RunsFolder = Path("runs"),
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune with many settings, choose by validation score, and score the best on the test files.

    Example: bertsmith search recipes/cola.toml --grid "learning_rate=[5e-5, 1e-4]" --grid "epochs=[3, 4]" --seeds 3

    Example: bertsmith search recipes/cola.toml --space "learning_rate=log(1e-5, 2e-4)" --trials 20
    """
    from bertsmith.runtime import detect
    from bertsmith.tasks.guided_search import guided_search
    from bertsmith.tasks.search import grid_of
    from bertsmith.tasks.search import search as run_search
    from bertsmith.tasks.search_space import space_of

    if (space or trials) and (grid or seeds > 1):
        raise UsageError(
            "--space and --trials propose settings, --grid and --seeds go through all: give the one or the other "
            "(such as a grid of the best settings alone, with several seeds)"
        )
    chosen = read_recipe(recipe, overrides, allow_pickle)
    if no_grid and (grid or space or trials):
        raise UsageError("--no-grid is for seeds alone; leave it out, or --grid, --space and --trials")
    folder, console = runs / f"{chosen.name}-search", console_for(as_json)
    settings = chosen.runtime
    runtime = detect(dtype=settings.dtype, threads=settings.threads, device=settings.device)
    if space or trials:
        wanted = space_of(space) if space else None
        found = guided_search(
            chosen, folder, space=wanted, trials=trials or 30, prunes=prune, console=console, runtime=runtime
        )
    else:
        values = {} if no_grid else grid_of(grid) if grid else None
        found = run_search(chosen, folder, grid=values, seeds=seeds, console=console, runtime=runtime)
    if as_json:
        print_json(
            {
                "metric": found.metric,
                "standings": [asdict(one) for one in found.standings],
                "scores": found.final.scores,
            }
        )
        return
    for one in found.standings:
        tried = "  ".join(f"{key} = {value}" for key, value in one.settings.items()) or "as it is"
        typer.echo(f"{one.mean:.4f} ± {one.deviation:.4f} (best {one.best:.4f}, {one.seeds} seeds)  {tried}")
    for split, scores in found.final.scores.items():
        typer.echo(f"{split}: {found.metric} {scores[found.metric]:.4f}, by the first of these")
    typer.echo(f"model: {found.final.run_dir}")
