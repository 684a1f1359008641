"""Several runs beside each other: scores, differences of their recipes, curves in the same charts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bertsmith.analysis.board.recipes import differences
from bertsmith.analysis.curves import training_charts
from bertsmith.analysis.folder import RunFolder, Training, mapping, step_of
from bertsmith.analysis.markup import Html, details, join, number, score, table, tag, title, words
from bertsmith.analysis.scores import interval, main_metric, score_rows
from bertsmith.tasks.predict import TASKS

MOST_RUNS = 12
SMALLER_IS_BETTER = frozenset({"loss"}).union(*(task.smaller_is_better for task in TASKS.values()))


def compared(folders: Mapping[str, RunFolder]) -> str:
    """The page's sections as HTML; `folders` by the name that each run has on the board."""
    trainings = [_named(training, name, folder) for name, folder in folders.items() for training in folder.trainings]
    parts = [
        ("scores", "Scores", [*_test_scores(folders), *_validation_scores(trainings)]),
        ("recipes", "What differs in the recipes", _recipes(folders)),
        ("curves", "Learning curves", _curves(trainings)),
    ]
    shown = [(key, heading, body) for key, heading, body in parts if body]
    return join(tag("section", {"id": key}, tag("h2", None, heading), body) for key, heading, body in shown)


def _named(training: Training, name: str, folder: RunFolder) -> Training:
    return replace(training, name=name if len(folder.trainings) == 1 else f"{name}/{training.name}")


def _test_scores(folders: Mapping[str, RunFolder]) -> list[Html]:
    """A line for each model of each run, on every split: by the metric that chooses, and folded below by all others."""
    main: dict[str, dict[str, Mapping[str, Any]]] = {}
    rest: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, folder in folders.items():
        rows = score_rows(folder)
        chosen = main_metric(folder, rows)
        for row in rows:
            model = f"{name}: {row.get('name', '')}"
            metric, split = str(row.get("metric", "")), str(row.get("split", ""))
            (main if metric == chosen else rest).setdefault(model, {})[f"{words(metric)} on {split}"] = row
    if not main:
        return []
    parts = [tag("h3", None, "On test rows, with 95 % intervals"), _score_table(main)]
    return [tag("div", {"class": "part"}, parts, details("By all other metrics", _score_table(rest)) if rest else None)]


def _validation_scores(trainings: Sequence[Training]) -> list[Html]:
    """A line a run: its losses and scores at its best evaluation."""
    lines: dict[str, dict[str, Mapping[str, Any]]] = {}
    for training in trainings:
        evaluations = training.of("evaluation")
        best = [event for event in evaluations if event.get("best")] or evaluations
        if best:
            values = {"loss": best[-1].get("loss"), **mapping(best[-1].get("scores"))}
            step = f"{training.name}, step {step_of(best[-1]):,}"
            lines[step] = {words(metric): {"score": value, "metric": metric} for metric, value in values.items()}
    if not lines:
        return []
    return [
        tag(
            "div", {"class": "part"}, tag("h3", None, "On validation rows, at the best evaluation"), _score_table(lines)
        )
    ]


def _score_table(lines: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Html:
    """Lines by name, each with rows of scores by column; the best of a column stands out."""
    columns = list(dict.fromkeys(column for cells in lines.values() for column in cells))
    best = {column: _best([cells[column] for cells in lines.values() if column in cells]) for column in columns}
    body = [
        [tag("td", {"class": "name"}, name), *[_score(cells.get(column, {}), best[column]) for column in columns]]
        for name, cells in lines.items()
    ]
    return table(["", *columns], body, classes="numbers compared")


def _best(rows: Sequence[Mapping[str, Any]]) -> float | None:
    known = [value for value in (number(row.get("score")) for row in rows) if value is not None]
    is_smaller_better = any(str(row.get("metric")) in SMALLER_IS_BETTER for row in rows)
    return (min if is_smaller_better else max)(known) if len(known) > 1 else None


def _score(row: Mapping[str, Any], best: float | None) -> Html:
    value = number(row.get("score"))
    is_best = value is not None and value == best
    return tag(
        "td", {"class": "n best" if is_best else "n"}, score(value), tag("small", {"class": "under"}, interval(row))
    )


def _recipes(folders: Mapping[str, RunFolder]) -> list[Html]:
    told = differences(list(folders.values()))
    if not told:
        return [tag("p", {"class": "said"}, "Nothing: their recipes are the same, or not there.")]
    rows = [[tag("td", None, tag("code", None, key)), *[_value(value) for value in values]] for key, values in told]
    return [tag("div", {"class": "part"}, table(["key", *folders], rows, classes="recipes"))]


def _value(value: str | None) -> Html:
    return tag("td", {"class": "dim"}, "not there") if value is None else tag("td", None, tag("code", None, value))


def _curves(trainings: Sequence[Training]) -> list[Html]:
    parts = []
    for kind in dict.fromkeys(training.kind for training in trainings):
        charts = training_charts([training for training in trainings if training.kind == kind], group=kind)
        heading = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}.get(kind, title(kind))
        if charts:
            parts.append(
                tag("div", {"class": "part"}, tag("h3", None, heading), tag("div", {"class": "charts"}, charts))
            )
    return parts
