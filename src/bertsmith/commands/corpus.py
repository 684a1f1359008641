"""`bertsmith corpus ...`"""

from pathlib import Path

import typer

from bertsmith import pipeline
from bertsmith.commands.options import (
    AsJson,
    Overrides,
    RecipePath,
    RunsFolder,
    console_for,
    print_json,
    read_recipe,
    same_command,
)

app = typer.Typer(help="Text to documents: build a corpus, and look at it.", no_args_is_help=True)


@app.command()
def build(
    recipe: RecipePath, overrides: Overrides = None, runs: RunsFolder = Path("runs"), as_json: AsJson = False
) -> None:
    """Run a recipe up to its corpus stage, into runs/NAME/corpus.

    Example: bertsmith corpus build recipes/english.toml
    """
    result = pipeline.run(
        read_recipe(recipe, overrides),
        runs=runs,
        until="corpus",
        console=console_for(as_json),
        command=same_command(),
    )
    if as_json:
        print_json(result.to_dict())
