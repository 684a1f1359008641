"""`bertsmith run`, `pretrain`, `finetune` and `fetch`: recipes to models."""

from pathlib import Path
from typing import Annotated

import typer

import bertsmith
from bertsmith.commands.folds import cross_validate
from bertsmith.commands.options import (
    AllowPickle,
    AsJson,
    EngineName,
    Overrides,
    RayAddress,
    RecipePath,
    RunsFolder,
    console_for,
    print_json,
    read_recipe,
    run_recipe,
    same_command,
)
from bertsmith.config import STAGES, load_recipe
from bertsmith.errors import UsageError


def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    until: Annotated[str | None, typer.Option(help=f"Stop after this stage: {', '.join(STAGES)}.")] = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe, skipping those that are done.

    Example: bertsmith run recipes/quickstart.toml
    """
    run_recipe(
        recipe,
        overrides,
        runs=runs,
        until=until,
        as_json=as_json,
        engine=engine,
        ray_address=ray_address,
        allow_pickle=allow_pickle,
    )


def pretrain(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe up to the pre-trained model.

    Example: bertsmith pretrain recipes/english.toml --set pretrain.budget_minutes=10
    """
    result = bertsmith.pretrain(
        read_recipe(recipe, overrides, allow_pickle), runs=runs, console=console_for(as_json), command=same_command()
    )
    if as_json:
        print_json(result.to_dict())


def finetune(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe in TOML; or give --benchmark.")] = None,
    overrides: Overrides = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate: so many models, each scored on rows it has not seen.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(metavar="glue/NAME", help="A task of GLUE instead of a recipe, such as glue/cola.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="What to start from; goes before the recipe's.")] = None,
    data: Annotated[Path, typer.Option(help="Folder with the benchmark's own folders, such as CoLA/.")] = Path("glue"),
    refit: Annotated[
        bool, typer.Option("--refit", help="Train once more on training and validation rows at the end.")
    ] = False,
    runs: RunsFolder = Path("runs"),
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a checkpoint on labelled rows and score it.

    Example: bertsmith finetune recipes/cola.toml --model bert-base-uncased

    Example: bertsmith finetune --benchmark glue/mrpc --model bert-base-uncased --data glue
    """
    if (recipe is None) == (benchmark is None):
        raise UsageError("finetune takes a recipe or --benchmark glue/NAME, one of them")
    said = [*(overrides or []), *(["finetune.refit=true"] if refit else [])]
    console = console_for(as_json)
    if recipe is None:
        from bertsmith.commands.benchmark import finetune_benchmark
        from bertsmith.tasks.glue import find_benchmark

        if model is None or folds is not None:
            raise UsageError("--benchmark needs --model (a model directory, a run or a hub name), and takes no --folds")
        found = find_benchmark(str(benchmark), data)
        said += ["runtime.allow_pickle=true"] if allow_pickle else []
        result = finetune_benchmark(found, found.recipe(model, said), runs=runs, console=console)
    else:
        said += [f"finetune.model={model}"] if model is not None else []
        chosen = read_recipe(recipe, said, allow_pickle)
        if folds is not None:
            cross_validate(chosen, folds, runs=runs, as_json=as_json)
            return
        result = bertsmith.finetune(chosen, runs=runs, console=console, command=same_command())
    if as_json:
        print_json(result.to_dict())


def fetch(
    recipe: RecipePath,
    into: Annotated[Path, typer.Option(help="Data folder to download into.")] = Path("data"),
) -> None:
    """Download and unpack the public data that a recipe names, checked by digest.

    Example: bertsmith fetch recipes/cola.toml
    """
    from bertsmith.corpus.fetch import fetch as fetch_downloads

    for path in fetch_downloads(load_recipe(recipe), into):
        typer.echo(path)
