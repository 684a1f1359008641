"""Several ranks on this machine, for tests: processes of one thread each that join over gloo, with a deadline."""

import contextlib
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from bertsmith.runtime import Runtime
from bertsmith.training.distributed import Ranks, joined

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["torch", "torch.distributed.fsdp", "bertsmith.training.loop", __name__])


@dataclass(frozen=True)
class Failure:
    """What a rank raised."""

    kind: str
    message: str


ONE_THREAD = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def on_ranks(
    size: int,
    function: Callable[..., Any],
    *arguments: Any,
    parallel: Literal["ddp", "fsdp"] = "ddp",
    timeout_seconds: float = 60.0,
    deadline_seconds: float = 120.0,
    joins: bool = True,
    silent: int | None = None,
) -> list[Any]:
    """`function(ranks, runtime, *arguments)`, or `function(runtime, *arguments)` where that joins them itself, in each
    of `size` processes: what each returned, the `Failure` it raised, or its exit code where it did neither; None where
    it was still there at the deadline, or of one that is to be `silent`, once the others have ended.
    """
    port = free_port()
    started = []
    for rank in range(size):
        runtime = replace(ONE_THREAD, rank=rank, world_size=size, parallel=parallel, timeout_seconds=timeout_seconds)
        ours, theirs = _processes.Pipe(duplex=False)
        process = _processes.Process(target=_one, args=(theirs, port, runtime, joins, function, arguments))
        process.start()
        theirs.close()
        started.append((process, ours))
    deadline = time.monotonic() + deadline_seconds
    try:
        found = {rank: _outcome(*started[rank], deadline) for rank in range(size) if rank != silent}
        return [found[rank] if rank != silent else _outcome(*started[rank], 0.0) for rank in range(size)]
    finally:
        for process, _ in started:
            process.kill()
            process.join()


def _outcome(process: Any, pipe: Any, deadline: float) -> Any:
    if not pipe.poll(max(deadline - time.monotonic(), 0.0)):
        return None
    with contextlib.suppress(EOFError):
        return pipe.recv()
    process.join(5)
    return process.exitcode


def _one(
    pipe: Any, port: int, runtime: Runtime, joins: bool, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(RANK=str(runtime.rank), LOCAL_RANK=str(runtime.rank), WORLD_SIZE=str(runtime.world_size))
    torch.set_num_threads(1)
    try:
        if not joins:
            pipe.send(function(runtime, *arguments))
            return
        with joined(runtime) as ranks:
            result = function(ranks, runtime, *arguments)
        pipe.send(result)
    except BaseException as error:
        if not isinstance(error, Exception):
            raise
        traceback.print_exc()
        pipe.send(Failure(type(error).__name__, str(error)))


__all__ = ["ONE_THREAD", "Ranks", "free_port", "on_ranks"]
