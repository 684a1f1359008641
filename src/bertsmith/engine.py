"""Many independent tasks on several processes: results in the order of the tasks, whatever ends first.

A task is a function of a module and one argument, both picklable, that writes its own files whole or not at all and
returns little; so it may be run again, on another process, and leaves the same bytes. A task whose process died is.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, TypeVar

from bertsmith.errors import BertsmithError
from bertsmith.runtime import available_cpus
from bertsmith.worker import Worker

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_DEATHS = 3
"""Of processes at one task."""
_TASKS_PER_WORKER = 2
"""One that it is at, one that waits for it."""


class Engine:
    """Where tasks run; nothing here changes what they write.

    >>> with Engine(workers=2) as engine:                       # the same processes for all that follows
    ...     results = list(engine.map(function, tasks))         # doctest: +SKIP
    """

    def __init__(self, workers: int = 1):
        self.workers = workers or available_cpus()
        """Processes; 1: in this process. 0 was asked for: one for each processor."""
        self._kept: list[Worker] = []
        self._keeps = False

    def __enter__(self) -> "Engine":
        self._keeps = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keeps = False
        self._end()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """`function` of each task, in order. Raises what the function raises, and `BertsmithError` for a task whose
        process died (killed, out of memory) again and again.
        """
        if self.workers <= 1 or len(tasks) <= 1:
            return map(function, tasks)
        return self._in_processes(function, tasks)

    def _in_processes(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        workers, self._kept = self._kept, []
        hands = _Hands(function, tasks, workers, self.workers)
        finished = False
        try:
            for wanted in range(len(tasks)):
                while wanted not in hands.answers:
                    hands.give(until=wanted + self.workers * _TASKS_PER_WORKER)
                    hands.take()
                succeeded, answer = hands.answers.pop(wanted)
                if not succeeded:
                    raise answer
                yield answer
            finished = True
        finally:
            self._kept.extend(workers)
            if not (finished and self._keeps):
                self._end()

    def _end(self) -> None:
        while self._kept:
            self._kept.pop().end()


class _Hands:
    """Tasks by their number: which wait, which worker holds which, and the answers nobody has asked for yet."""

    def __init__(self, function: Callable[[Any], Any], tasks: Sequence[Any], workers: list[Worker], most: int):
        self.function, self.tasks, self.workers, self.most = function, tasks, workers, most
        self.waiting = deque(range(len(tasks)))
        self.held: dict[Worker, deque[int]] = {worker: deque() for worker in workers}
        self.answers: dict[int, tuple[bool, Any]] = {}
        self.deaths: Counter[int] = Counter()
        """By task, of processes that were at it."""

    def give(self, until: int) -> None:
        """Hand out what waits, below number `until`. A task whose process died runs alone: memory may be short."""
        while self.waiting and self.waiting[0] < until:
            if self.deaths and any(self.held.values()):
                return
            worker = min(self.workers, key=lambda one: len(self.held[one]), default=None)
            if worker is None or (self.held[worker] and len(self.workers) < self.most):
                worker = Worker()
                self.workers.append(worker)
                self.held[worker] = deque()
            # The last ones go to whoever is free, not behind another one.
            if len(self.held[worker]) >= (_TASKS_PER_WORKER if len(self.waiting) > self.most else 1):
                return
            number = self.waiting.popleft()
            self.held[worker].append(number)
            worker.give(self.function, self.tasks[number])

    def take(self) -> None:
        """Wait until a worker has an answer, or has died; a dead one's tasks wait again, in their order."""
        at_work = {worker.answers: worker for worker, held in self.held.items() if held}
        for ready in connection.wait(list(at_work)):
            worker = at_work[ready]
            try:
                answer = worker.answer()
            except EOFError as error:
                self._replace(worker, error)
            else:
                number = self.held[worker].popleft()
                self.answers[number] = answer
                del self.deaths[number]

    def _replace(self, dead: Worker, cause: EOFError) -> None:
        numbers = self.held.pop(dead)
        self.workers.remove(dead)
        dead.end()
        self.waiting = deque(sorted([*numbers, *self.waiting]))
        self.deaths[numbers[0]] += 1
        if self.deaths[numbers[0]] > _MOST_DEATHS:
            raise BertsmithError(
                f"a worker process died {self.deaths[numbers[0]]} times, most likely out of memory; use fewer: "
                "runtime.workers = 1"
            ) from cause


IN_THIS_PROCESS = Engine()
