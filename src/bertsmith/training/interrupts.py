"""Ctrl-C and SIGTERM while training: noted at once, acted on where the state is whole."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_GRACE_SECONDS = 3.0


class Interrupted(BaseException):
    """A signal arrived; raised at a point where weights and optimizer belong together."""

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        super().__init__(signal.Signals(signal_number).name)


class Interrupts:
    """Handles SIGINT and SIGTERM inside its `with` block; outside the main thread it leaves them alone.

    The first signal is only noted; `check` raises it. Inside `immediately` it is raised on arrival, and inside
    `droppable` where nothing has checked for three seconds. The second signal ends the process at once.
    """

    def __init__(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        self.signal_number: int | None = None
        self._grace_seconds = grace_seconds
        self._immediate = False
        self._droppable = False
        self._reminds = False
        self._previous: dict[int, Any] = {}
        self._reminder: threading.Timer | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder.join()  # so that it reminds nobody else
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def pending(self) -> bool:
        return self.signal_number is not None

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    @contextlib.contextmanager
    def immediately(self) -> Iterator[None]:
        """Raise on arrival: for work that changes nothing that is saved, such as an evaluation."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    @contextlib.contextmanager
    def droppable(self) -> Iterator[None]:
        """Raise, wherever it is, if a signal has waited too long: for work that can be done again but is mostly soon
        over, such as a forward pass, unless it compiles.
        """
        self._droppable = True
        try:
            yield
        finally:
            self._droppable = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._reminds:
            self._reminds = False
            if self._droppable:
                self.check()
            return
        if self.pending:
            if sys.stdout.isatty():
                sys.stdout.write("\x1b[?25h")  # the progress bar hides the cursor
                sys.stdout.flush()
            os._exit(128 + number)
        self.signal_number = number
        if self._immediate:
            raise Interrupted(number)
        self._reminder = threading.Timer(self._grace_seconds, self._remind, args=(number,))
        self._reminder.daemon = True
        self._reminder.start()

    def _remind(self, number: int) -> None:
        """In a thread, which cannot raise in another one, but can send it the signal again."""
        if self._droppable:
            self._reminds = True
            signal.pthread_kill(threading.main_thread().ident or 0, number)
