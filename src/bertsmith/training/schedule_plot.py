"""A schedule drawn as text."""

from bertsmith.training.schedule import Schedule

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def draw_schedule(
    schedule: Schedule, *, learning_rate: float, total_steps: int | None, width: int = 60, height: int = 12
) -> str:
    """The learning rate over the run, `width` columns by `height` rows besides the axes.

    A column is as high, to an eighth of a row, as the rate in the middle of the updates that it stands for; a label is
    the rate at the top of its row. The axis below counts steps or, where `total_steps` is None because a budget decides
    them, shares of the run.

    >>> print(draw_schedule(lambda p: 1 - p, learning_rate=1e-4, total_steps=1000, width=20, height=2))
    learning rate
    1.00e-04 ┤█▇▆▅▄▄▃▂▁
    5.00e-05 ┤███████████▇▆▅▄▄▃▂▁
           0 ┼────────────────────
              0        500   1,000
                             steps
    """
    eighths = [round(8 * height * schedule((column + 0.5) / width)) for column in range(width)]
    labels = {row: f"{learning_rate * row / height:.2e}" for row in (height, height // 2) if row}
    margin = max(map(len, labels.values()))
    lines = ["learning rate"]
    for row in range(height, 0, -1):
        cells = "".join(_EIGHTHS[min(max(filled - 8 * (row - 1), 0), 8)] for filled in eighths)
        lines.append(f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}{cells}".rstrip())
    lines.append(f"{'0':>{margin}} ┼{'─' * width}")
    start, middle, end = ("0 %", "50 %", "100 %") if total_steps is None else _counts(total_steps)
    gap = width // 2 - len(start) - len(middle) // 2
    axis = f"{start}{' ' * max(gap, 1)}{middle}"
    lines.append(" " * (margin + 2) + axis + end.rjust(width - len(axis)))
    lines.append(" " * (margin + 2) + ("of the run" if total_steps is None else "steps").rjust(width))
    return "\n".join(lines)


def _counts(total_steps: int) -> tuple[str, str, str]:
    return "0", f"{total_steps // 2:,}", f"{total_steps:,}"
