"""`bertsmith finetune --folds K`: cross-validation."""

from dataclasses import asdict
from pathlib import Path

import typer

from bertsmith.commands.options import console_for, print_json, same_command
from bertsmith.config import Recipe
from bertsmith.errors import Stopped


def cross_validate(recipe: Recipe, folds: int, *, runs: Path, as_json: bool) -> None:
    """Run all folds into runs/NAME-folds and print the scores."""
    from bertsmith.runtime import detect
    from bertsmith.tasks.folds import cross_validate as run_folds

    settings, console = recipe.runtime, console_for(as_json)
    runtime = detect(dtype=settings.dtype, threads=settings.threads, device=settings.device)
    try:
        found = run_folds(recipe, runs / f"{recipe.name}-folds", folds=folds, console=console, runtime=runtime)
    except Stopped as stopped:
        raise Stopped(stopped.signal_number, same_command()) from None
    if as_json:
        print_json(asdict(found))
        return
    for fold in found.folds:
        typer.echo(f"fold {fold.number}   {found.metric} {fold.scores[found.metric]:.4f}  {fold.rows:,} rows")
    for score in found.scores:
        told = f"{score.metric:<18} {score.mean:.4f} ± {score.deviation:.4f} over the folds"
        if score.pooled is not None:
            told += f"; pooled {score.pooled:.4f}  ({score.low:.4f} to {score.high:.4f})"
        typer.echo(told)
    typer.echo(f"answers: {found.folder / 'predictions.jsonl'}")
