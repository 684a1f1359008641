"""Learning curves as inline SVG: drawn here, so that they print and need no script; report.js makes them move.

A plot is an SVG of 1000 x 1000 units stretched to its box, so that zooming is a change of its viewBox; lines keep
their width by `vector-effect`. Tick labels and marks are HTML beside it, so that they keep their size on a phone.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertsmith.analysis.marks import Mark
from bertsmith.analysis.markup import Html, show, tag
from bertsmith.analysis.run_log import Floats
from bertsmith.analysis.series import Series, means, thin

UNITS = 1000
NUM_COLOURS = 6


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from `low` to `high`, about `most` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def short(value: float) -> str:
    """A tick's label: 1.5k, 20M, 0.05, 1e-4."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{letter}"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}" if size > 1e-9 else "0"
    return f"{value:.4g}"


def chart(
    title: str, lines: Sequence[Series], *, group: str, note: str = "", marks: Sequence[Mark] = ()
) -> Html | None:
    """A figure with its legend and data; None where there is nothing to draw. Charts of a group zoom together."""
    lines = [line for line in lines if len(line.known)]
    if not lines:
        return None
    values = np.concatenate([line.known for line in lines])
    x_range = _widened(min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines), margin=0.01)
    y_range = _widened(values.min(), values.max(), margin=0.06)
    thinned = [(line, *thin(line.steps, line.values)) for line in lines]
    drawn = [_path(line, xs, ys, x_range, y_range) for line, xs, ys in thinned]
    shown = [mark for mark in marks if x_range[0] <= mark.step <= x_range[1]]
    told = [line for line in lines if line.style != "faint"]
    legend = [_key(line) for line in told] if len(told) > 1 else []
    return tag(
        "figure",
        {"class": "chart", "data-group": group},
        tag("figcaption", None, tag("b", None, title), tag("span", {"class": "legend"}, legend)),
        tag(
            "div",
            {"class": "plot", "tabindex": 0, "role": "img", "aria-label": _said(title, lines)},
            tag("div", {"class": "y"}, [_label(v, y_range, "bottom") for v in ticks(*y_range)]),
            tag(
                "svg",
                {"viewBox": f"0 0 {UNITS} {UNITS}", "preserveAspectRatio": "none", "aria-hidden": "true"},
                tag("g", {"class": "grid"}, [_grid(v, y_range) for v in ticks(*y_range)]),
                tag("g", {"class": "lines"}, drawn),
            ),
            tag("div", {"class": "marks"}, [_mark(mark, x_range) for mark in shown]),
            tag("div", {"class": "x"}, [_label(v, x_range, "left") for v in ticks(*x_range)]),
        ),
        tag("p", {"class": "note"}, note) if note else None,
        Html(f'<script type="application/json">{script_json(_data(thinned, x_range, y_range, shown))}</script>'),
    )


def _data(
    thinned: Sequence[tuple[Series, Floats, Floats]],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    marks: Sequence[Mark],
) -> dict[str, Any]:
    """What the script draws anew. Of a smoothed line the raw values are told, and the means of many lines each."""
    raw = {line.name for line, _, _ in thinned if line.style == "faint"}
    told = []
    for line, xs, ys in thinned:
        if line.style == "line" and line.name in raw:
            continue
        one = {"name": line.name, "colour": line.colour, "style": line.style, "x": _rounded(xs), "y": _rounded(ys)}
        if line.style == "faint" and len(line.values) > len(xs):
            one["mx"], one["my"] = map(_rounded, means(line.steps, line.values))
        told.append(one)
    data: dict[str, Any] = {"x": _rounded(x_range), "y": _rounded(y_range), "series": told}
    if marks:
        data["marks"] = [[mark.step, mark.kind, mark.said] for mark in marks]
    return data


def _mark(mark: Mark, x_range: tuple[float, float]) -> Html:
    style = f"left:{100 * _share(mark.step, x_range):.2f}%"
    return tag("span", {"class": mark.kind, "style": style, "title": f"step {mark.step:,}: {mark.said}"})


def script_json(data: object) -> str:
    """JSON that may stand inside a <script>: no `<` can end it early."""
    written = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c")


def _widened(low: float, high: float, *, margin: float) -> tuple[float, float]:
    if low == high:
        reach = abs(low) / 10 or 0.05
        return low - reach, high + reach
    return low - margin * (high - low), high + margin * (high - low)


def _path(
    line: Series,
    steps: Floats,
    values: Floats,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> Html:
    xs = UNITS * _share(steps, x_range)
    ys = UNITS * (1 - _share(values, y_range))
    pieces = [[f"{x:.1f} {y:.1f}" for x, y in zip(xs[part], ys[part], strict=True)] for part in _pieces(values)]
    alone = [piece[0] for piece in pieces if len(piece) == 1]
    line_path = tag(
        "path", {"class": f"c{line.colour} {line.style}", "d": "".join("M" + "L".join(p) for p in pieces if len(p) > 1)}
    )
    dotted = [point for piece in pieces for point in piece] if line.style == "dots" else alone
    if not dotted:
        return line_path
    # A dot is a line of no length with round ends: it stays round however the plot is stretched.
    dots = tag("path", {"class": f"c{line.colour} dot", "d": "".join(f"M{point}h.01" for point in dotted)})
    return Html(line_path + dots)


def _pieces(values: Floats) -> list[slice]:
    """Stretches between gaps."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(known[1:] != known[:-1])
    return [slice(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def _share(value: Any, bounds: tuple[float, float]) -> Any:
    return (value - bounds[0]) / (bounds[1] - bounds[0])


def _label(value: float, bounds: tuple[float, float], side: str) -> Html:
    return tag("span", {"style": f"{side}:{100 * _share(value, bounds):.2f}%"}, short(value))


def _grid(value: float, bounds: tuple[float, float]) -> Html:
    y = f"{UNITS * (1 - _share(value, bounds)):.1f}"
    return tag("line", {"x1": 0, "x2": UNITS, "y1": y, "y2": y})


def _key(line: Series) -> Html:
    return tag("span", {"class": f"key c{line.colour}"}, tag("i", {"class": line.style}), line.name)


def _said(title: str, lines: Sequence[Series]) -> str:
    """What the chart shows, for those who cannot see it."""
    parts = []
    for line in lines:
        if line.style != "faint":
            steps = line.steps[np.isfinite(line.values)]
            first, last = (f"{show(float(line.known[end]))} at step {int(steps[end]):,}" for end in (0, -1))
            parts.append(f"{line.name} from {first} to {last}")
    return f"{title}: {'; '.join(parts)}"


def _rounded(values: Sequence[float] | Floats) -> list[float | int | None]:
    """Six digits are more than can be seen; whole numbers without their `.0`; None is a gap."""
    found: list[float | int | None] = []
    for value in values:
        short = float(f"{value:.6g}") if abs(value) < 1e6 else float(value)
        found.append(None if math.isnan(value) else int(short) if short.is_integer() else short)
    return found
