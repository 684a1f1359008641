"""The report: one HTML file that works offline, from whatever part of a run is on disk.

No server, no network, no library: charts are SVG, hover and zoom are a small script, and a content-security policy lets
nothing but that script run, whatever the data holds. Equal input gives an equal file.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.analysis.attention import attention_section
from bertsmith.analysis.beside import MOST_RUNS, named_runs, sections_of
from bertsmith.analysis.diagnose.diagnose import diagnose
from bertsmith.analysis.diagnose.told import section
from bertsmith.analysis.folder import RunFolder, Training, mapping, read_run_folder, sequence, step_of
from bertsmith.analysis.followed import followed_section
from bertsmith.analysis.headline import header, runs_header
from bertsmith.analysis.histogram import token_lengths
from bertsmith.analysis.markup import (
    Html,
    details,
    fact,
    number,
    percent,
    share_bar,
    show,
    table,
    tag,
    words,
)
from bertsmith.analysis.predictions import read_answers, sections
from bertsmith.analysis.reliability import reliability
from bertsmith.analysis.run_log import Floats
from bertsmith.analysis.samples import masked_words
from bertsmith.analysis.scores import evaluations, scores, slices
from bertsmith.analysis.training_charts import training_charts
from bertsmith.artifact import write_text
from bertsmith.errors import UsageError

SPLITS = ("train", "validation", "test")


def write_report(runs: Path | str | Sequence[Path | str], out: Path | None = None) -> Path:
    """Write the report of one run (runs/NAME, or one run directory) or of several beside each other to `out`.

    By default one run's goes into its report.html, that of several into report.html in the current folder. Raises
    `ArtifactError` where a run is no such directory, `UsageError` where one is given twice, or more than `MOST_RUNS`.
    """
    given = [Path(runs)] if isinstance(runs, Path | str) else [Path(run) for run in runs]
    _check_runs(given)
    folders = [read_run_folder(path) for path in given]
    beside = folders[0].path if len(folders) == 1 else Path()
    target = Path(out) if out is not None else beside / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, render(folders))
    return target


def _check_runs(runs: Sequence[Path]) -> None:
    if not runs:
        raise UsageError("no run was given; give a folder such as runs/quickstart")
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs)} runs were given, and a page shows at most {MOST_RUNS}: choose some of them")
    twice = [run for i, run in enumerate(runs) if run.resolve() in [other.resolve() for other in runs[:i]]]
    if twice:
        raise UsageError(f"{twice[0]} was given twice; give each run once")


def render(folders: RunFolder | Sequence[RunFolder]) -> str:
    """The whole page as text, of one run or of several beside each other."""
    several = [folders] if isinstance(folders, RunFolder) else list(folders)
    if len(several) == 1:
        return _render_one(several[0])
    named = named_runs(several)
    return _assemble(f"{len(named)} runs beside each other", runs_header(named), sections_of(named), "these runs")


def _render_one(folder: RunFolder) -> str:
    parts = [(key, heading, list(make(folder))) for key, heading, make in SECTIONS]
    return _assemble(folder.name, header(folder), [part for part in parts if part[2]], "this run")


def _assemble(name: str, top: Html, shown: Sequence[tuple[str, str, list[Html]]], source: str) -> str:
    links = [tag("a", {"href": f"#{key}"}, heading) for key, heading, _ in shown]
    body = [
        top,
        tag("nav", None, links) if links else None,
        tag("main", None, [_section(*part) for part in shown] or tag("p", None, "Nothing yet.")),
        tag("footer", None, f"Written by bertsmith from the files of {source}. Times are UTC."),
    ]
    return _page(name, body)


def _page(title: str, body: Sequence[Html | None]) -> str:
    style, script = (
        resources.files("bertsmith.analysis").joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; form-action 'none'"
    policy += "; img-src data:"
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", None, f"{title} · bertsmith"),
        Html(f"<style>{style}</style>"),
    )
    page = tag("html", {"lang": "en"}, head, tag("body", None, body, Html(f"<script>{script}</script>")))
    return f"<!doctype html>\n{page}\n"


def _section(key: str, title: str, body: Iterable[Html]) -> Html:
    return tag("section", {"id": key}, tag("h2", None, title), body)


def _curves(folder: RunFolder) -> list[Html]:
    parts = []
    kinds = list(dict.fromkeys(training.kind for training in folder.trainings))
    for kind in kinds:
        trainings = [training for training in folder.trainings if training.kind == kind]
        charts = training_charts(trainings, group=kind)
        health = [told for told in map(_health, trainings) if told is not None]
        title = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}.get(kind, kind)
        hint = "Point at a chart to read it; drag across to zoom all of them, double-click to see everything again."
        if charts or health:
            parts.append(
                tag(
                    "div",
                    {"class": "part"},
                    tag("h3", None, title),
                    tag("p", {"class": "said screen"}, hint) if charts else None,
                    tag("div", {"class": "charts"}, charts),
                    health,
                )
            )
    return parts


def _health(training: Training) -> Html | None:
    """What the step lines say of the run's condition, in one line, and what is wrong with its log."""
    steps = training.steps
    elapsed, waits = training.elapsed_seconds, steps.column("loader_wait_seconds")
    waited = float(np.nansum(waits)) if len(waits) else 0.0
    facts = [
        ("updates clipped", percent(steps.mean("clip_rate"))),
        ("updates skipped", show(round(steps.largest("skipped_updates") or 0))),
        ("waiting for data", percent(waited / elapsed, 1) if elapsed else "–"),
        ("padding", percent(steps.mean("padding_share"), 1)),
        ("rows cut short", percent(steps.mean("truncation_share"), 1)),
        ("batch size", _span(steps.column("batch_size"))),
        ("peak memory", _megabytes(steps.largest("memory_bytes") or 0)),
    ]
    shown = [fact(key, value) for key, value in facts if value != "–"] if len(steps) else []
    notes = [tag("p", {"class": "trouble"}, note) for note in training.notes]
    if not shown and not notes:
        return None
    told = tag("div", None, tag("dl", {"class": "facts"}, shown), notes)
    return tag("div", {"class": "health"}, tag("b", None, training.name), told)


