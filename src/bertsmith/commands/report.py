"""`bertsmith report`: a run as one page."""

from pathlib import Path
from typing import Annotated

import typer

import bertsmith


def report(
    run_folder: Annotated[Path, typer.Argument(help="A run: runs/NAME, or one stage of it.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default: report.html in the run.")] = None,
) -> None:
    """Write the HTML report of a run, finished or not.

    Example: bertsmith report runs/quickstart
    """
    typer.echo(bertsmith.write_report(run_folder, out))
