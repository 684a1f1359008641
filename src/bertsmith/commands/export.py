"""`bertsmith export`: a model as others read it, checked as it is written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.commands.options import AsJson, ModelName, print_json

app = typer.Typer(help="Write a model as others read it, and check that it answers the same.", no_args_is_help=True)

OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Replace = Annotated[bool, typer.Option("--replace", help="Write over a folder that is there.")]


@app.command("onnx")
def onnx(
    model: ModelName,
    out: OutFolder,
    task: Annotated[str | None, typer.Option(help="What the model is for. Default: what it says itself.")] = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="Standard operators alone, for runtimes other than ONNX Runtime.")
    ] = False,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """An ONNX graph of any head, open in batch and length; predict, evaluate and serve read it in the model's place.

    Example: bertsmith export onnx runs/cola/finetune --out cola-onnx
    """
    from bertsmith.export.graph import OPSET
    from bertsmith.export.onnx import export_onnx

    found = export_onnx(model, out, task=task, portable=portable, replace=replace)
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(f"{found.directory / 'model.onnx'}: opset {OPSET}, {found.megabytes:.1f} MB")
    typer.echo(f"checked: {found.checked.in_words()}")
    typer.echo(f'next: bertsmith predict {found.directory} "..."')
