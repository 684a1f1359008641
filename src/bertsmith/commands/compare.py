"""`bertsmith compare`: paired tests of two models on the same rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bertsmith.commands.options import AsJson, print_json

if TYPE_CHECKING:
    from bertsmith.analysis.compare import Comparison
    from bertsmith.tasks.resampling import Difference

Side = Annotated[
    str,
    typer.Argument(
        help="A finished run, a predictions file (.jsonl), or a pattern in quotes for several runs (seeds)."
    ),
]


def compare(
    first: Side,
    second: Side,
    split: Annotated[str | None, typer.Option(help="Only this split; default: all that both have.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap and of the randomization test.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 42,
    as_json: AsJson = False,
) -> None:
    """Test whether one model is better than another on the same rows.

    Example: bertsmith compare runs/plain/finetune runs/best/finetune
    """
    from bertsmith.analysis.compare import compare as compare_models

    found = compare_models(first, second, split=split, seed=seed, resamples=resamples)
    if as_json:
        print_json({"first": first, "second": second, "splits": [_as_json(one) for one in found]})
        return
    typer.echo(f"A  {first}\nB  {second}")
    for one in found:
        _print(one)
    typer.echo("\np: how often models that are equally good would differ as much; of 20 such tests one is below 0.05")


def _as_json(one: Comparison) -> dict[str, object]:
    return asdict(one) | {"smaller_is_better": sorted(one.smaller_is_better)}


def _print(one: Comparison) -> None:
    runs = "" if one.runs == (1, 1) else f", {one.runs[0]} runs of A and {one.runs[1]} of B"
    typer.echo(f"\n{one.split}: {one.rows:,} rows{runs}")
    heads = f"{'A':>8} {'B':>8} {'A - B':>8}   {'95 % interval':<20} {'p bootstrap':>11} {'p randomized':>12}"
    typer.echo(f"{'metric':<18} {heads}")
    for metric, found in one.metrics.items():
        randomized = "-" if found.randomization_p is None else f"{found.randomization_p:.4f}"
        span = f"{found.low:+.4f} to {found.high:+.4f}"
        better = _better(found, smaller=metric in one.smaller_is_better)
        typer.echo(
            f"{metric:<18} {found.first:>8.4f} {found.second:>8.4f} {found.difference:>+8.4f}   {span:<20} "
            f"{found.bootstrap_p:>11.4f} {randomized:>12}  {better}".rstrip()
        )
    if one.disagreement is not None:
        apart = one.disagreement
        shares = [f"{count / one.rows:.1%} ({count:,} rows)" for count in (apart.only_first, apart.only_second)]
        typer.echo(f"right with A alone {shares[0]}, with B alone {shares[1]}; McNemar's exact test: p {apart.p:.4f}")


def _better(found: Difference, *, smaller: bool) -> str:
    """Which model, where the interval leaves 0 out."""
    if found.low <= 0 <= found.high:
        return ""
    return "A is better" if (found.difference > 0) != smaller else "B is better"
