"""The same tasks on a Ray cluster: many machines, one list of results in the order of the tasks.

A task is what `engine.Engine.map` says: it writes its own files whole or not at all and may be run again, so that a
machine that is lost costs the tasks it was at, and nothing else. All machines must see the folders that tasks read and
write under the same paths, and have the same packages.
"""

import contextlib
import gc
import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bertsmith.config import RuntimeConfig
from bertsmith.engine import Engine, Result, Task
from bertsmith.errors import BertsmithError, MissingExtraError, UsageError

_MOST_RETRIES = 3
"""Of one task whose process or machine was lost."""
_QUEUED_PER_WORKER = 2


def engine_for(runtime: RuntimeConfig) -> Engine:
    """The engine that a recipe asks for. Raises `MissingExtraError` for Ray where it is not installed."""
    if runtime.engine == "ray":
        return RayEngine(runtime.workers, address=runtime.ray_address)
    if runtime.ray_address is not None:
        raise UsageError(f"ray_address = {runtime.ray_address!r} is of use only with engine = 'ray' (--engine ray)")
    return Engine(runtime.workers)


class RayEngine(Engine):
    """Runs tasks on the Ray cluster at `address` ("auto": the one this machine belongs to), or on one of its own.

    workers: tasks at once; 0: one for each processor of the cluster, also of machines that join later.

    >>> with RayEngine(address="10.0.0.1:6379") as engine:      # doctest: +SKIP
    ...     results = list(engine.map(function, tasks))
    """

    def __init__(self, workers: int = 0, *, address: str | None = None):
        super().__init__(workers=1)  # what a task itself may use: Ray was asked for one processor
        self.tasks_at_once = workers
        self.address = address
        self._ray = _import_ray()
        self._connected = False

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """`function` of each task, in order. Raises what the function raises, and `BertsmithError` for a task whose
        process or machine was lost again and again.
        """
        self._connect()
        remote = self._ray.remote(num_cpus=1, max_retries=_MOST_RETRIES)(_run)
        waiting, running = iter(tasks), deque[Any]()
        finished = False
        try:
            while True:
                for task in itertools.islice(waiting, max(0, self._most_queued() - len(running))):
                    running.append(remote.remote(function, task, str(Path.cwd())))
                if not running:
                    break
                yield self._result(running[0])
                running.popleft()
            finished = True
        finally:
            for reference in running:
                with contextlib.suppress(Exception):  # the cluster itself may be gone
                    self._ray.cancel(reference, force=True)
            if not (finished and self._keeps):
                self._end()

    def _most_queued(self) -> int:
        at_once = self.tasks_at_once or int(self._ray.cluster_resources().get("CPU", 1))
        return max(1, at_once) * _QUEUED_PER_WORKER

    def _result(self, reference: Any) -> Any:
        try:
            # Not ray.get: it swallows what our handlers of signals raise, but for KeyboardInterrupt.
            return reference.future().result()
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, self._ray.exceptions.RayError):  # it could not even be unpacked there
                raise BertsmithError(
                    f"a machine of the Ray cluster cannot run our tasks ({_last_line(error.cause)}); install the same "
                    "packages on all of them"
                ) from error
            raise error.cause from error  # as the function raised it
        except self._ray.exceptions.RayError as error:
            raise BertsmithError(
                f"Ray lost a task and could not run it again ({type(error).__name__}): most likely its machine is out "
                "of memory or gone; run the same command again, it goes on from what is done"
            ) from error

    def _connect(self) -> None:
        if self._connected or self._ray.is_initialized():  # a notebook's own connection is used, and left open
            return
        where: dict[str, Any] = {"address": self.address}
        if self.address is None:
            where = {"address": "local", "include_dashboard": False, "num_cpus": self.tasks_at_once or None}
        try:
            with _signals_left_alone():
                self._ray.init(**where, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            _refuse(self.address, error)
        self._connected = True

    def _end(self) -> None:
        """Leave the cluster; one of our own ends. What was still running there ends with our connection."""
        if self._connected:
            self._connected = False
            self._ray.shutdown()


def _run(function: Callable[[Task], Result], task: Task, folder: str) -> Result:
    """On a worker: paths of the task are meant from where the command was typed."""
    gc.disable()  # as in processes of our own: a chunk leaves no cycles, and collections would walk all of it
    with contextlib.suppress(OSError):  # a machine may lack it; a relative path is then said to be missing
        os.chdir(folder)
    return function(task)


def _import_ray() -> Any:
    # Nothing is sent to anyone, and Ray's warning about GPUs is for those who asked for one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with _signals_left_alone():
            import ray
    except ImportError as error:
        raise MissingExtraError("engine = 'ray'", "ray") from error
    return ray


def _refuse(address: str | None, error: Exception) -> NoReturn:
    where = "a Ray cluster of its own cannot be started" if address is None else f"no Ray cluster answers at {address}"
    raise UsageError(
        f"{where} ({_last_line(error)}); give the address that `ray start --head` printed, or 'auto' on a machine "
        "that belongs to it"
    ) from error


def _last_line(error: Exception) -> str:
    """What a report of many lines comes to."""
    return str(error).strip().split("\n")[-1] or type(error).__name__


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and then our command would not say how to go on."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
