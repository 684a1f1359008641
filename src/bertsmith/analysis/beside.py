"""Several runs beside each other: scores, differences of their recipes, curves in the same charts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bertsmith.analysis.folder import RunFolder, Training, mapping, step_of
from bertsmith.analysis.markup import Html, details, join, number, score, table, tag, title, words
from bertsmith.analysis.recipes import differences
from bertsmith.analysis.scores import interval, main_metric, score_rows
from bertsmith.analysis.training_charts import training_charts
from bertsmith.tasks.predict import TASKS

MOST_RUNS = 12
SMALLER_IS_BETTER = frozenset({"loss"}).union(*(task.smaller_is_better for task in TASKS.values()))


def sections_of(folders: Mapping[str, RunFolder]) -> list[tuple[str, str, list[Html]]]:
    """(id, heading, parts) of each section that has something to show; `folders` by the name that each run has."""
    trainings = [_named(training, name, folder) for name, folder in folders.items() for training in folder.trainings]
    parts = [
        ("scores", "Scores", [*_different_tasks(folders), *_test_scores(folders), *_validation_scores(trainings)]),
        ("recipes", "What differs in the recipes", _recipes(folders)),
        ("curves", "Learning curves", _curves(trainings)),
    ]
    return [(key, heading, body) for key, heading, body in parts if body]


def compared(folders: Mapping[str, RunFolder]) -> str:
    """The page's sections as HTML."""
    return join(
        tag("section", {"id": key}, tag("h2", None, heading), body) for key, heading, body in sections_of(folders)
    )


def named_runs(folders: Sequence[RunFolder]) -> dict[str, RunFolder]:
    """Runs by the shortest end of their path that tells them apart."""
    paths = [folder.path.resolve().parts for folder in folders]
    longest = max(map(len, paths))
    depth = next(n for n in range(1, longest + 1) if n == longest or len({path[-n:] for path in paths}) == len(paths))
    return {"/".join(path[-depth:]): folder for path, folder in zip(paths, folders, strict=True)}


def _task(training: Training) -> str:
    """What a training learns: losses and scores of another task are other numbers."""
    return str(training.start.get("task") or training.kind)


def _task_of_scores(folder: RunFolder) -> str:
    """Task of the models in the run's table of scores."""
    tasks = [_task(training) for training in folder.trainings if training.kind == "finetune"]
    return str(mapping(folder.recipe.get("finetune")).get("task") or (tasks[0] if tasks else ""))


def _different_tasks(folders: Mapping[str, RunFolder]) -> list[Html]:
    """Why there is no common table, where runs of different tasks are shown."""
    by_task: dict[str, list[str]] = {}
    for name, folder in folders.items():
        for task in dict.fromkeys(_task(training) for training in folder.trainings):
            by_task.setdefault(task, []).append(name)
    common = [task for task, names in by_task.items() if len(names) == len(folders)]
    if len(by_task) - len(common) < 2:
        return []
    told = "; ".join(f"{task}: {', '.join(names)}" for task, names in by_task.items())
    said = (
        f"These runs are of different tasks ({told}). A score of one task says nothing about a score of another, so "
        "each task has tables and charts of its own."
    )
    return [tag("p", {"class": "said"}, said)]


def _named(training: Training, name: str, folder: RunFolder) -> Training:
    return replace(training, name=name if len(folder.trainings) == 1 else f"{name}/{training.name}")


def _test_scores(folders: Mapping[str, RunFolder]) -> list[Html]:
    """For each task a line for each model of each run, on every split."""
    tasks = dict.fromkeys(_task_of_scores(folder) for folder in folders.values() if score_rows(folder))
    parts = []
    for task in tasks:
        here = {name: folder for name, folder in folders.items() if _task_of_scores(folder) == task}
        parts += _test_scores_of(here, title(task) if len(tasks) > 1 else "")
    return parts


