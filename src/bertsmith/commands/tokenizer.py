"""`bertsmith tokenizer ...`"""

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

app = typer.Typer(help="Documents to vocabulary: train one, and look at it.", no_args_is_help=True)


@app.command()
def train(
    recipe: RecipePath, overrides: Overrides = None, runs: RunsFolder = Path("runs"), as_json: AsJson = False
) -> None:
    """Run a recipe up to its tokenizer stage, into runs/NAME/tokenizer.

    Example: bertsmith tokenizer train recipes/english.toml
    """
    result = bertsmith.run(
        read_recipe(recipe, overrides),
        runs=runs,
        until="tokenizer",
        console=console_for(as_json),
        command=same_command(),
    )
    if as_json:
        print_json(result.to_dict())
