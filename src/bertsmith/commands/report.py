"""`bertsmith report`: a run, or several beside each other, as one page."""

from pathlib import Path
from typing import Annotated

import typer

import bertsmith


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="runs/NAME, or one stage of it; or several.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: report.html in the run, or of several in the current folder."),
    ] = None,
) -> None:
    """Write the HTML report of a run, finished or not, or of several beside each other.

    Example: bertsmith report runs/quickstart
    """
    typer.echo(bertsmith.write_report(runs, out))
