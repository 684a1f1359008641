"""The report: one HTML file that works offline, from whatever part of a run is on disk.

No server, no network, no library: charts are SVG, hover and zoom are a small script, and a content-security policy lets
nothing but that script run, whatever the data holds. Equal input gives an equal file.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from bertsmith.analysis.curves import training_charts
from bertsmith.analysis.folder import RunFolder, Stage, Training, mapping, read_run_folder, sequence, step_of
from bertsmith.analysis.markup import (
    Html,
    details,
    duration,
    join,
    number,
    percent,
    score,
    show,
    table,
    tag,
    text,
    words,
)
from bertsmith.analysis.predictions import hardest, read_answers, sections, share_bar
from bertsmith.artifact import write_text

MOST_EVALUATIONS = 60
MOST_SAMPLES = 6
MOST_SAMPLE_STEPS = 8


def write_report(run_root: Path, out: Path | None = None) -> Path:
    """Write the report of `run_root` (runs/NAME, or one run directory) to `out`, by default its report.html.

    Raises `ArtifactError` where there is no such directory.
    """
    folder = read_run_folder(Path(run_root))
    target = Path(out) if out is not None else folder.path / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, render(folder))
    return target


def render(folder: RunFolder) -> str:
    """The whole page as text."""
    parts = [
        ("scores", "Scores", _scores(folder)),
        ("curves", "Learning curves", _curves(folder)),
        ("answers", "Right and wrong", _answers(folder)),
        ("words", "Masked words", _masked_words(folder)),
        ("data", "Data", _data(folder)),
        ("evaluations", "Evaluations", _evaluations(folder)),
        ("setup", "Recipe and machine", _setup(folder)),
    ]
    shown = [(key, title, body) for key, title, body in parts if body]
    links = [tag("a", {"href": f"#{key}"}, title) for key, title, _ in shown]
    body = [
        _header(folder),
        tag("nav", None, links) if links else None,
        tag("main", None, [_section(key, title, body) for key, title, body in shown] or tag("p", None, "Nothing yet.")),
        tag("footer", None, "Written by bertsmith from the files of this run. Times are UTC."),
    ]
    return _page(folder.name, body)


def _page(title: str, body: Sequence[Html | None]) -> str:
    style, script = (
        resources.files("bertsmith.analysis").joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; form-action 'none'"
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


# --- headline ---------------------------------------------------------------------------------------------------------


def _header(folder: RunFolder) -> Html:
    first = min((number(t.start.get("time")) or 0 for t in folder.trainings if t.start.get("time")), default=None)
    when = datetime.fromtimestamp(first, UTC).strftime("%-d %B %Y, %H:%M UTC") if first else None
    seconds = [s.seconds for s in folder.stages] + [t.elapsed_seconds for t in folder.trainings]
    total = sum(s for s in seconds if s is not None)
    plan = folder.trainings[0].plan if folder.trainings else {}
    environment = mapping(folder.trainings[0].start.get("environment")) if folder.trainings else {}
    facts = [
        ("begun", when),
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
        tag("dl", {"class": "facts"}, [_fact(key, value) for key, value in facts if value]),
    )


def _headline(folder: RunFolder) -> Html | None:
    rows = [row for row in map(mapping, sequence(folder.scores.get("table"))) if number(row.get("score")) is not None]
    if not rows:
        return None
    best = max(rows, key=lambda row: float(row["score"]))
    interval = _interval(best)
    return tag(
        "p",
        {"class": "headline"},
        tag("strong", None, score(best["score"])),
        tag(
            "span",
            None,
            f"{words(best.get('metric', folder.scores.get('metric', 'score')))} on {best.get('split', 'test')}",
            tag("br"),
            tag("em", None, f"{best.get('name', '')}" + (f" · 95 % interval {interval}" if interval else "")),
        ),
    )


def _stage_strip(folder: RunFolder) -> list[Html]:
    """Each stage the recipe asks for: done with its time, under way with its progress, or not begun."""
    done = {stage.name: stage for stage in folder.stages}
    wanted = [name for name in ("corpus", "tokenizer", "examples") if name in folder.recipe or name in done]
    if "labels" in done:
        wanted.append("labels")
    strip = []
    for name in wanted:
        stage = done.get(name)
        strip.append(_stage(name, "done" if stage else "open", duration(stage.seconds) if stage else "not yet"))
    begun = {training.name: training for training in folder.trainings}
    names = list(begun) + [n for n in ("pretrain", "finetune") if n in folder.recipe and n not in begun]
    for name in sorted(names, key=lambda n: {"pretrain": 0, "finetune": 1}.get(n, 2)):
        training = begun.get(name)
        strip.append(_stage(name, *_progress(training)) if training else _stage(name, "open", "not yet"))
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


def _machine(environment: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
    device = plan.get("device") or environment.get("cpu")
    threads = number(plan.get("threads"))
    return f"{device}" + (f", {threads:.0f} threads" if threads else "") if device else None


def _vocabulary(stages: Iterable[Stage]) -> str | None:
    for stage in stages:
        for key in ("vocab_size", "vocabulary", "entries", "pieces"):
            if stage.name == "tokenizer" and number(stage.counts.get(key)) is not None:
                return show(stage.counts[key])
    return None


def _fact(key: str, value: str) -> Html:
    return tag("div", None, tag("dt", None, key), tag("dd", None, value))


# --- scores -----------------------------------------------------------------------------------------------------------


def _scores(folder: RunFolder) -> list[Html]:
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
    low, high = min([0.0, *known]), max([1.0, *known])
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
            tag("td", {"class": "n dim"}, _interval(row)),
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


def _interval(row: Mapping[str, Any]) -> str:
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


# --- curves, evaluations ----------------------------------------------------------------------------------------------


def _curves(folder: RunFolder) -> list[Html]:
    parts = []
    kinds = list(dict.fromkeys(training.kind for training in folder.trainings))
    for kind in kinds:
        trainings = [training for training in folder.trainings if training.kind == kind]
        charts = training_charts(trainings, group=kind)
        health = [_health(training) for training in trainings]
        title = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}.get(kind, kind)
        hint = "Point at a chart to read it; drag across to zoom all of them, double-click to see everything again."
        if charts:
            parts.append(
                tag(
                    "div",
                    {"class": "part"},
                    tag("h3", None, title),
                    tag("p", {"class": "said screen"}, hint),
                    tag("div", {"class": "charts"}, charts),
                    health,
                )
            )
    return parts


def _health(training: Training) -> Html | None:
    """What the step events say of the run's condition, in one line."""
    steps = training.of("step")
    if not steps:
        return None
    elapsed = training.elapsed_seconds
    waited = sum(number(event.get("loader_wait_seconds")) or 0.0 for event in steps)
    facts = [
        ("updates clipped", percent(_mean(steps, "clip_rate"))),
        ("updates skipped", show(max((number(e.get("skipped_updates")) or 0 for e in steps), default=0))),
        ("waiting for data", percent(waited / elapsed, 1) if elapsed else "–"),
        ("padding", percent(_mean(steps, "padding_share"), 1)),
        ("rows cut short", percent(_mean(steps, "truncation_share"), 1)),
        ("peak memory", _megabytes(max((number(e.get("memory_bytes")) or 0 for e in steps), default=0))),
    ]
    shown = [_fact(key, value) for key, value in facts if value != "–"]
    notes = [tag("p", {"class": "said"}, note) for note in training.notes]
    return tag("div", {"class": "health"}, tag("b", None, training.name), tag("dl", {"class": "facts"}, shown), notes)


