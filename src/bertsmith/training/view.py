"""What a person sees while training goes on: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

_SECONDS_BETWEEN_PLAIN_LINES = 10.0


class View:
    """Shows figures of the latest steps; `peak` is the machine's best in FLOP/s, None where nobody measured it."""

    def __init__(self, console: Console, *, peak: float | None = None):
        self.console = console
        self.peak = peak
        self._bar: _Bar | None = None
        self._last_plain_line = 0.0
        self._first: tuple[int, float] | None = None

    def show(self, step: int, total_steps: int | None, fields: Mapping[str, Any]) -> None:
        """Move the bar, or print a line if none was printed for ten seconds; `fields` as in the step event."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        if self.console.is_terminal:
            if self._bar is None:
                self._bar = _Bar(self.console)
                self._task = self._bar.add_task("", total=total_steps, completed=step)
                self._bar.start()
            self._bar.figures = "  ".join(figures(fields, self.peak))
            self._bar.update(self._task, total=total_steps, completed=step)
        elif now - self._last_plain_line >= _SECONDS_BETWEEN_PLAIN_LINES:
            self._last_plain_line = now
            total = "?" if total_steps is None else f"{total_steps:,}"
            left = self._left(step, total_steps, now)
            self.say("  ".join([f"step {step:,}/{total}", *figures(fields, self.peak), *left]))

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._first = None

    def _left(self, step: int, total_steps: int | None, now: float) -> list[str]:
        assert self._first is not None, "set before"
        first_step, then = self._first
        if total_steps is None or step == first_step or step >= total_steps:
            return []
        return [f"{clock_text((total_steps - step) * (now - then) / (step - first_step))} left"]


def figures(fields: Mapping[str, Any], peak: float | None) -> list[str]:
    """Loss, accuracies on the training batches, speed, share of the machine's peak, gradient norm: those there are."""
    found = [f"loss {fields['loss']:.4f}"]
    found += [f"{name} {share:.1%}" for name, share in fields.get("accuracies", {}).items()]
    speed = fields["tokens_per_second"]
    found.append(f"{speed:,.0f} tokens/s")
    if peak and fields.get("flops_per_token"):
        found.append(f"{speed * fields['flops_per_token'] / peak:.0%} of peak")
    if "gradient_norm" in fields:
        found.append(f"gradient {fields['gradient_norm']:.3g}")
    return found


def clock_text(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class _Bar(Progress):
    """Two lines: the bar with its clock, and the figures."""

    def __init__(self, console: Console):
        self.figures = ""
        super().__init__(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.figures)
