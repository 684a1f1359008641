"""Scores: the final table with its intervals, and the table of evaluations during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsmith.analysis.folder import RunFolder, Training, mapping, sequence, step_of
from bertsmith.analysis.markup import (
    Html,
    details,
    duration,
    number,
    score,
    show,
    spread,
    table,
    tag,
    title,
    words,
)
from bertsmith.analysis.predictions import hardest

MOST_EVALUATIONS = 60


def scores(folder: RunFolder) -> list[Html]:
    """The chosen metric of every model as bars, a table for each split; all the other metrics folded below."""
    rows = score_rows(folder)
    main = main_metric(folder, rows)
    parts = []
    for split in dict.fromkeys(str(row.get("split", "")) for row in rows):
        here = [row for row in rows if str(row.get("split", "")) == split]
        parts.append(_score_table([row for row in here if row.get("metric") == main], split, main))
        if any(row.get("metric") != main for row in here):
            parts.append(_other_scores(here, split))
    quoted = mapping(mapping(folder.recipe.get("finetune")).get("literature"))
    if quoted:
        items = [[tag("dt", None, str(name)), tag("dd", None, str(said))] for name, said in quoted.items()]
        parts.append(
            tag("div", {"class": "part"}, tag("h3", None, "From elsewhere"), tag("dl", {"class": "quotes"}, items))
        )
    return parts


def score_rows(folder: RunFolder) -> list[Mapping[str, Any]]:
    return [row for row in map(mapping, sequence(folder.scores.get("table"))) if row]


def main_metric(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> str:
    """The metric by which the best checkpoint was chosen, or else the first there is."""
    known = [str(row.get("metric", "")) for row in rows]
    chosen = str(folder.scores.get("metric", ""))
    return chosen if chosen in known or not known else known[0]


def _other_scores(rows: Sequence[Mapping[str, Any]], split: str) -> Html:
    metrics = list(dict.fromkeys(str(row.get("metric", "")) for row in rows))
    names = list(dict.fromkeys(str(row.get("name", "")) for row in rows))
    found = {(str(row.get("name", "")), str(row.get("metric", ""))): row for row in rows}
    body = [[name, *[_score_with_interval(found.get((name, metric), {})) for metric in metrics]] for name in names]
    return details(f"All scores on {split}", table(["", *map(words, metrics)], body, classes="numbers"))


def _score_with_interval(row: Mapping[str, Any]) -> Html:
    return tag("td", {"class": "n"}, score(row.get("score")), tag("small", {"class": "under"}, interval(row)))


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
            tag("td", {"class": "wide"}, interval_bar(row, low, high)),
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
        "div", {"class": "part"}, tag("h3", None, f"{title(metric)} on {split}"), table(header, body, classes="scores")
    )


def interval(row: Mapping[str, Any]) -> str:
    low, high = number(row.get("low")), number(row.get("high"))
    return "" if low is None or high is None else f"{score(low)} – {score(high)}"


def interval_bar(row: Mapping[str, Any], low: float, high: float) -> Html | None:
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


def slices(rows: Sequence[Mapping[str, Any]]) -> Html | None:
    """The model on parts of one split: a table for each kind of part."""
    values = [number(row.get(key)) for row in rows for key in ("score", "low", "high")]
    known = [value for value in values if value is not None]
    low, high = min(0.0, *known, 0.0), max(1.0, *known, 0.0)
    parts: list[Html] = []
    for kind in dict.fromkeys(str(row.get("slice", "")) for row in rows):
        here = [row for row in rows if str(row.get("slice", "")) == kind]
        body = [
            [
                tag("td", None, str(row.get("value", ""))),
                tag("td", {"class": "n"}, score(row.get("score"))),
                tag("td", {"class": "n dim"}, interval(row)),
                tag("td", {"class": "wide"}, interval_bar(row, low, high)),
                tag("td", {"class": "n dim"}, show(row.get("rows"))),
            ]
            for row in here
        ]
        header = [words(kind), words(here[0].get("metric", "")), "95 % interval", "", "rows"]
        parts.append(table(header, body, classes="scores"))
    return tag("div", {"class": "part"}, tag("h3", None, "Parts of the split"), parts) if parts else None


def evaluations(folder: RunFolder) -> list[Html]:
    return [part for part in map(_evaluation_table, folder.trainings) if part is not None]


def _evaluation_table(training: Training) -> Html | None:
    evaluations = training.of("evaluation")
    if not evaluations:
        return None
    names = list(dict.fromkeys(key for event in evaluations for key in mapping(event.get("scores"))))
    losses = training.steps.column("loss")
    rows, since = [], 0
    for event in evaluations:
        step = step_of(event)
        upto = int(np.searchsorted(training.steps.step, step, side="right"))
        known = losses[since:upto][np.isfinite(losses[since:upto])]
        trained = number(event.get("training_loss")) or (float(known.mean()) if len(known) else None)
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
