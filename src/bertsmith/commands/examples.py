"""`bertsmith examples ...`"""

from pathlib import Path

import typer

import bertsmith
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

app = typer.Typer(help="Documents and vocabulary to examples: build them, and look at them.", no_args_is_help=True)


@app.command()
def build(
    recipe: RecipePath, overrides: Overrides = None, runs: RunsFolder = Path("runs"), as_json: AsJson = False
) -> None:
    """Run a recipe up to its examples stage, into runs/NAME/examples.

    Example: bertsmith examples build recipes/english.toml
    """
    result = bertsmith.run(
        read_recipe(recipe, overrides),
        runs=runs,
        until="examples",
        console=console_for(as_json),
        command=same_command(),
    )
    if as_json:
        print_json(result.to_dict())
