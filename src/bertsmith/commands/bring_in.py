"""`bertsmith import`: checkpoints in other forms, made Hugging Face directories."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertsmith.commands.export import OutFolder, Replace
from bertsmith.commands.options import AllowPickle, AsJson, ModelName, print_json

if TYPE_CHECKING:
    from bertsmith.export.bring_in import BroughtIn

app = typer.Typer(help="Make a Hugging Face directory of a checkpoint in another form.", no_args_is_help=True)


@app.command("tf1")
def tf1(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder with bert_config.json, vocab.txt and a checkpoint; or one's prefix.")
    ],
    out: OutFolder,
    lowercase: Annotated[
        bool | None,
        typer.Option("--lowercase/--cased", help="Whether text is made lower-case. Default: as the vocabulary is."),
    ] = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """A checkpoint of Google's TensorFlow 1 code (bert_model.ckpt), read without TensorFlow.

    Example: bertsmith import tf1 uncased_L-12_H-768_A-12 --out bert-base-uncased
    """
    from bertsmith.export.bring_in import import_tf1

    _tell(import_tf1(checkpoint, out, lowercase=lowercase, replace=replace), as_json)


@app.command("bin")
def from_bin(
    model: ModelName,
    out: OutFolder,
    allow_pickle: AllowPickle = False,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """A directory whose weights are a pickle, pytorch_model.bin; only with --allow-pickle, of sources that you trust.

    Example: bertsmith import bin old-bert --allow-pickle --out new-bert
    """
    from bertsmith.export.bring_in import import_bin

    _tell(import_bin(model, out, allow_pickle=allow_pickle, replace=replace), as_json)


def _tell(found: BroughtIn, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
        return
    case = "lower-case" if found.lowercase else "as it is"
    typer.echo(f"{found.directory}: {found.architecture}, {found.parameters:,} parameters; text is read {case}")
    if found.left_out:
        typer.echo(f"left out: {found.left_out:,} variables of an optimizer")
    if found.unexpected:
        more = ", ..." if len(found.unexpected) > 5 else ""
        typer.echo(f"not used: {', '.join(found.unexpected[:5])}{more}")
    typer.echo(f"checked: {found.checked.in_words()}")
    typer.echo(f'next: set model = "{found.directory}" in a recipe, or transformers.AutoModel.from_pretrained')
