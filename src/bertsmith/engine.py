"""Many independent tasks on several processes: results in the order of the tasks, whatever ends first.

A task is a function of a module and one argument, both picklable, that writes its own files whole or not at all and
returns little; so it may be run again, on another process, and leaves the same bytes. A task whose process died is.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from bertsmith.errors import BertsmithError
from bertsmith.runtime import available_cpus

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_DEATHS = 3
"""Of processes, without a result in between."""
_QUEUED_PER_WORKER = 2
_PRELOADED = ["bertsmith.corpus.prepare", "bertsmith.corpus.finish", "bertsmith.examples.shards"]
"""Modules of most tasks, imported once by the process that workers are forked from; others each worker imports."""


class Engine:
    """Where tasks run; nothing here changes what they write.

    >>> with Engine(workers=2) as engine:                       # the same processes for all that follows
    ...     results = list(engine.map(function, tasks))         # doctest: +SKIP
    """

    def __init__(self, workers: int = 1):
        self.workers = workers or available_cpus()
        """Processes; 1: in this process. 0 was asked for: one for each processor."""
        self._pool: ProcessPoolExecutor | None = None
        self._keeps_pool = False

    def __enter__(self) -> "Engine":
        self._keeps_pool = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keeps_pool = False
        self._end_pool()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """`function` of each task, in order. Raises what the function raises, and `BertsmithError` for a task whose
        process died (killed, out of memory) again and again.
        """
        if self.workers <= 1 or len(tasks) <= 1:
            return map(function, tasks)
        return self._in_processes(function, tasks)

    def _in_processes(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        waiting = deque(tasks)
        running: deque[tuple[Task, Future[Result]]] = deque()
        deaths = 0
        finished = False
        try:
            while waiting or running:
                # After a death one task runs alone, so that it is known which one it is that kills.
                most = 1 if deaths else self.workers * _QUEUED_PER_WORKER
                try:
                    while waiting and len(running) < most:
                        running.append((waiting[0], self._submit(function, waiting[0])))
                        waiting.popleft()
                    result = running[0][1].result()
                except BrokenProcessPool as error:
                    self._leave_broken_pool()
                    deaths += 1
                    if deaths > _MOST_DEATHS:
                        raise BertsmithError(
                            f"a worker process died {deaths} times, most likely out of memory; use fewer: "
                            "runtime.workers = 1"
                        ) from error
                    waiting.extendleft(task for task, _ in reversed(running))
                    running.clear()
                else:
                    running.popleft()
                    deaths = 0
                    yield result
            finished = True
        finally:
            if not (finished and self._keeps_pool):
                self._end_pool()

    def _submit(self, function: Callable[[Task], Result], task: Task) -> "Future[Result]":
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=_context(), initializer=_begin_worker, initargs=(dict(os.environ),)
            )
        with _main_left_out():
            return self._pool.submit(function, task)

    def _leave_broken_pool(self) -> None:
        """Its own thread ends the workers that are left; to end them here too would race with it."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)

    def _end_pool(self) -> None:
        """Stop the workers at once: what they were at is begun again, or not wanted."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError, ValueError):
                process.terminate()
        for process in processes.values():
            process.join()


IN_THIS_PROCESS = Engine()


def _context() -> Any:
    """How workers are started: forked, but not from this process, whose threads (torch, tokenizers) a fork would
    break. A process with one thread, started with the first pool and ended with this process, forks for all pools.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


@contextlib.contextmanager
def _main_left_out() -> Iterator[None]:
    """Start a worker without the script that began this process, which it would import first.

    Tasks are functions of our modules, so it is of no use there; it may take seconds, and a script without
    `if __name__ == "__main__":` would begin all over again.
    """
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    for name in hidden:
        delattr(main, name)
    main.__spec__ = None
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _begin_worker(environment: dict[str, str]) -> None:
    """Leave Ctrl-C to the parent, and end when the parent does, however it does.

    environment: the parent's variables as they are now; a forked process has those of the one it was forked from.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # a collection walks every object of a chunk over and over; chunks leave no cycles behind
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
