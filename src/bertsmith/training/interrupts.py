"""Ctrl-C and SIGTERM while training: noted at once, acted on where the state is whole."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupted(Exception):  # noqa: N818 - no error, as errors.Stopped
    """A signal arrived; raised at a point where weights and optimizer belong together."""

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        super().__init__(signal.Signals(signal_number).name)


class Interrupts:
    """Handles SIGINT and SIGTERM inside its `with` block; outside the main thread it leaves them alone.

    The first signal is only noted; `check` raises it. Inside `immediately` it is raised on arrival. The second signal
    ends the process at once.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._immediate = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
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

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.pending:
            if sys.stdout.isatty():
                sys.stdout.write("\x1b[?25h")  # the progress bar hides the cursor
                sys.stdout.flush()
            os._exit(128 + number)
        self.signal_number = number
        if self._immediate:
            raise Interrupted(number)
