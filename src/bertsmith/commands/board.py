"""`bertsmith board`: all runs of a folder, live in a browser."""

from pathlib import Path
from typing import Annotated

import typer


def board(
    folder: Annotated[Path, typer.Argument(help="A folder that holds runs, at any depth.")] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any that is free.")] = 8765,
) -> None:
    """Show all runs of a folder in a browser, refreshed while they train. Nothing is written.

    From another machine, forward the port: ssh -L 8765:localhost:8765 HOST.

    Example: bertsmith board runs
    """
    from bertsmith.analysis.board.server import Board

    with Board(folder, host, port) as server:
        if not server.is_loopback:
            typer.echo(f"warning: everybody who can reach {host} can read these runs; there is no password", err=True)
        typer.echo(f"{folder} at {server.url} (Ctrl-C ends it)")
        server.serve_forever()
