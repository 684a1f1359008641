"""`bertsmith compress`: a smaller model, proven on the user's own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bertsmith.commands.options import AsJson, ModelName, Overrides, console_for, print_json

if TYPE_CHECKING:
    from bertsmith.compress.measure import Measured
    from bertsmith.compress.outcome import Outcome

app = typer.Typer(help="Make a fine-tuned model smaller, and prove what it is still worth.", no_args_is_help=True)

MaxDrop = Annotated[
    float, typer.Option(help="Points (hundredths) of the metric that may be lost; more, and no model is kept.")
]
Out = Annotated[Path, typer.Option(help="Folder for the result: model/ and compression.json.")]


@app.command("prune")
def prune(
    model: ModelName,
    out: Out,
    layers: Annotated[int | None, typer.Option(help="How many layers to keep. Default: all.")] = None,
    heads: Annotated[float, typer.Option(help="Share of the attention heads to keep.")] = 1.0,
    neurons: Annotated[float, typer.Option(help="Share of each layer's feed-forward neurons to keep.")] = 1.0,
    max_drop: MaxDrop = 1.0,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe of the recovery. Default: that of the model's run.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Cut out what the loss hangs on least, and let the rest learn again from the whole model.

    Example: bertsmith compress prune runs/cola/finetune --neurons 0.25 --out runs/cola-small
    """
    from bertsmith.compress.prune import prune as prune_model

    found = prune_model(
        model,
        out,
        layers=layers,
        heads=heads,
        neurons=neurons,
        max_drop=max_drop,
        recipe=recipe,
        overrides=overrides or [],
        console=console_for(as_json),
    )
    _tell(found, as_json)


@app.command("quantize")
def quantize(
    model: ModelName,
    out: Out,
    to: Annotated[Literal["int8", "bf16"], typer.Option(help="Numbers of 8 bits, or bfloat16.")] = "int8",
    engine: Annotated[
        Literal["auto", "torch", "onnx"],
        typer.Option(help="What computes int8: PyTorch, or ONNX Runtime. auto: PyTorch where it is fast here."),
    ] = "auto",
    static: Annotated[
        bool, typer.Option("--static", help="Of onnx: ranges fixed by training rows, not taken from each batch.")
    ] = False,
    max_drop: MaxDrop = 1.0,
    recipe: Annotated[Path | None, typer.Option(help="Recipe that names the rows. Default: that of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fewer bits a weight. Layers that cost most are left as they are, until no more than --max-drop is lost.

    Example: bertsmith compress quantize runs/cola/finetune --out runs/cola-int8
    """
    from bertsmith.compress.quantize import quantize as quantize_model

    console = console_for(as_json)
    _tell(
        quantize_model(
            model, out, to=to, engine=engine, static=static, max_drop=max_drop, recipe=recipe, console=console
        ),
        as_json,
    )


def _tell(found: Outcome, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found) | {"lost_points": found.lost_points})
        return
    for line in side_by_side(found.metric, found.before, found.after):
        typer.echo(line)
    typer.echo(f"model: {found.folder / 'model'}")


def side_by_side(metric: str, before: Measured, after: Measured) -> list[str]:
    """The table of a model and a smaller one; what is as before, or cannot be told, is left out."""
    lines = [
        f"{'':<24} {'before':<26} {'after':<26} times",
        _line(metric, *_of_both(before, after, lambda one: f"{one.score:.4f} ({one.low:.4f} to {one.high:.4f})")),
        _line("size", f"{before.megabytes:.1f} MB", f"{after.megabytes:.1f} MB", before.megabytes / after.megabytes),
    ]
    if after.parameters and before.parameters != after.parameters:
        ratio = before.parameters / after.parameters
        lines.append(_line("parameters", f"{before.parameters:,}", f"{after.parameters:,}", ratio))
    if before.flops_per_token != after.flops_per_token:
        shown = _of_both(before, after, lambda one: f"{one.flops_per_token / 1e6:.2f} M")
        lines.append(_line("FLOPs a token in layers", *shown, before.flops_per_token / after.flops_per_token))
    return [
        *lines,
        _line("one row", f"{before.one_ms:.1f} ms", f"{after.one_ms:.1f} ms", before.one_ms / after.one_ms),
        _line("32 rows", f"{before.batch_ms:.1f} ms", f"{after.batch_ms:.1f} ms", before.batch_ms / after.batch_ms),
        _line(
            "rows per second",
            f"{before.rows_per_second:,.0f}",
            f"{after.rows_per_second:,.0f}",
            after.rows_per_second / before.rows_per_second,
        ),
    ]


def _of_both(before: Measured, after: Measured, shown: Callable[[Measured], str]) -> tuple[str, str]:
    return shown(before), shown(after)


def _line(name: str, before: str, after: str, times: float | None = None) -> str:
    return f"{name:<24} {before:<26} {after:<26} {'' if times is None else f'{times:.2f}'}".rstrip()