def _mean(events: Iterable[Mapping[str, Any]], key: str) -> float | None:
    values = [value for value in (number(event.get(key)) for event in events) if value is not None]
    return sum(values) / len(values) if values else None


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "–"


def _evaluations(folder: RunFolder) -> list[Html]:
    return [part for part in map(_evaluation_table, folder.trainings) if part is not None]


def _evaluation_table(training: Training) -> Html | None:
    evaluations = training.of("evaluation")
    if not evaluations:
        return None
    names = list(dict.fromkeys(key for event in evaluations for key in mapping(event.get("scores"))))
    steps = training.of("step")
    rows, since = [], 0
    for event in evaluations:
        step = step_of(event)
        trained = _mean([e for e in steps if since < step_of(e) <= step], "loss")
        since = step
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
    inner = table(header, _spread(rows, MOST_EVALUATIONS), classes="numbers")
    hard = hardest(sequence(evaluations[-1].get("hardest")))
    starred = (
        tag("p", {"class": "said"}, "★ better than every one before it")
        if any(e.get("best") for e in evaluations)
        else None
    )
    return tag("div", {"class": "part"}, tag("h3", None, training.name), starred, inner, hard)


def _spread(rows: list[Any], most: int) -> list[Any]:
    """At most `most` of the rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


# --- answers, masked words --------------------------------------------------------------------------------------------


def _answers(folder: RunFolder) -> list[Html]:
    """Each fine-tuned model's splits; the first is open, others (another model, validation) are folded."""
    parts: list[Html] = []
    for training in folder.trainings:
        for split, path in training.predictions:
            body = sections(read_answers(split, path))
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


