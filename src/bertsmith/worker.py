"""One process that works off tasks, and its parent's hold on it: a pipe, and nothing that two processes share.

So whichever side dies, the other one reads the end of the pipe, and no third one is concerned.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

_PRELOADED = ["bertsmith.corpus.prepare", "bertsmith.corpus.finish", "bertsmith.examples.shards"]
"""Modules of most tasks, imported once by the process that workers are forked from; others each worker imports."""


class Worker:
    """A process that answers each task in the order in which they were given, seen from its parent."""

    def __init__(self) -> None:
        context = _context()
        self.answers, theirs = context.Pipe()
        """To be waited for; readable too where the process has died."""
        self._process = context.Process(target=_work, args=(theirs, dict(os.environ)), daemon=True)
        with _main_left_out():
            self._process.start()
        theirs.close()

    def give(self, function: Callable[[Any], Any], task: object) -> None:
        """Never waits for the process to be free; where it has died, `answer` says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.answers.send_bytes(pickle.dumps((function, task)))

    def answer(self) -> tuple[bool, Any]:
        """(True, what the function returned) or (False, what it raised). Raises EOFError where the process died."""
        try:
            done: tuple[bool, Any] = self.answers.recv()
        except ConnectionResetError as error:
            raise EOFError from error
        return done

    def end(self) -> None:
        """At once: what it was at is begun again, or not wanted."""
        self.answers.close()
        self._process.kill()
        self._process.join()


def _context() -> Any:
    """How workers are started: forked, but not from this process, whose threads (torch, tokenizers) a fork would
    break. A process with one thread, started with the first worker and ended with this process, forks for all.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        with contextlib.suppress(OSError), _main_left_out():  # its socket needs a short TMPDIR with room for a file
            forkserver.ensure_running()
            return context
    return multiprocessing.get_context("spawn")


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


def _work(pipe: Connection, environment: dict[str, str]) -> None:
    """All that the process does. It leaves Ctrl-C to the parent, and ends when the parent does, however it does.

    environment: the parent's variables as they are now; a forked process has those of the one it was forked from.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # a collection walks every object of a chunk over and over; chunks leave no cycles behind
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, tasks), daemon=True).start()
    while True:
        answer = _answer(tasks.get())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone: so is this process soon
            pipe.send_bytes(answer)


def _receive(pipe: Connection, tasks: "queue.SimpleQueue[bytes]") -> None:
    """Always ready to read, so that giving a task never waits; and the first to see that the parent has gone."""
    try:
        while True:
            tasks.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _answer(given: bytes) -> bytes:
    try:
        function, task = pickle.loads(given)  # our own parent's, not a user's file
        return pickle.dumps((True, function(task)))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            answer = pickle.dumps((False, error))
            pickle.loads(answer)
        except Exception:  # an error that does not survive being sent
            answer = pickle.dumps((False, RuntimeError(traceback.format_exc())))
        return answer