def _test_scores_of(folders: Mapping[str, RunFolder], task: str) -> list[Html]:
    """By the metric that chooses, and folded below by all others."""
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
    others = _other_rows(folders)
    heading = tag(
        "h3", None, f"{task}: on test rows, with 95 % intervals" if task else "On test rows, with 95 % intervals"
    )
    parts = [heading, *others, _score_table(main, are_ranked=not others)]
    return [
        tag(
            "div",
            {"class": "part"},
            parts,
            details("By all other metrics", _score_table(rest, are_ranked=not others)) if rest else None,
        )
    ]


def _other_rows(folders: Mapping[str, RunFolder]) -> list[Html]:
    """A warning where equal names of splits stand for different rows."""
    counts: dict[str, set[str]] = {}
    files: set[str] = set()
    for folder in folders.values():
        files.add(str(mapping(folder.recipe.get("finetune")).get("test")))
        for row in score_rows(folder):
            counts.setdefault(str(row.get("split", "")), set()).add(str(row.get("rows")))
    unequal = [split for split, found in counts.items() if len(found) > 1]
    if not unequal and len(files) == 1:
        return []
    said = "The runs name different test files" if len(files) > 1 else f"Not equally many rows in {', '.join(unequal)}"
    return [tag("p", {"class": "said"}, f"{said}: these scores are of different rows and cannot be ranked.")]


def _validation_scores(trainings: Sequence[Training]) -> list[Html]:
    """For each task a line a run: its losses and scores at its best evaluation."""
    tables: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for training in trainings:
        evaluations = training.of("evaluation")
        best = [event for event in evaluations if event.get("best")] or evaluations
        if best:
            values = {"loss": best[-1].get("loss"), **mapping(best[-1].get("scores"))}
            step = f"{training.name}, step {step_of(best[-1]):,}"
            cells: dict[str, Mapping[str, Any]] = {
                words(metric): {"score": value, "metric": metric} for metric, value in values.items()
            }
            tables.setdefault(_task(training), {})[step] = cells
    parts = []
    for task, lines in tables.items():
        heading = "On validation rows, at the best evaluation"
        heading = f"{title(task)}: o{heading[1:]}" if len(tables) > 1 else heading
        others = _other_validation_rows([one for one in trainings if _task(one) == task])
        shown = _score_table(lines, are_ranked=not others)
        parts.append(tag("div", {"class": "part"}, tag("h3", None, heading), others, shown))
    return parts


def _other_validation_rows(trainings: Sequence[Training]) -> list[Html]:
    """A warning where the runs' validation rows are not equally many, or not of the same labels."""
    data = [mapping(training.start.get("data")) for training in trainings]
    known = {(str(one.get("validation_rows")), *sorted(mapping(one.get("label_counts")))) for one in data if one}
    if len(known) < 2:
        return []
    said = "The runs have unequally many validation rows, or other labels: these scores cannot be ranked."
    return [tag("p", {"class": "said"}, said)]


def _score_table(lines: Mapping[str, Mapping[str, Mapping[str, Any]]], *, are_ranked: bool = True) -> Html:
    """Lines by name, each with rows of scores by column; where they can be ranked, the best of a column stands out."""
    columns = list(dict.fromkeys(column for cells in lines.values() for column in cells))
    best = {
        column: _best([cells[column] for cells in lines.values() if column in cells]) if are_ranked else None
        for column in columns
    }
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
    names = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}
    tasks = dict.fromkeys((training.kind, _task(training)) for training in trainings)
    for kind, task in tasks:
        here = [training for training in trainings if (training.kind, _task(training)) == (kind, task)]
        is_alone = sum(other == kind for other, _ in tasks) == 1
        charts = training_charts(here, group=kind if is_alone else f"{kind} {task}")
        heading = names.get(kind, title(kind)) + ("" if is_alone else f": {task}")
        notes = [tag("p", {"class": "trouble"}, f"{one.name}: {note}") for one in here for note in one.notes]
        if charts or notes:
            shown = tag("div", {"class": "charts"}, charts)
            parts.append(tag("div", {"class": "part"}, tag("h3", None, heading), shown, notes))
    return parts
