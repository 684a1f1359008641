"""Scores: the final table with its intervals, and the table of evaluations during training."""

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bertsmith.analysis.folder import RunFolder, Training, mapping, sequence, step_of
from bertsmith.analysis.markup import Html, duration, mean, number, score, show, spread, table, tag, words
from bertsmith.analysis.predictions import hardest

MOST_EVALUATIONS = 60


def scores(folder: RunFolder) -> list[Html]:
    rows = [row for row in map(mapping, sequence(folder.scores.get("table"))) if row]
    splits = list(dict.fromkeys((str(row.get("split", "")), str(row.get("metric", ""))) for row in rows))
    parts = [
        _score_table([r for r in rows if (str(r.get("split", "")), str(r.get("metric", ""))) == key], *key)
        for key in splits
    ]
    quoted = mapping(mapping(folder.recipe.get("finetune")).get("literature"))
    if quoted:
        items = [[tag("dt", None, str(name)), tag("dd", None, str(said))] for name, said in quoted.items()]
        parts.append(
            tag("div", {"class": "part"}, tag("h3", None, "From elsewhere"), tag("dl", {"class": "quotes"}, items))
        )
    return parts


def _score_table(rows: Sequence[Mapping[str, Any]], split: str, metric: str) -> Html:
    values = [number(row.get(key)) for row in rows for key in ("score", "low", "high")]
    known = [value for value in values if value is not None]
    low, high = min(0.0, math.floor(10 * min(known, default=0.0)) / 10), max([1.0, *known])
    best = max((number(row.get("score")) or 0.0 for row in rows), default=0.0)
    body = [
        [
            tag(
                "td",
                {"class": "name"},
                str(row.get("name", "")),
                tag("small", None, str(row["note"])) if row.get("note") else None,
            ),
            tag("td", {"class": "n" + (" best" if number(row.get("score")) == best else "")}, score(row.get("score"))),
            tag("td", {"class": "n dim"}, interval(row)),
            tag("td", {"class": "wide"}, _interval_bar(row, low, high)),
            tag("td", {"class": "n dim"}, show(row.get("rows"))),
            tag("td", {"class": "n dim"}, duration(row.get("seconds"))),
        ]
        for row in rows
    ]
    header = [
        "",
        words(metric),
        "95 % interval",
        tag("span", {"class": "scale"}, tag("span", None, f"{low:g}"), tag("span", None, f"{high:g}")),
        "rows",
        "time",
    ]
    return tag(
        "div", {"class": "part"}, tag("h3", None, f"{words(metric)} on {split}"), table(header, body, classes="scores")
    )


def interval(row: Mapping[str, Any]) -> str:
    low, high = number(row.get("low")), number(row.get("high"))
    return "" if low is None or high is None else f"{score(low)} – {score(high)}"


def _interval_bar(row: Mapping[str, Any], low: float, high: float) -> Html | None:
    """A bar from 0 to the score, with its interval as a whisker."""

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    value = number(row.get("score"))
    if value is None:
        return None
    left, right = sorted((place(0), place(value)))
    parts = [tag("i", {"class": "bar", "style": f"left:{left:.2f}%;width:{right - left:.2f}%"})]
    begin, end = number(row.get("low")), number(row.get("high"))
    if begin is not None and end is not None:
        parts.append(
            tag("i", {"class": "whisker", "style": f"left:{place(begin):.2f}%;width:{place(end) - place(begin):.2f}%"})
        )
    return tag("span", {"class": "interval"}, parts)


def evaluations(folder: RunFolder) -> list[Html]:
    return [part for part in map(_evaluation_table, folder.trainings) if part is not None]


def _evaluation_table(training: Training) -> Html | None:
    evaluations = training.of("evaluation")
    if not evaluations:
        return None
    names = list(dict.fromkeys(key for event in evaluations for key in mapping(event.get("scores"))))
    steps = training.of("step")
    numbers = [step_of(event) for event in steps]
    rows, since = [], 0
    for event in evaluations:
        step = step_of(event)
        upto = bisect.bisect_right(numbers, step)
        trained = mean(steps[since:upto], "loss")
        since = upto
        scores = mapping(event.get("scores"))
        rows.append(
            [
                f"{step:,}" + (" ★" if event.get("best") else ""),
                show(number(event.get("epoch"))),
                show(trained),
                show(number(event.get("loss"))),
                *[score(scores.get(name)) for name in names],
                duration(event.get("seconds")),
                duration(event.get("elapsed_seconds")),
            ]
        )
    header = ["step", "epoch", "training loss", "validation loss", *map(words, names), "took", "elapsed"]
    best = [i for i, event in enumerate(evaluations) if event.get("best")]
    kept = sorted({*spread(list(range(len(rows))), MOST_EVALUATIONS), *best[-1:]})
    inner = table(header, [rows[i] for i in kept], classes="numbers")
    hard = hardest(sequence(evaluations[-1].get("hardest")))
    starred = tag("p", {"class": "said"}, "★ better than every one before it") if best else None
    return tag("div", {"class": "part"}, tag("h3", None, training.name), starred, inner, hard)
