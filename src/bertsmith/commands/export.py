"""`bertsmith export`: a model as others read it, checked as it is written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertsmith.commands.options import AsJson, ModelName, print_json

if TYPE_CHECKING:
    from bertsmith.export.source import Exported

app = typer.Typer(help="Write a model as others read it, and check that it answers the same.", no_args_is_help=True)

OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write.")]
TaskName = Annotated[str | None, typer.Option("--task", help="What the model is for. Default: what it says itself.")]
Texts = Annotated[
    Path | None,
    typer.Option("--texts", help="A file, as predict reads it, that both must answer alike. Default: validation rows."),
]
Languages = Annotated[
    list[str] | None, typer.Option("--language", help="Code of a language for the model card, such as en; repeatable.")
]
Licence = Annotated[str | None, typer.Option("--license", help="The hub's name of a licence, such as apache-2.0.")]
Replace = Annotated[bool, typer.Option("--replace", help="Write over a folder that is there.")]


@app.command("hf")
def hf(
    model: ModelName,
    out: OutFolder,
    task: TaskName = None,
    texts: Texts = None,
    languages: Languages = None,
    licence: Licence = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """A Hugging Face directory of any head, which transformers loads: config, safetensors, tokenizer.

    Example: bertsmith export hf runs/cola/finetune --out cola-hf
    """
    from bertsmith.export.directory import export_directory

    found = export_directory(
        model,
        out,
        task=task,
        texts=texts or (),
        replace=replace,
        languages=languages or (),
        licence=licence,
    )
    _tell(found, "model.safetensors", as_json)


@app.command("sentence-transformers")
def sentence_transformers(
    model: ModelName,
    out: OutFolder,
    task: TaskName = None,
    texts: Texts = None,
    languages: Languages = None,
    licence: Licence = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """A directory of an embedding model that SentenceTransformer loads.

    Example: bertsmith export sentence-transformers runs/vectors/finetune --out vectors
    """
    from bertsmith.export.directory import export_directory

    found = export_directory(
        model,
        out,
        task=task,
        texts=texts or (),
        replace=replace,
        languages=languages or (),
        licence=licence,
        layout="sentence-transformers",
    )
    _tell(found, "model.safetensors", as_json)


@app.command("onnx")
def onnx(
    model: ModelName,
    out: OutFolder,
    task: TaskName = None,
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
    _tell(found, "model.onnx", as_json, what=f"opset {OPSET}, ")


def card(
    model: ModelName,
    out: Annotated[Path | None, typer.Option("--out", help="File to write. Default: standard output.")] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called. Default: the run's name.")] = None,
    languages: Languages = None,
    licence: Licence = None,
) -> None:
    """The model card of a run: scores with intervals, data with digests, recipe, machine, limits; only what files say.

    Example: bertsmith card runs/cola/finetune --language en --license apache-2.0 --out README.md
    """
    from bertsmith.artifact import output_to, write_text
    from bertsmith.export.card import model_card

    if out is None:
        typer.echo(model_card(model, name=name, languages=languages or (), licence=licence), nl=False)
        return
    with output_to(out):
        write_text(out, model_card(model, name=name, languages=languages or (), licence=licence))
    typer.echo(f"wrote {out}")


def push(
    model: ModelName,
    name: Annotated[str, typer.Argument(help="OWNER/NAME on the hub, or NAME alone for your own.")],
    private: Annotated[bool, typer.Option("--private", help="A repository that only you see.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Export and check, tell what would go, send nothing.")
    ] = False,
    languages: Languages = None,
    licence: Licence = None,
    as_json: AsJson = False,
) -> None:
    """A model to the Hugging Face hub, exported and checked, with its card. Log in first: hf auth login, or HF_TOKEN.

    Example: bertsmith push runs/cola/finetune ada/cola-tiny --private
    """
    from bertsmith.export import hub

    found = hub.push(model, name, private=private, dry_run=dry_run, languages=languages or (), licence=licence)
    if as_json:
        print_json(hub.as_json(found))
        return
    for file, size in found.files.items():
        typer.echo(f"{size:>14,} bytes  {file}")
    if found.commit is None:
        typer.echo(f"{found.megabytes:.1f} MB would go to {found.address}; nothing was sent")
        return
    typer.echo(f"{found.megabytes:.1f} MB sent to {found.address}, commit {found.commit[:12]}")
    typer.echo(f'next: bertsmith predict {found.name} "..."')


def _tell(found: Exported, file: str, as_json: bool, *, what: str = "") -> None:
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(f"{found.directory / file}: {what}{found.megabytes:.1f} MB")
    typer.echo(f"checked: {found.checked.in_words()}")
    typer.echo(f'next: bertsmith predict {found.directory} "..."')
