"""Many independent tasks on several processes: results in the order of the tasks, whatever ends first.

A task is a function of a module and one argument, both picklable, that writes its own files whole or not at all and
returns little; so it may be run again, on another process, and leaves the same bytes. A task whose process died is.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, TypeVar

from bertsmith.errors import BertsmithError
from bertsmith.runtime import available_cpus

Task = TypeVar("Task")
Result = TypeVar("Result")

_DEATHS_OF_ONE_TASK = 3
_QUEUED_PER_WORKER = 2


@dataclass(frozen=True)
class Engine:
    """Where tasks run; nothing here changes what they write."""

    workers: int = 1
    """Processes; 1: in this process."""

    @classmethod
    def of(cls, workers: int) -> "Engine":
        """0 workers: one for each processor."""
        return cls(workers or available_cpus())

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """`function` of each task, in order. Raises what the function raises, and `BertsmithError` for a task whose
        process died (killed, out of memory) three times.
        """
        if self.workers <= 1 or len(tasks) <= 1:
            return map(function, tasks)
        return _in_processes(function, tasks, min(self.workers, len(tasks)))


def _in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    deaths = 0
    done = 0
    while done < len(tasks):
        try:
            for result in _until_one_dies(function, tasks[done:], workers):
                done += 1
                deaths = 0
                yield result
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == _DEATHS_OF_ONE_TASK:
                raise BertsmithError(
                    f"a worker process died {deaths} times, most likely out of memory; use fewer: "
                    'runtime.workers = 1. (In a script of your own, work begins under `if __name__ == "__main__":`)'
                ) from error


def _until_one_dies(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    # Spawned, not forked: the parent has threads of torch and tokenizers, which a fork would break.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
    running: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            if len(running) >= workers * _QUEUED_PER_WORKER:
                yield running.popleft().result()
            running.append(pool.submit(function, task))
        while running:
            yield running.popleft().result()
    finally:
        _end(pool)


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop the workers at once: what they were at is begun again, or not wanted."""
    processes: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes.values():
        with contextlib.suppress(ProcessLookupError, ValueError):
            process.terminate()
    pool.shutdown(wait=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # a collection walks every object of a chunk over and over; chunks leave no cycles behind
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
