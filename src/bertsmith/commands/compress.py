"""`bertsmith compress`: a smaller model, proven on the user's own rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertsmith.commands.options import AsJson, ModelName, Overrides, console_for, print_json

if TYPE_CHECKING:
    from bertsmith.compress.measure import Measured

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
    if as_json:
        print_json(asdict(found) | {"lost_points": found.lost_points})
        return
    for line in side_by_side(found.metric, found.before, found.after):
        typer.echo(line)
    typer.echo(f"model: {out / 'model'}")


def side_by_side(metric: str, before: Measured, after: Measured) -> list[str]:
    """The table of a model and a smaller one."""
    both = (before, after)
    rows = [
        (metric, *(f"{one.score:.4f} ({one.low:.4f} to {one.high:.4f})" for one in both), ""),
        ("size", *(f"{one.megabytes:.1f} MB" for one in both), before.megabytes / after.megabytes),
        ("parameters", *(f"{one.parameters:,}" for one in both), before.parameters / after.parameters),
        (
            "FLOPs a token in layers",
            *(f"{one.flops_per_token / 1e6:.2f} M" for one in both),
            before.flops_per_token / after.flops_per_token,
        ),
        ("one row", *(f"{one.one_ms:.1f} ms" for one in both), before.one_ms / after.one_ms),
        ("32 rows", *(f"{one.batch_ms:.1f} ms" for one in both), before.batch_ms / after.batch_ms),
        (
            "rows per second",
            *(f"{one.rows_per_second:,.0f}" for one in both),
            after.rows_per_second / before.rows_per_second,
        ),
    ]
    lines = [f"{'':<24} {'before':<26} {'after':<26} times"]
    for name, first, second, ratio in rows:
        lines.append(f"{name:<24} {first:<26} {second:<26} {f'{ratio:.2f}' if ratio else ''}".rstrip())
    return lines
