"""Several ranks on this machine, for tests: processes of one thread each that join over gloo, with a deadline."""

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch

from bertsmith.runtime import Runtime
from bertsmith.training.distributed import Ranks, joined

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["torch", "torch.distributed.fsdp", "bertsmith.training.loop", __name__])
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
) -> list[Any]:
    """`function(ranks, runtime, *arguments)` in each of `size` processes; what each returned or raised, or its exit
    code where it did neither. Fails where one of them is not done in time.
    """
    port = free_port()
    started = []
    for rank in range(size):
        runtime = replace(ONE_THREAD, rank=rank, world_size=size, parallel=parallel, timeout_seconds=timeout_seconds)
        ours, theirs = _processes.Pipe(duplex=False)
        process = _processes.Process(target=_one, args=(theirs, port, runtime, function, arguments), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        return [_outcome(process, pipe, deadline_seconds) for process, pipe in started]
    finally:
        for process, _ in started:
            process.kill()
            process.join()


def _outcome(process: Any, pipe: Any, deadline_seconds: float) -> Any:
    assert pipe.poll(deadline_seconds), f"{process.name} said nothing in {deadline_seconds} s"
    with contextlib.suppress(EOFError):
        return pipe.recv()
    process.join(5)
    return process.exitcode


def _one(pipe: Any, port: int, runtime: Runtime, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        with joined(runtime) as ranks:
            pipe.send(function(ranks, runtime, *arguments))
    except BaseException as error:
        if not isinstance(error, Exception):
            raise
        traceback.print_exc()
        pipe.send(error)


__all__ = ["ONE_THREAD", "Ranks", "free_port", "on_ranks"]
