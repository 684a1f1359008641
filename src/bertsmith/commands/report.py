"""`bertsmith report`: a run, or several beside each other, as one page."""

from pathlib import Path
from typing import Annotated

import typer

import bertsmith
from bertsmith.errors import UsageError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="runs/NAME, or one stage of it; or several.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: report.html in the run, or of several in the current folder."),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Where the heads of the run's model look in this sentence, drawn too."),
    ] = None,
) -> None:
    """Write the HTML report of a run, finished or not, or of several beside each other.

    Example: bertsmith report runs/quickstart
    """
    if attention is not None:
        from bertsmith.analysis.attention import write_attention

        if len(runs) > 1:
            raise UsageError(f"--attention asks the model of one run, and {len(runs)} were given; give one")
        write_attention(runs[0], attention)
    typer.echo(bertsmith.write_report(runs, out))