def _span(values: Floats) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    low, high = (show(round(value)) for value in (known.min(), known.max()))
    return low if low == high else f"{low} to {high}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "–"


def _answers(folder: RunFolder) -> list[Html]:
    """Each fine-tuned model's splits; the first is open, others (another model, validation) are folded."""
    parts: list[Html] = []
    for training in folder.trainings:
        for split, path in training.predictions:
            body = _answers_of(training, split, path)
            if body:
                name = f"{training.name}: {split}" if len(folder.trainings) > 1 else split
                is_main = training.name == "finetune" or len(folder.trainings) == 1
                folded = not is_main or split == "validation"
                parts.append(
                    details(name, *body)
                    if folded
                    else tag("div", {"class": "split"}, tag("h3", {"class": "split"}, name), body)
                )
    return sorted(parts, key=lambda part: part.startswith("<details"))


def _answers_of(training: Training, split: str, path: Path) -> list[Html]:
    """What one model says of one split."""
    found = training.scores
    answers = read_answers(split, path, task_name=str(training.start.get("task")), metric=str(found.get("metric")))
    parts = [slices([row for row in map(mapping, sequence(found.get("slices"))) if row.get("split") == split])]
    parts.append(reliability(mapping(found.get("calibration")), split))
    return [*(sections(answers) if answers is not None else []), *(part for part in parts if part is not None)]


def _data(folder: RunFolder) -> list[Html]:
    parts = [_counts(stage.name, stage.counts) for stage in folder.stages if stage.counts]
    seen: list[Mapping[str, Any]] = []
    for training in folder.trainings:
        told = {key: value for key, value in mapping(training.start.get("data")).items() if key != "token_lengths"}
        data = {key: value for key, value in told.items() if value or (value == 0 and key != "copied_rows")}
        plan = {key: training.plan[key] for key in ("examples", "epochs", "batch_size") if training.plan.get(key)}
        if isinstance(epochs := plan.get("epochs"), float) and epochs.is_integer():
            plan["epochs"] = int(epochs)
        counts = {**data, **plan}
        if counts and counts not in seen:  # a baseline trained on the same rows is not told twice
            parts.append(_counts(training.name, counts))
            seen.append(counts)
    cards = [tag("div", {"class": "cards"}, parts)] if parts else []
    return [*cards, *token_lengths(folder)]


