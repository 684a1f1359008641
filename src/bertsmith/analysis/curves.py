"""Learning curves as inline SVG: drawn here, so that they print and need no script; report.js adds hover and zoom.

A plot is an SVG of 1000 x 1000 units stretched to its box, so that zooming is a change of its viewBox; lines keep
their width by `vector-effect`. Tick labels are HTML beside it, so that they keep their size on a phone.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from bertsmith.analysis.folder import Training, mapping, step_of
from bertsmith.analysis.markup import Html, number, show, tag, title, words

MOST_POINTS = 800
"""Points drawn of one line; more cannot be seen and only make the page heavy."""
UNITS = 1000
NUM_COLOURS = 6
Style = Literal["line", "dashed", "faint", "dots"]
"""A line; the same dashed; raw values behind a smoothed line; a line with a dot at each point."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: values over steps. `colour` counts the page's palette from 1."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    colour: int = 1
    style: Style = "line"


def series(
    events: Sequence[Mapping[str, Any]],
    value: Callable[[Mapping[str, Any]], object],
    *,
    name: str,
    colour: int = 1,
    style: Style = "line",
) -> Series:
    """The events' finite values over their steps; of a step that was logged twice the later value counts."""
    points = {step_of(event): number(value(event)) for event in events}
    kept = [(step, y) for step, y in sorted(points.items()) if y is not None]
    return Series(name, tuple(step for step, _ in kept), tuple(y for _, y in kept), colour, style)


def thin(steps: Sequence[int], values: Sequence[float], most: int = MOST_POINTS) -> tuple[list[int], list[float]]:
    """At most `most` of the points: first and last, and of each stretch its lowest and its highest."""
    if len(values) <= most:
        return list(steps), list(values)
    stretches = max(1, (most - 2) // 2)
    kept = {0, len(values) - 1}
    for stretch in range(stretches):
        begin = 1 + stretch * (len(values) - 2) // stretches
        end = 1 + (stretch + 1) * (len(values) - 2) // stretches
        kept.add(min(range(begin, end), key=values.__getitem__))
        kept.add(max(range(begin, end), key=values.__getitem__))
    order = sorted(kept)
    return [steps[i] for i in order], [values[i] for i in order]


def smooth(line: Series) -> Series:
    """The mean over a window of a thirtieth of the line around each point: it does not lag behind as a running one.

    The window is cut at the end; at the start, where a loss falls steeply, it is kept even on both sides.
    """
    reach = len(line.values) // 60
    sums = [0.0]
    for value in line.values:
        sums.append(sums[-1] + value)
    means = []
    for i in range(len(line.values)):
        before = min(reach, i)
        after = min(before, len(line.values) - 1 - i)
        means.append((sums[i + after + 1] - sums[i - before]) / (before + after + 1))
    return Series(line.name, line.steps, tuple(means), line.colour, "line")


def noisy(line: Series) -> list[Series]:
    """A line with its raw values behind it, where there are enough of them to need that."""
    if len(line.values) < 60:
        return [line]
    return [Series(line.name, line.steps, line.values, line.colour, "faint"), smooth(line)]


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


def chart(title: str, lines: Sequence[Series], *, group: str, note: str = "") -> Html | None:
    """A figure with its legend and data; None where there is nothing to draw. Charts of a group zoom together."""
    lines = [line for line in lines if line.values]
    if not lines:
        return None
    steps = [step for line in lines for step in line.steps]
    values = [value for line in lines for value in line.values]
    x_range = _widened(min(steps), max(steps), margin=0.01)
    y_range = _widened(min(values), max(values), margin=0.06)
    thinned = [(line, *thin(line.steps, line.values)) for line in lines]
    drawn = [_path(line, xs, ys, x_range, y_range) for line, xs, ys in thinned]
    raw = {line.name for line in lines if line.style == "faint"}
    data = {
        "x": [_rounded(v) for v in x_range],
        "y": [_rounded(v) for v in y_range],
        "series": [
            {"name": line.name, "colour": line.colour, "x": xs, "y": [_rounded(v) for v in ys]}
            for line, xs, ys in thinned
            if not (line.style == "line" and line.name in raw)  # of a smoothed line, the raw values are told
        ],
    }
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
                drawn,
            ),
            tag("div", {"class": "x"}, [_label(v, x_range, "left") for v in ticks(*x_range)]),
        ),
        tag("p", {"class": "note"}, note) if note else None,
        Html(f'<script type="application/json">{script_json(data)}</script>'),
    )


