"""`bertsmith compare`: runs against a first one, with paired tests, recipes and costs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bertsmith.commands.options import AsJson, print_json

if TYPE_CHECKING:
    from bertsmith.analysis.runs_compared import Against, RunsCompared

Runs = Annotated[
    list[str],
    typer.Argument(
        help="Runs, predictions files (.jsonl), or patterns in quotes for several runs (seeds); two or more. The first "
        "is what the others are tested against."
    ),
]


def compare(
    runs: Runs,
    split: Annotated[str | None, typer.Option(help="Only this split; default: all that both have.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap and of the randomization test.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 42,
    form: Annotated[
        Literal["text", "markdown", "latex", "csv"], typer.Option("--format", help="How tables are written.")
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="File to write the tables to. Default: standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Test whether models differ on the same rows, and tell what differs in their recipes and costs.

    Example: bertsmith compare runs/plain/finetune runs/best/finetune

    Example: bertsmith compare runs/plain runs/best runs/small --format latex --out table.tex
    """
    from bertsmith.analysis.compared_told import tables
    from bertsmith.analysis.paper_tables import written
    from bertsmith.analysis.runs_compared import compare_runs
    from bertsmith.artifact import output_to, write_text

    with nullcontext() if out is None else output_to(out):
        found = compare_runs(runs, split=split, seed=seed, resamples=resamples)
        if as_json:
            print_json(_as_json(found))
        text = written(list(tables(found)), form)
        if out is not None:
            write_text(out, text)
            if not as_json:
                typer.echo(out)
        elif not as_json:
            typer.echo(text, nl=False)


def _as_json(found: RunsCompared) -> dict[str, object]:
    return {
        "runs": found.names,
        "against_first": [_against(other) for other in found.others],
        "recipes": dict(found.recipes),
        "costs": {kind: [cost and asdict(cost) for cost in costs] for kind, costs in found.costs.items()},
        "held_out": [one and asdict(one) for one in found.held_out],
    }


def _against(other: Against) -> dict[str, object]:
    splits = []
    for one in other.splits:
        told = asdict(one) | {"smaller_is_better": sorted(one.smaller_is_better)}
        told["p_by_holm"] = {metric: other.adjusted[one.split, metric] for metric in one.metrics}
        splits.append(told)
    return {"run": other.name, "splits": splits}
