"""`bertsmith serve`: models behind HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.errors import BertsmithError, MissingExtraError, UsageError

KEY_VARIABLE = "BERTSMITH_API_KEYS"


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="[NAME=]MODEL...", help="Runs, model directories, ONNX directories.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a batch. Default: all processors.")] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help=f"File with a key a line. Default: ${KEY_VARIABLE}, keys with commas between.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait for a model; past it, 429.")] = 256,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds from a request's arrival to its answer.")] = 10.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log what happens to the server, not each request.")] = False,
) -> None:
    """Answer over HTTP: every head, the shapes of OpenAI and text-embeddings-inference, and a page to try it at /.

    SIGHUP loads the models anew; SIGTERM and Ctrl-C finish what is being answered.

    Example: bertsmith serve runs/sick/finetune --port 8000
    """
    try:
        from bertsmith.serve.app import Service
        from bertsmith.serve.app import serve as run_server
        from bertsmith.serve.gate import Keys
        from bertsmith.serve.limits import Limits
        from bertsmith.serve.log import Log
        from bertsmith.serve.models import named_sources
    except ImportError as error:
        raise MissingExtraError("serve", "serve") from error
    from bertsmith.runtime import detect

    is_loopback = host in ("127.0.0.1", "localhost", "::1")
    keys = _keys(api_keys)
    if not is_loopback and not keys:
        typer.echo(f"warning: everybody who can reach {host} can ask these models; see --api-keys", err=True)
    service = Service(
        named_sources(models),
        detect(dtype="float32", threads=threads),
        Limits(queue_requests=queue, deadline_seconds=deadline),
        Keys.of(keys),
        Log(requests=not quiet),
        only_this_machine=is_loopback,
    )
    typer.echo(f"loading {', '.join(service.sources)}; then at http://{host}:{port} (Ctrl-C ends it)", err=True)
    if not run_server(service, host, port):
        raise BertsmithError(f"{host}:{port} cannot be listened on; it is taken, or no address of this machine")


def _keys(path: Path | None) -> list[str]:
    if path is None:
        return [key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a file of keys, one a line") from error
    if not found:
        raise UsageError(f"{path} holds no key; write one a line")
    return found