def script_json(data: object) -> str:
    """JSON that may stand inside a <script>: no `<` can end it early."""
    written = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c")


def training_charts(trainings: Sequence[Training], *, group: str) -> list[Html]:
    """Charts of one or several runs of the same kind; several share each chart, a colour each."""
    several = len(trainings) > 1

    def named(training: Training, what: str) -> str:
        return f"{training.name}: {what}" if several else what

    loss: list[Series] = []
    parts: dict[str, list[Series]] = {}
    scores: dict[str, list[Series]] = {}
    fields: dict[str, list[Series]] = {key: [] for key in ("learning_rate", "gradient_norm", "tokens_per_second")}
    for i, training in enumerate(trainings):
        steps, evaluations = training.of("step"), training.of("evaluation")
        own = i % NUM_COLOURS + 1
        trained = series(steps, _field("loss"), name=named(training, "training"), colour=own)
        checked = series(
            evaluations,
            _field("loss"),
            name=named(training, "validation"),
            colour=own if several else 2,
            style="dots",
        )
        loss += [replace(smooth(trained), style="dashed")] if several else noisy(trained)
        loss.append(checked)
        names = dict.fromkeys(key for event in [*steps, *evaluations] for key in mapping(event.get("losses")))
        for name in names if len(names) > 1 else ():
            trained = series(steps, _inner("losses", name), name=named(training, "training"), colour=own)
            checked = series(
                evaluations, _inner("losses", name), name=named(training, "validation"), colour=2, style="dots"
            )
            parts.setdefault(name, []).extend([*noisy(trained), checked])
        for name in dict.fromkeys(key for event in evaluations for key in mapping(event.get("scores"))):
            scored = series(evaluations, _inner("scores", name), name=training.name, colour=own, style="dots")
            scores.setdefault(name, []).append(scored)
        for field, collected in fields.items():
            one = series(steps, _field(field), name=training.name if several else field.replace("_", " "), colour=own)
            collected += [one] if field == "learning_rate" else noisy(one)
    made = [chart("Loss", loss, group=group)]
    made += [chart(f"Loss: {words(name)}", lines, group=group) for name, lines in parts.items()]
    if several:
        made += [chart(title(name), lines, group=group) for name, lines in scores.items()]
    else:
        made += [chart("Validation scores", _recoloured(scores), group=group)]
    titles = {
        "learning_rate": "Learning rate",
        "gradient_norm": "Gradient norm",
        "tokens_per_second": "Tokens per second",
    }
    made += [chart(titles[field], lines, group=group) for field, lines in fields.items()]
    return [figure for figure in made if figure is not None]


def _recoloured(scores: Mapping[str, Sequence[Series]]) -> list[Series]:
    """Scores of one run in one chart: named and coloured by score, as many as there are colours.

    The score that chooses the best checkpoint comes first; what is left out stands in the table of evaluations.
    """
    return [
        Series(words(name), line.steps, line.values, i + 1, "dots")
        for i, (name, lines) in enumerate(islice(scores.items(), NUM_COLOURS))
        for line in lines
    ]


def _inner(outer: str, key: str) -> Callable[[Mapping[str, Any]], object]:
    return lambda event: mapping(event.get(outer)).get(key)


def _field(key: str) -> Callable[[Mapping[str, Any]], object]:
    return lambda event: event.get(key)


def _widened(low: float, high: float, *, margin: float) -> tuple[float, float]:
    if low == high:
        reach = abs(low) / 10 or 0.05
        return low - reach, high + reach
    return low - margin * (high - low), high + margin * (high - low)


def _path(
    line: Series,
    steps: Sequence[int],
    values: Sequence[float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> Html:
    points = [
        f"{UNITS * _share(x, x_range):.1f} {UNITS * (1 - _share(y, y_range)):.1f}"
        for x, y in zip(steps, values, strict=True)
    ]
    line_path = tag("path", {"class": f"c{line.colour} {line.style}", "d": "M" + "L".join(points)})
    if line.style != "dots" and len(points) > 1:
        return line_path
    # A dot is a line of no length with round ends: it stays round however the plot is stretched.
    dots = tag("path", {"class": f"c{line.colour} dot", "d": "".join(f"M{point}h.01" for point in points)})
    return Html(line_path + dots)


def _share(value: float, bounds: tuple[float, float]) -> float:
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
            first, last = (f"{show(line.values[end])} at step {line.steps[end]:,}" for end in (0, -1))
            parts.append(f"{line.name} from {first} to {last}")
    return f"{title}: {'; '.join(parts)}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
