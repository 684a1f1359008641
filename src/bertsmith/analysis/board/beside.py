"""Several runs beside each other: scores, differences of their recipes, curves in the same charts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bertsmith.analysis.board.recipes import differences
from bertsmith.analysis.curves import training_charts
from bertsmith.analysis.folder import RunFolder, Training, mapping
from bertsmith.analysis.markup import Html, join, number, score, table, tag, title, words
from bertsmith.analysis.scores import interval, score_rows

MOST_RUNS = 12


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
    """Scores on test rows, of every model of each run: a column a run, or a model where a run has several."""
    columns: dict[str, dict[tuple[str, str], str]] = {}
    for name, folder in folders.items():
        rows = [row for row in score_rows(folder) if number(row.get("score")) is not None]
        models = dict.fromkeys(str(row.get("name", "")) for row in rows)
        for model in models:
            cells = {
                (str(row.get("split", "")), str(row.get("metric", ""))): score(row["score"])
                + (f" ({interval(row)})" if interval(row) else "")
                for row in rows
                if str(row.get("name", "")) == model
            }
            columns[name if len(models) == 1 else f"{name}: {model}"] = cells
    return _table("On test rows, with 95 % intervals", columns)


def _validation_scores(trainings: Sequence[Training]) -> list[Html]:
    columns: dict[str, dict[tuple[str, str], str]] = {}
    for training in trainings:
        evaluations = training.of("evaluation")
        best = [event for event in evaluations if event.get("best")] or evaluations
        if best:
            values = {"loss": best[-1].get("loss"), **mapping(best[-1].get("scores"))}
            columns[training.name] = {("validation", metric): score(value) for metric, value in values.items()}
    return _table("At the best evaluation", columns)


def _table(heading: str, columns: Mapping[str, Mapping[tuple[str, str], str]]) -> list[Html]:
    keys = dict.fromkeys(key for cells in columns.values() for key in cells)
    rows = [
        [split, words(metric), *[cells.get((split, metric), "") for cells in columns.values()]]
        for split, metric in keys
    ]
    if not rows:
        return []
    return [tag("div", {"class": "part"}, tag("h3", None, heading), table(["split", "metric", *columns], rows))]


def _recipes(folders: Mapping[str, RunFolder]) -> list[Html]:
    told = differences(list(folders.values()))
    if not told:
        return [tag("p", {"class": "said"}, "Nothing: their recipes are the same, or not there.")]
    rows = [[tag("td", None, tag("code", None, key)), *[_value(value) for value in values]] for key, values in told]
    return [table(["key", *folders], rows, classes="recipes")]


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