def _masked_words(folder: RunFolder) -> list[Html]:
    parts = [_fill_mask(item) for item in folder.fill_mask if item.get("text")]
    shown = (
        [tag("div", {"class": "part"}, tag("h3", None, "Fill in the blank"), tag("div", {"class": "fills"}, parts))]
        if parts
        else []
    )
    for training in folder.trainings:
        by_text: dict[str, list[Mapping[str, Any]]] = {}
        for event in training.of("sample"):
            by_text.setdefault(str(event.get("text", "")), []).append(event)
        tables = [_sample(sentence, events) for sentence, events in list(by_text.items())[:MOST_SAMPLES]]
        if tables:
            said = "What the model put in place of hidden words of held-out text, as training went on."
            shown.append(
                tag(
                    "div",
                    {"class": "part"},
                    tag("h3", None, "Guesses during training"),
                    tag("p", {"class": "said"}, said),
                    tables,
                )
            )
    return shown


def _fill_mask(item: Mapping[str, Any]) -> Html:
    guesses = [(str(pair[0]), number(pair[1]) or 0.0) for pair in _pairs(item.get("predictions"))][:5]
    rows = [
        tag("li", None, tag("span", None, word), share_bar(share), tag("small", None, percent(share)))
        for word, share in guesses
    ]
    return tag("div", {"class": "fill"}, tag("p", None, _blanks(str(item["text"]))), tag("ol", None, rows))


def _sample(sentence: str, events: Sequence[Mapping[str, Any]]) -> Html:
    truths = [str(mapping(m).get("truth", "")) for m in sequence(events[-1].get("masked"))]
    rows = []
    for event in _spread(list(events), MOST_SAMPLE_STEPS):
        cells = [_guess(mapping(masked)) for masked in sequence(event.get("masked"))]
        rows.append([f"{step_of(event):,}", *cells])
    header = ["step", *[tag("span", None, tag("sup", None, i), " ", truth) for i, truth in enumerate(truths, start=1)]]
    return tag(
        "div",
        {"class": "sample"},
        tag("p", {"class": "sentence"}, _blanks(sentence)),
        table(header, rows, classes="guesses"),
    )


def _guess(masked: Mapping[str, Any]) -> Html:
    pairs = _pairs(masked.get("predictions"))
    if not pairs:
        return tag("td", None, "–")
    word, share = str(pairs[0][0]), pairs[0][1]
    is_right = word == str(masked.get("truth"))
    others = ", ".join(str(pair[0]) for pair in pairs[1:3])
    return tag(
        "td",
        {"title": others and f"then: {others}"},
        tag("mark", {"class": "right"}, word) if is_right else tag("span", None, word),
        tag("small", None, " " + percent(share)),
    )


def _pairs(value: object) -> list[Any]:
    return [pair for pair in sequence(value) if isinstance(pair, list | tuple) and len(pair) == 2]


def _blanks(sentence: str) -> Html:
    """Text with each [MASK] as a numbered blank."""
    pieces = sentence.split("[MASK]")
    parts: list[Html] = [text(pieces[0])]
    for i, piece in enumerate(pieces[1:], start=1):
        parts += [tag("span", {"class": "blank"}, i if len(pieces) > 2 else " "), text(piece)]
    return join(parts)


# --- data, setup ------------------------------------------------------------------------------------------------------


def _data(folder: RunFolder) -> list[Html]:
    parts = [_counts(stage.name, stage.counts) for stage in folder.stages if stage.counts]
    for training in folder.trainings[:1] if len({t.kind for t in folder.trainings}) == 1 else folder.trainings:
        data = {key: value for key, value in mapping(training.start.get("data")).items() if value not in (None, {}, [])}
        plan = {key: training.plan[key] for key in ("examples", "epochs", "batch_size") if training.plan.get(key)}
        if data or plan:
            parts.append(_counts(training.name, {**data, **plan}))
    return [tag("div", {"class": "cards"}, parts)] if parts else []


def _counts(title: str, counts: Mapping[str, Any]) -> Html:
    """Plain counts as a list, counts of counts (by reason, label, source) as bars."""
    plain = [_fact(words(key), show(value)) for key, value in counts.items() if not isinstance(value, Mapping | list)]
    inner = [_count_bars(words(key), value) for key, value in counts.items() if isinstance(value, Mapping) and value]
    return tag(
        "div",
        {"class": "card"},
        tag("h3", None, title),
        tag("dl", {"class": "counts"}, plain) if plain else None,
        inner,
    )


def _count_bars(title: str, counts: Mapping[str, Any]) -> Html:
    flat = {
        (f"{words(key)}: {words(inner)}" if inner else str(key)): amount
        for key, value in counts.items()
        for inner, amount in (value.items() if isinstance(value, Mapping) else [("", value)])
    }
    known = [(name, value) for name, value in flat.items() if number(value) is not None]
    known.sort(key=lambda item: -float(item[1]))
    most = max((float(value) for _, value in known), default=0) or 1
    rows = [[words(name), share_bar(float(value) / most), show(value)] for name, value in known]
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
