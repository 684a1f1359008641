"""A diagnosis in words: for a terminal, for a program, and for the report."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from bertsmith.analysis.diagnose.finding import ILLNESSES, Diagnosis, Finding, Series
from bertsmith.analysis.markup import Html, tag

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """For a terminal."""
    if not diagnosis.findings:
        yield f"{diagnosis.run}: nothing found"
    for finding in diagnosis.findings:
        where = f" [{finding.training}]" if finding.training else ""
        yield f"{ILLNESSES[finding.illness].upper()}{where} ({finding.degree})"
        yield f"  {finding.seen}"
        for one in drawn(finding):
            yield f"  {sparkline(one)}  {one.name}, steps {one.points[0][0]:,.0f} to {one.points[-1][0]:,.0f}"
        for line in finding.evidence:
            yield f"  · {line}"
        for number, advice in enumerate(finding.advice):
            yield f"  {'try ' if number == 0 else 'or  '} {advice}"
        yield ""
    if diagnosis.unknown:
        told = [f"{ILLNESSES[name]} ({because})" for name, because in diagnosis.unknown.items()]
        yield f"not looked for: {'; '.join(told)}"


def short(diagnosis: Diagnosis) -> Iterator[str]:
    """A line a finding, for the end of a run."""
    for finding in diagnosis.findings:
        yield f"{ILLNESSES[finding.illness]} ({finding.degree}): {finding.seen}"
        yield f"  try {finding.advice[0]}"


def record(diagnosis: Diagnosis) -> dict[str, Any]:
    """For a program."""
    return asdict(diagnosis)


def section(diagnosis: Diagnosis) -> list[Html]:
    """For the report."""
    if not diagnosis.findings:
        parts = [tag("p", {"class": "said"}, "Nothing found that looks like an illness.")]
    else:
        parts = [_card(finding) for finding in diagnosis.findings]
    if diagnosis.unknown:
        told = "; ".join(f"{ILLNESSES[name]} ({because})" for name, because in diagnosis.unknown.items())
        parts.append(tag("p", {"class": "said"}, f"Not looked for: {told}."))
    return parts


def drawn(finding: Finding) -> list[Series]:
    """What there is to draw: a log may have no finite number at all."""
    return [one for one in finding.series if one.points]


def sparkline(series: Series, width: int = _WIDTH) -> str:
    """A curve in one line of text; of several points in a column the one that is farthest from the middle."""
    values = [value for _, value in series.points]
    if not values:
        return ""
    low, high = min(values), max(values)
    middle, columns = (low + high) / 2, min(width, len(values))
    chosen = []
    for column in range(columns):
        part = values[column * len(values) // columns : (column + 1) * len(values) // columns]
        chosen.append(max(part, key=lambda value: abs(value - middle)))
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in chosen)


def _card(finding: Finding) -> Html:
    where = f" · {finding.training}" if finding.training else ""
    return tag(
        "article",
        {"class": f"finding {finding.degree}"},
        tag("h3", None, ILLNESSES[finding.illness].capitalize(), tag("em", None, f"{finding.degree}{where}")),
        tag("p", None, finding.seen),
        [_chart(drawn(finding))] if drawn(finding) else None,
        tag("ul", {"class": "evidence"}, [tag("li", None, line) for line in finding.evidence])
        if finding.evidence
        else None,
        tag("p", {"class": "try"}, tag("b", None, "Try "), finding.advice[0]),
        [tag("p", {"class": "try"}, tag("b", None, "or "), advice) for advice in finding.advice[1:]],
    )


def _chart(series: Sequence[Series]) -> Html:
    """Small curves in one frame, each named at its end."""
    width, height, pad = 320, 90, 6
    points = [point for one in series for point in one.points]
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))

    def place(step: float, value: float) -> str:
        x = pad + (width - 2 * pad) * ((step - left) / (right - left) if right > left else 0.5)
        y = height - pad - (height - 2 * pad) * ((value - low) / (high - low) if high > low else 0.5)
        return f"{x:.1f},{y:.1f}"

    drawn = [
        tag("polyline", {"class": f"s{number}", "points": " ".join(place(*point) for point in one.points)})
        for number, one in enumerate(series)
    ]
    keys = [tag("span", {"class": f"s{number}"}, one.name) for number, one in enumerate(series)]
    told = f"{low:.3g} to {high:.3g}, steps {left:,.0f} to {right:,.0f}"
    return tag(
        "figure",
        {"class": "small-chart"},
        tag("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": told}, drawn),
        tag("figcaption", None, keys, tag("span", None, told)),
    )
