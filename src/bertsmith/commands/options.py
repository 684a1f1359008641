"""What several verbs have in common: their options, and how they speak."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

import bertsmith
from bertsmith.config import Recipe, load_recipe
from bertsmith.runtime import process_rank, processes_here, world_size

if TYPE_CHECKING:
    from bertsmith.tasks.base import Columns

RecipePath = Annotated[Path, typer.Argument(help="A recipe in TOML, such as recipes/quickstart.toml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. finetune.epochs=4.")
]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder in which runs are kept.")]
EngineName = Annotated[
    Literal["local", "ray"] | None,
    typer.Option("--engine", help="Where text is prepared: processes of this machine, or a Ray cluster."),
]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", metavar="HOST:PORT", help="A Ray cluster that runs; or 'auto'.")
]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Read pytorch_model.bin, weights only, no code run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
ModelName = Annotated[str, typer.Argument(help="A model directory, a run (RUN, RUN/best, RUN/last) or a hub name.")]
TextColumn = Annotated[
    str | None, typer.Option(help="Column with the text: a name, or a number from 0 without a header; as in training.")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column with the label: a name, or a number from 0 without a header; as in training.")
]
PairColumn = Annotated[str | None, typer.Option(help="Column with the second text, where rows are pairs of texts.")]
NoHeader = Annotated[
    bool | None,
    typer.Option("--no-header/--header", help="Whether the first line of a .tsv or .csv is a row; as in training."),
]
LabelNames = Annotated[str | None, typer.Option(help="File with a label's name a line; the table holds line numbers.")]


def read_recipe(
    path: Path,
    overrides: list[str] | None,
    allow_pickle: bool = False,
    *,
    engine: str | None = None,
    ray_address: str | None = None,
) -> Recipe:
    """The recipe with what the command line says of it."""
    said = {
        "runtime.allow_pickle": "true" if allow_pickle else None,
        "runtime.engine": engine,
        "runtime.ray_address": ray_address,
    }
    return load_recipe(path, [*(overrides or ()), *(f"{key}={value}" for key, value in said.items() if value)])


def run_recipe(
    path: Path,
    overrides: list[str] | None,
    *,
    runs: Path,
    until: str | None,
    as_json: bool,
    engine: str | None,
    ray_address: str | None,
    allow_pickle: bool = False,
    keep_rejects: bool = False,
) -> None:
    """Run a recipe, to its end or `until` a stage, and print what came of it where a program asked."""
    result = bertsmith.run(
        read_recipe(path, overrides, allow_pickle, engine=engine, ray_address=ray_address),
        runs=runs,
        until=until,
        keep_rejects=keep_rejects,
        console=console_for(as_json),
        command=same_command(),
    )
    if as_json:
        print_json(result.to_dict())


def console_for(as_json: bool) -> Console:
    """People read standard output, unless a program does."""
    return Console(stderr=as_json, soft_wrap=True)


def same_command() -> str:
    """What was typed, to be typed again."""
    if world_size() > 1:
        return shlex.join(["torchrun", "--nproc-per-node", str(processes_here()), "-m", "bertsmith", *sys.argv[1:]])
    return shlex.join(["bertsmith", *sys.argv[1:]])


def print_json(value: Any) -> None:
    """On standard output; of several processes, the first one."""
    if process_rank():
        return
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1, default=str)
    sys.stdout.write("\n")


def columns_from(
    trained: "Columns",
    text: str | None,
    label: str | None,
    pair: str | None,
    no_header: bool | None,
    label_names: str | None,
) -> "Columns":
    """As the model was fine-tuned, but for what is given here."""
    header = trained.header if no_header is None else not no_header
    given = {"text": text, "label": label, "pair": pair}
    changes: dict[str, Any] = {key: column_from(name, header=header) for key, name in given.items() if name is not None}
    if label_names is not None:
        changes["label_names"] = label_names
    return replace(trained, header=header, **changes)


def column_from(name: str, *, header: bool) -> str | int:
    """Without a header columns are numbers."""
    return name if header or not name.isdecimal() else int(name)
