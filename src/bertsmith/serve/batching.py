"""Dynamic batches: texts of many requests, of like length, computed together by one thread a model.

Requests wait in a queue that is bounded by requests and tokens. The thread takes the text that is due first, and with
it those of nearest length, as long as a batch stays within what is computed in `Limits.batch_seconds` at the speed
measured so far, and is mostly no padding. The texts of a long request fall due one after another, as if it had the
model to itself, so it does not hold up one of a single text. What nobody waits for any more is dropped.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertsmith.serve.faults import Fault
from bertsmith.serve.limits import Limits

FILLED_SHARE = 0.75
"""Least share of a batch that is no padding."""
_LOOKED_AT = 256
"""Texts, of those due first, from which a batch is chosen."""
_LEAST_TOKENS = 256
_FIRST_SPEED = 4000.0
"""Tokens a second, until batches were measured."""
_NEW_WEIGHT = 0.2
"""Of the last batch, in the measured speed."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A row as the model reads it: its longest sequence in tokens, and how many sequences it has."""

    row: Any
    length: int
    sequences: int = 1

    @property
    def tokens(self) -> int:
        return self.length * self.sequences


@dataclass(slots=True, eq=False)
class _Job:
    """A request: its answers as they come."""

    answers: list[Any]
    missing: int
    tokens: int
    deadline: float
    future: "asyncio.Future[list[Any]]"
    loop: asyncio.AbstractEventLoop
    failed: BaseException | None = None

    def is_wanted(self, now: float) -> bool:
        return self.failed is None and now < self.deadline and not self.future.done()


@dataclass(slots=True, eq=False)
class _Item:
    due: float
    sized: Sized
    job: _Job
    place: int


@dataclass
class Told:
    """What the batcher tells of, for metrics; called in its thread."""

    batch: Callable[[int, int, float], None] = lambda *_: None
    """Texts, tokens without padding, seconds of one batch."""
    dropped: Callable[[int], None] = lambda *_: None
    """Texts that nobody waited for any more."""


