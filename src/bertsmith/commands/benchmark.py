"""`bertsmith finetune --benchmark`: a public task from its official files, and what its leaderboard wants."""

from pathlib import Path

from rich.console import Console

import bertsmith
from bertsmith.chain import RunResult
from bertsmith.commands.options import same_command
from bertsmith.config import Recipe
from bertsmith.runtime import process_rank
from bertsmith.tasks.glue import Found

SUBMISSION = "submission"


def finetune_benchmark(found: Found, recipe: Recipe, *, runs: Path, console: Console) -> RunResult:
    """Fine-tune, score on the development rows, and answer the test rows into runs/NAME/submission."""
    tables, torn = found.tables()
    for name, count in torn.items():
        console.print(f"left out   {count:,} rows of {name}: torn, or without a text", markup=False, highlight=False)
    result = bertsmith.finetune(recipe, runs=runs, console=console, command=same_command(), **tables)
    if process_rank() == 0 and result.finetuned is not None:
        written = found.hand_in(result.finetuned.run_dir, result.folder / SUBMISSION)
        said = ", ".join(map(str, written)) or f"none: {found.folder} has no test file"
        console.print(f"submission {said}", markup=False, highlight=False)
    return result
