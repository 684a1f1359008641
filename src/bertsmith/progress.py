"""How far a long stage is: a bar with rate and time left at a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

SECONDS_BETWEEN_LINES = 10.0
QUIET_SECONDS = 2.0
"""Work that takes no longer is not spoken of, where a stage shows rows."""

Report = Callable[[int, int], None]
"""Called with the bytes done and those there are (0 where nobody knows)."""


@contextlib.contextmanager
def shown(title: str, console: Console) -> Iterator[Report]:
    """Yield what a stage calls as it goes on."""
    if not console.is_terminal:
        yield _lines(title, console, "MB", size=1e6, decimals=1)
        return
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total or None)


@contextlib.contextmanager
def rows_shown(title: str, console: Console) -> Iterator[Report]:
    """Yield what is called with the rows done and those there are (0 where nobody knows)."""
    if not console.is_terminal:
        yield _lines(title, console, "rows", size=1, decimals=0)
        return
    started = time.monotonic()
    rate = TextColumn("{task.fields[rate]:,.0f} rows/s")
    with contextlib.ExitStack() as stack:
        progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            rate,
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        bar = progress.add_task(title, total=None, rate=0.0)

        def report(done: int, total: int) -> None:
            elapsed = time.monotonic() - started
            if elapsed > QUIET_SECONDS:
                if not progress.live.is_started:
                    stack.enter_context(progress)
                progress.update(bar, completed=done, total=total or None, rate=done / elapsed)

        yield report


def _lines(title: str, console: Console, unit: str, *, size: float, decimals: int) -> Report:
    """A line now and then; a unit is `size` of what is counted, and rates have so many decimals."""
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES or not done:
            return
        last = now
        rate = done / (now - started)
        whole, left = (f" of {total / size:,.0f}", f", {(total - done) / rate:.0f} s left") if total else ("", "")
        told = f"{done / size:,.0f}{whole} {unit}, {rate / size:,.{decimals}f} {unit}/s{left}"
        console.print(f"{title} {told}", highlight=False)

    return report