@dataclass
class Batcher:
    """The queue of one model and the thread that computes it.

    Args:
        answer: answers to rows, in their order; called in the batcher's thread alone.
        turn: held while a batch is computed; models that share processors share it.
    """

    answer: Callable[[list[Any]], Sequence[Any]]
    limits: Limits
    turn: threading.Lock = field(default_factory=threading.Lock)
    told: Told = field(default_factory=Told)
    name: str = "model"

    def __post_init__(self) -> None:
        self._items: list[_Item] = []
        self._jobs: set[_Job] = set()
        self._tokens = 0
        self._changed = threading.Condition()
        self._ends = False
        self.tokens_per_second = _FIRST_SPEED
        self._thread = threading.Thread(target=self._work, name=f"batches of {self.name}", daemon=True)
        self._thread.start()

    @property
    def queued_requests(self) -> int:
        return len(self._jobs)

    @property
    def queued_tokens(self) -> int:
        return self._tokens

    @property
    def is_full(self) -> bool:
        return len(self._jobs) >= self.limits.queue_requests or self._tokens >= self.limits.queue_tokens

    def full(self) -> Fault:
        """The answer to a request for which there is no room."""
        seconds = max(1, round(self._tokens / self.tokens_per_second))
        return Fault(429, f"the queue is full; ask again in {seconds} s", {"Retry-After": str(seconds)})

    async def submit(self, rows: Sequence[Sized], *, deadline_seconds: float | None = None) -> list[Any]:
        """Answers to all rows. Raises `Fault`: 413 for more than ever fits, 429 where there is no room now, 504."""
        tokens = sum(row.tokens for row in rows)
        if tokens > self.limits.queue_tokens:
            most = self.limits.queue_tokens
            raise Fault(413, f"{tokens:,} tokens in one request; at most {most:,} are taken, so send several requests")
        seconds = min(deadline_seconds or self.limits.deadline_seconds, self.limits.deadline_seconds)
        if self.is_full or self._tokens + tokens > self.limits.queue_tokens or self._takes_longer_than(seconds):
            raise self.full()
        loop, now = asyncio.get_running_loop(), time.monotonic()
        job = _Job([None] * len(rows), len(rows), tokens, now + seconds, loop.create_future(), loop)
        if not rows:
            return []
        with self._changed:
            if self._ends:
                raise Fault(503, "this model is being replaced; ask again", {"Retry-After": "1"})
            self._jobs.add(job)
            self._tokens += tokens
            self._items += self._as_items(rows, job, now)
            self._changed.notify()
        try:
            async with asyncio.timeout_at(loop.time() + seconds):
                return await job.future
        except TimeoutError:
            raise Fault(504, f"not answered within {seconds:g} s", {"Retry-After": "1"}) from None
        finally:
            job.future.cancel()
            with self._changed:
                self._leave(job)

    def close(self, *, seconds: float = 60.0) -> None:
        """Answer what waits, take no more, end the thread."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(seconds)

    def _takes_longer_than(self, seconds: float) -> bool:
        return self._tokens / self.tokens_per_second > seconds

    def _as_items(self, rows: Sequence[Sized], job: _Job, now: float) -> list[_Item]:
        """Each due when it would be begun if the request had the model to itself."""
        items, before = [], 0
        for place, row in enumerate(rows):
            items.append(_Item(now + before / self.tokens_per_second, row, job, place))
            before += row.tokens
        return items

    def _leave(self, job: _Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            self._tokens -= job.tokens

    # In the thread

    def _work(self) -> None:
        while True:
            try:
                if (batch := self._next()) is None:
                    return
                with self.turn:
                    # What was given up while another model had its turn is not computed.
                    now = time.monotonic()
                    self._compute([item for item in batch if item.job.is_wanted(now)])
            except Exception as error:  # a defect of ours: those who wait are told, and the thread goes on
                self._give_up(error)

    def _next(self) -> list[_Item] | None:
        """The next batch, empty where all that waited was dropped; None at the end."""
        with self._changed:
            while not self._items:
                if self._ends:
                    return None
                self._changed.wait()
            self._wait_for_company()
            now = time.monotonic()
            wanted = [item for item in self._items if item.job.is_wanted(now)]
            if len(wanted) < len(self._items):
                self.told.dropped(len(self._items) - len(wanted))
            batch = choose(wanted, max(_LEAST_TOKENS, int(self.tokens_per_second * self.limits.batch_seconds)))
            taken = set(map(id, batch))
            self._items = [item for item in wanted if id(item) not in taken]
            return batch

    def _wait_for_company(self) -> None:
        until = time.monotonic() + self.limits.wait_seconds
        while not self._ends and self._tokens < _LEAST_TOKENS and (left := until - time.monotonic()) > 0:
            self._changed.wait(left)

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            waiting, self._items = {id(item.job): item.job for item in self._items}, []
        for job in waiting.values():
            self._fail(job, error)

    def _compute(self, batch: list[_Item]) -> None:
        if not batch:
            return
        began = time.monotonic()
        try:
            answers = list(self.answer([item.sized.row for item in batch]))
        except Exception as error:
            jobs = {id(item.job): item.job for item in batch}
            if len(jobs) > 1:  # one request's fault is no other's
                for job in jobs.values():
                    self._compute([item for item in batch if item.job is job])
            else:
                self._fail(batch[0].job, error)
            return
        seconds = time.monotonic() - began
        self._measure(batch, seconds)
        done = []
        for item, answer in zip(batch, answers, strict=True):
            item.job.answers[item.place] = answer
            item.job.missing -= 1
            if item.job.missing == 0:
                done.append(item.job)
        for job in done:
            _tell(job, lambda job=job: job.future.set_result(job.answers))  # type: ignore[misc]

    def _fail(self, job: _Job, error: Exception) -> None:
        job.failed = error
        _tell(job, lambda: job.future.set_exception(error))

    def _measure(self, batch: Sequence[_Item], seconds: float) -> None:
        longest = max(item.sized.length for item in batch)
        computed = longest * sum(item.sized.sequences for item in batch)
        self.tokens_per_second += _NEW_WEIGHT * (computed / max(seconds, 1e-6) - self.tokens_per_second)
        self.told.batch(len(batch), sum(item.sized.tokens for item in batch), seconds)


def choose(items: Sequence[_Item], most_tokens: int) -> list[_Item]:
    """The item that is due first, and those of like length, of at most `most_tokens` tokens, padding included."""
    if not items:
        return []
    waiting = sorted(items, key=lambda item: item.due)[:_LOOKED_AT]
    head, first = waiting[0], waiting[0].sized
    others = sorted(waiting[1:], key=lambda item: (abs(item.sized.length - first.length), item.due))
    batch, longest, sequences, tokens = [head], first.length, first.sequences, first.tokens
    for item in others:
        sized = item.sized
        padded = max(longest, sized.length) * (sequences + sized.sequences)
        if padded <= most_tokens and tokens + sized.tokens >= FILLED_SHARE * padded:
            batch.append(item)
            longest, sequences = max(longest, sized.length), sequences + sized.sequences
            tokens += sized.tokens
    return batch


def _tell(job: _Job, act: Callable[[], None]) -> None:
    """Act in the request's own loop, if somebody still waits there."""

    def unless_done() -> None:
        if not job.future.done():
            act()

    try:
        job.loop.call_soon_threadsafe(unless_done)
    except RuntimeError:  # the loop has ended, and its requests with it
        return
