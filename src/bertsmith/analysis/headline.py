"""The top of the report: what was run, how far it is, its best score."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from bertsmith.analysis.folder import RunFolder, Stage, Training, mapping
from bertsmith.analysis.markup import Html, duration, fact, number, percent, score, show, table, tag, title
from bertsmith.analysis.scores import interval, main_metric, score_rows

ORDER = ("corpus", "tokenizer", "examples", "pretrain", "labels", "finetune")
"""Stages as a run goes through them; further run directories (baselines) come last."""


def header(folder: RunFolder) -> Html:
    times = [number(event.get("time")) for training in folder.trainings for event in training.of("start")]
    seconds = [s.seconds for s in folder.stages] + [t.elapsed_seconds for t in folder.trainings]
    total = sum(s for s in seconds if s is not None)
    plan = folder.trainings[0].plan if folder.trainings else {}
    environment = mapping(folder.trainings[0].start.get("environment")) if folder.trainings else {}
    facts = [
        ("begun", _date(min((time for time in times if time is not None), default=None))),
        ("work", duration(total) if total else None),
        ("machine", _machine(environment, plan)),
        ("computed in", str(plan["dtype"]).removeprefix("torch.") if plan.get("dtype") else None),
        ("parameters", show(plan.get("parameters")) if plan.get("parameters") else None),
        ("vocabulary", _vocabulary(folder.stages)),
    ]
    return tag(
        "header",
        None,
        tag("p", {"class": "kicker"}, "bertsmith report"),
        tag("h1", None, folder.name),
        tag("p", {"class": "lead"}, str(folder.recipe["description"])) if folder.recipe.get("description") else None,
        _headline(folder),
        tag("ol", {"class": "stages"}, _stage_strip(folder)),
        tag("dl", {"class": "facts"}, [fact(key, value) for key, value in facts if value]),
    )


def runs_header(folders: Mapping[str, RunFolder]) -> Html:
    """The top of a page of several runs: each with how far it is, and its best score."""
    rows = [
        [
            tag("td", None, cell)
            for cell in (
                tag("b", None, name),
                _headline_score(folder),
                _state(folder),
                str(folder.recipe.get("description", "")),
            )
        ]
        for name, folder in folders.items()
    ]
    return tag(
        "header",
        None,
        tag("p", {"class": "kicker"}, "bertsmith report"),
        tag("h1", None, f"{len(folders)} runs beside each other"),
        table(["run", "best score", "state", "what it is"], rows, classes="numbers"),
    )


def _state(folder: RunFolder) -> str:
    """Of its last training."""
    if not folder.trainings:
        return "nothing trained"
    state, said = _progress(folder.trainings[-1])
    return f"{folder.trainings[-1].name}: {f'done in {said}' if state == 'done' else said}"


def _headline_score(folder: RunFolder) -> str:
    found = _best_row(folder)
    return "" if found is None else f"{score(found[1]['score'])} ({title(found[0])} on {found[1].get('split', 'test')})"


def _best_row(folder: RunFolder) -> tuple[str, Mapping[str, Any]] | None:
    """The metric that chooses, and the best row by it on the first split."""
    known = [row for row in score_rows(folder) if number(row.get("score")) is not None]
    metric = main_metric(folder, known)
    rows = [row for row in known if str(row.get("metric", "")) == metric and row.get("split") == known[0].get("split")]
    return (metric, max(rows, key=lambda row: float(row["score"]))) if rows else None


def _headline(folder: RunFolder) -> Html | None:
    found = _best_row(folder)
    if found is None:
        return None
    metric, best = found
    bounds = interval(best)
    return tag(
        "p",
        {"class": "headline"},
        tag("strong", None, score(best["score"])),
        tag(
            "span",
            None,
            f"{title(metric)} on {best.get('split', 'test')}",
            tag("br"),
            tag("em", None, f"best: {best.get('name', '')}" + (f" · 95 % interval {bounds}" if bounds else "")),
        ),
    )


def _stage_strip(folder: RunFolder) -> list[Html]:
    """Each stage the recipe asks for: done with its time, under way with its progress, or not begun.

    Of a stage shown alone there is that stage: the others are not in its folder.
    """
    artifacts = {stage.name: stage for stage in folder.stages}
    trainings = {training.name: training for training in folder.trainings}
    expected = [name for name in ORDER if name in folder.recipe]
    if "code_words" in mapping(folder.recipe.get("finetune")):
        expected.append("labels")
    is_alone = any(training.path == folder.path for training in folder.trainings)
    names = dict.fromkeys([*(() if is_alone else expected), *artifacts, *trainings])
    strip = []
    for name in sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        if name in artifacts:
            strip.append(_stage(name, "done", duration(artifacts[name].seconds)))
        elif name in trainings:
            strip.append(_stage(name, *_progress(trainings[name])))
        else:
            strip.append(_stage(name, "open", "not yet"))
    return strip


def _stage(name: str, state: str, said: str) -> Html:
    return tag("li", {"class": state}, tag("b", None, name), tag("span", None, said))


def _progress(training: Training) -> tuple[str, str]:
    total, step = training.total_steps, training.last_step
    of = f" of {total:,}" if total else ""
    if training.is_done:
        return "done", duration(training.elapsed_seconds)
    if training.stop is not None:
        return "stopped", f"stopped at step {step:,}{of} ({training.stop.get('reason', 'unknown')})"
    return "running", f"step {step:,}{of}" + (f" ({percent(step / total)})" if total else "")


def _date(seconds: float | None) -> str | None:
    try:
        when = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return None if when is None else f"{when.day} {when:%B %Y, %H:%M} UTC"


def _machine(environment: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
    device = plan.get("device") or environment.get("cpu")
    threads = number(plan.get("threads"))
    return f"{device}" + (f", {threads:.0f} thread{'s' * (threads != 1)}" if threads else "") if device else None


def _vocabulary(stages: Iterable[Stage]) -> str | None:
    for stage in stages:
        for key in ("vocab_size", "vocabulary", "entries", "pieces"):
            if stage.name == "tokenizer" and number(stage.counts.get(key)) is not None:
                return show(stage.counts[key])
    return None