def _counts(title: str, counts: Mapping[str, Any]) -> Html:
    """Plain counts as a list, counts of counts (by reason, label, source) as bars."""
    plain = [fact(words(key), show(value)) for key, value in counts.items() if not isinstance(value, Mapping | list)]
    nested = {key: value for key, value in counts.items() if isinstance(value, Mapping) and value}
    splits: dict[str, Mapping[str, Any]] = {key: nested[key] for key in SPLITS if key in nested}
    inner = [_split_table(splits)] if splits else []
    for key, value in nested.items():
        if all(isinstance(amount, Mapping) for amount in value.values()):
            inner += [] if key in splits else [_table_of_tables(words(key), value)]
        elif key not in splits:
            inner.append(_count_bars(words(key), value))
    return tag(
        "div",
        {"class": "card"},
        tag("h3", None, title),
        tag("dl", {"class": "counts"}, plain) if plain else None,
        inner,
    )


def _split_table(splits: Mapping[str, Mapping[str, Any]]) -> Html:
    """What was counted, by split; counts of counts as rows of their own below it."""
    flat = {split: _flattened(counts) for split, counts in splits.items()}
    names = dict.fromkeys(name for counts in flat.values() for name in counts)
    rows = [[name, *[show(counts[name]) if name in counts else "" for counts in flat.values()]] for name in names]
    return table(["", *splits], rows, classes="countbars")


def _flattened(counts: Mapping[str, Any]) -> dict[str, Any]:
    flat = {words(key): value for key, value in counts.items() if number(value) is not None}
    for key, value in counts.items():
        if isinstance(value, Mapping):
            flat |= {f"{words(key)}: {name}": amount for name, amount in value.items() if number(amount) is not None}
    return flat


def _table_of_tables(title: str, counts: Mapping[str, Mapping[str, Any]]) -> Html:
    columns = list(dict.fromkeys(column for inner in counts.values() for column in inner))
    rows = [[str(name), *[show(number(inner.get(c)) and inner[c]) for c in columns]] for name, inner in counts.items()]
    return table([title, *map(words, columns)], rows, classes="countbars")


def _count_bars(title: str, counts: Mapping[str, Any]) -> Html:
    known = [(str(name), value) for name, value in counts.items() if number(value) is not None]
    known.sort(key=lambda item: -float(item[1]))
    most = max((float(value) for _, value in known), default=0) or 1
    rows = [[name, share_bar(float(value) / most), show(value)] for name, value in known]
    long = len(rows) > 12
    inner = table([title, "", ""], rows, classes="countbars")
    return details(f"{title} ({len(rows)})", inner) if long else inner


def _setup(folder: RunFolder) -> list[Html]:
    parts = []
    if folder.recipe_text:
        parts.append(details("Recipe, every default written out", tag("pre", None, folder.recipe_text)))
    for training in folder.trainings:
        decisions = [
            [f"{step_of(e):,}", words(e.get("name")), show(e.get("value")), str(e.get("because", ""))]
            for e in training.of("decision")
        ]
        stops = [
            [f"{step_of(e):,}", "stop", str(e.get("reason", "")), str(e.get("message") or "")]
            for e in training.of("stop")
        ]
        environment = {**mapping(training.start.get("environment")), **training.plan}
        rows = [[words(key), _plain(value)] for key, value in environment.items() if value not in (None, [], {})]
        tables = [table(["", ""], rows, classes="setup")] if rows else []
        if decisions or stops:
            tables.insert(0, table(["step", "decided", "value", "because"], [*decisions, *stops]))
        if tables:
            parts.append(details(f"{training.name}: plan, decisions, machine and versions", *tables))
    return parts


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return show(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _diagnosis(folder: RunFolder) -> list[Html]:
    """What is wrong with the run; nothing before there is a training to look at."""
    return section(diagnose(folder)) if any(training.of("step") for training in folder.trainings) else []


SECTIONS: tuple[tuple[str, str, Callable[[RunFolder], list[Html]]], ...] = (
    ("scores", "Scores", scores),
    ("diagnosis", "Diagnosis", _diagnosis),
    ("curves", "Learning curves", _curves),
    ("answers", "Right and wrong", _answers),
    ("followed", "Rows followed", followed_section),
    ("words", "Masked words", masked_words),
    ("attention", "Attention", attention_section),
    ("data", "Data", _data),
    ("evaluations", "Evaluations", evaluations),
    ("setup", "Recipe and machine", _setup),
)
"""What a page of one run shows, in this order: id, heading, and what makes the section; an empty one is left out."""
