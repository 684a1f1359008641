"""`bertsmith diagnose`: what is wrong with a run, and what to try."""

from pathlib import Path
from typing import Annotated

import typer

from bertsmith.commands.options import AsJson, print_json


def diagnose(
    run_folder: Annotated[Path, typer.Argument(help="A run: runs/NAME, one stage of it, or a search.")],
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a run, finished, running or killed: the evidence, how sure that is, and what to try next.

    Example: bertsmith diagnose runs/quickstart
    """
    from bertsmith.analysis.diagnose.diagnose import diagnose as read
    from bertsmith.analysis.diagnose.told import lines, record

    found = read(run_folder)
    if as_json:
        print_json(record(found))
        return
    for line in lines(found):
        typer.echo(line)
