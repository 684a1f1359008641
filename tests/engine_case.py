"""Tasks for engines, importable on their workers."""

import os
import signal
import time
from pathlib import Path

from bertsmith.errors import DataError


def double(number: int) -> int:
    return 2 * number


def slower_first(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number


def refuse_three(number: int) -> int:
    if number == 3:
        raise DataError("is three", path="numbers.txt", line=number)
    return number


def itself(task: bytes) -> bytes:
    return task


class UnsendableError(Exception):
    def __init__(self, first: str, second: str):
        super().__init__(f"{first} {second}")


def refuse_unsendably(_: int) -> None:
    raise UnsendableError("two arguments", "of its own")


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def where(_: int) -> str:
    return str(Path.cwd())


def note_and_wait(folder: Path) -> None:
    """Leave a file named by this process, then take a long time."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)
