"""What a model card says of scores, data, training and limits, each line from a run's files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bertsmith.export.facts import Facts, table
from bertsmith.tasks.evaluate import ScoreRow

UNKNOWN = "not known: no file of the model says it"
_RECIPE_KEYS = (
    *("objectives", "epochs", "max_steps", "budget_minutes", "batch_size", "learning_rate", "schedule"),
    *("warmup_share", "optimizer", "weight_decay", "clip", "max_length", "dropout", "label_smoothing", "freeze"),
    *("windows", "refit"),
)
_KEYS_OF_TASK = {
    "embed": ("loss", "pooling", "temperature"),
    "masked-word": ("mask_share", "mask_by"),
    "answer": ("stride", "no_answer"),
}
MOST_LABELS = 30
_FEW_ROWS = 20
"""Slices of fewer rows are not told of."""


def said(value: object) -> str:
    """Text as text: nothing in it is Markdown or HTML."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~!]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def own_scores(facts: Facts) -> list[ScoreRow]:
    scores = facts.scores
    return [] if scores is None else [row for row in scores.table if row.name == scores.name]


def scores_told(facts: Facts) -> str:
    if facts.compressed:
        return _compressed(facts)
    if facts.scores is None:
        return f"{_sentence(UNKNOWN)}."
    metric, lines = facts.scores.metric, ["| what | rows of | metric | score | 95 % interval | rows |"]
    lines.append("|---|---|---|---|---|---|")
    for row in facts.scores.table:
        is_own = row.name == facts.scores.name
        if is_own or row.metric == metric:
            what = "**this model**" if is_own else f"baseline: {said(Path(row.name).name)}"
            lines.append(
                f"| {what} | {said(row.split)} | {said(row.metric)} | {row.score:.4f} "
                f"| {row.low:.4f} to {row.high:.4f} | {row.rows:,} |"
            )
    if all(row.name == facts.scores.name for row in facts.scores.table):
        lines.append("\nNo baseline was measured on the same rows.")
    told = "Intervals are bootstrapped over rows, of one training: what another seed would give is not in them."
    if "validation" in {row.split for row in own_scores(facts)}:
        told += " The validation rows also chose the weights, so their scores are a little too good."
    return "\n".join(lines) + f"\n\nThe weights were chosen by {said(metric)}. {told}"


def _compressed(facts: Facts) -> str:
    found = facts.compressed
    lines = [f"Made from a larger model, and measured beside it by {said(found.get('metric'))} on validation rows:", ""]
    for when, key in (("before", "before"), ("after, this model", "after")):
        one = table(found.get(key))
        if {"score", "low", "high", "rows"} <= one.keys():
            interval = f"95 % interval {one['low']:.4f} to {one['high']:.4f}"
            lines.append(f"- {when}: {one['score']:.4f} ({interval}, {one['rows']:,} rows)")
    return "\n".join(lines)


def data_told(facts: Facts) -> Iterator[str]:
    data, section, made = table(facts.start.get("data")), facts.section, table(facts.state.get("made_from"))
    if not (data or facts.corpus):
        yield UNKNOWN
        return
    for split in ("train", "validation", "test"):
        if data.get(f"{split}_rows"):
            yield f"{split}: {data[f'{split}_rows']:,} rows{_files(section.get(split))}"
    if made.get("rows"):
        yield f"digest (sha256) of the training and validation rows: `{made['rows']}`"
    for split, digest in table(table(facts.state.get("scored_on")).get("test")).items():
        yield f"digest (sha256) of the rows of {said(split)}: `{digest}`"
    for split, count in table(data.get("repeated_rows")).items():
        yield f"{count:,} rows of {said(split)} are also training rows"
    if data.get("copied_rows"):
        yield f"{data['copied_rows']:,} changed copies of training rows were added"
    if facts.corpus:
        dropped = sum(table(facts.corpus.get("dropped")).values())
        yield (
            f"text that was pre-trained on: {facts.corpus.get('documents', 0):,} documents, "
            f"{facts.corpus.get('characters', 0):,} characters, {dropped:,} left out; sources: "
            + (", ".join(said(Path(name).name) for name in table(facts.corpus.get("sources"))) or "not known")
        )
    for download in table(facts.recipe.get("data")).get("downloads") or ():
        one = table(download)
        yield f"{said(one.get('url'))}, licence: {said(one.get('licence') or 'not stated')}"


def training_told(facts: Facts) -> Iterator[str]:
    section, made, plan = facts.section, table(facts.state.get("made_from")), table(facts.start.get("plan"))
    if not section:
        yield UNKNOWN
        return
    if base := section.get("model"):
        weights = table(made.get("model")).get("model.safetensors")
        is_public = str(base).startswith("package:") or is_hub_name(str(base))
        shown = said(base) if is_public else f"a local model, {said(Path(str(base)).name)}"
        yield f"from {shown}" + (f" (sha256 of its weights: `{weights}`)" if weights else "")
    if made.get("random_weights"):
        yield "from random weights"
    keys = [*_RECIPE_KEYS, *_KEYS_OF_TASK.get(facts.task or "", ())]
    keys = [key for key in keys if section.get(key) not in (None, [], "", False)]
    yield ", ".join(f"{key} = {said(section[key])}" for key in keys)
    yield f"seed {said(section.get('seed') or facts.recipe.get('seed'))}"
    if plan.get("steps"):
        yield f"{plan['steps']:,} updates planned, batches of {plan.get('batch_size')}"
    if facts.card.get("step"):
        yield f"weights of update {facts.card['step']:,}"


def hardware_told(facts: Facts) -> Iterator[str]:
    machine = table(facts.start.get("environment"))
    if not machine:
        yield UNKNOWN
        return
    gpus = machine.get("gpus") or []
    on = ", ".join(map(said, gpus)) if gpus and machine.get("device") != "cpu" else said(machine.get("cpu"))
    dtype = str(machine.get("dtype", "")).removeprefix("torch.")
    yield f"{on}, {said(machine.get('threads'))} threads, {said(machine.get('world_size', 1))} processes, {dtype}"
    versions = ", ".join(
        f"{name} {said(machine[name])}" for name in ("bertsmith", "torch", "python") if name in machine
    )
    yield versions
    seconds = facts.stop.get("elapsed_seconds")
    yield (
        f"training took {seconds:,.0f} seconds" if isinstance(seconds, int | float) else "how long it took is not known"
    )


def limits_told(facts: Facts, languages: Sequence[str], licence: str | None) -> Iterator[str]:
    splits = sorted({row.split for row in own_scores(facts)})
    tested = f"on {', '.join(map(said, splits))} alone" if splits else "on nothing that a file tells of"
    if splits == ["validation"]:
        tested = "on no rows but those that chose its weights"
    yield f"Tested {tested}; other sources, times, topics and languages were not, nor was harm that its answers may do"
    length = facts.card.get("max_length") or facts.config.max_position_embeddings
    share = facts.evaluation.get("truncation_share")
    cut = f"; of the validation rows {share:.1%} of the tokens were cut" if isinstance(share, int | float) else ""
    if facts.task == "answer" or facts.section.get("windows"):
        yield f"Reads long texts in windows of {length} tokens, and sees no further than one of them"
    else:
        yield f"Reads {length} tokens, [CLS] and [SEP] included, and nothing after them{cut}"
    yield from _calibration(facts)
    yield from _balance(facts)
    yield from _weakest(facts)
    if not languages:
        yield "Its language is not stated: no file of a run says it"
    if licence is None:
        yield "No licence is stated"


def _calibration(facts: Facts) -> Iterator[str]:
    found = table(None if facts.scores is None else facts.scores.calibration)
    if not found:
        if facts.task in ("classify", "multilabel", "choose", "next-sentence"):
            yield "Whether its probabilities are right (calibration) is not known"
        return
    kept = "kept in bertsmith.json; divide logits by it" if found.get("kept") else "not kept"
    yield f"A temperature of {found.get('temperature', 1.0):.3g} fits the validation rows best ({kept})"
    for split, one in table(found.get("splits")).items():
        before, after = (table(table(one).get(when)).get("ece") for when in ("before", "after"))
        if isinstance(before, float) and isinstance(after, float):
            yield f"Calibration error (ECE) on {said(split)}: {before:.4f}, with that temperature {after:.4f}"


def _balance(facts: Facts) -> Iterator[str]:
    counts = {name: count for name, count in table(table(facts.start.get("data")).get("label_counts")).items() if count}
    if not counts:
        return
    total = sum(counts.values())
    order = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{said(name)} {count / total:.1%}" for name, count in order[:MOST_LABELS]]
    more = f", and {len(order) - MOST_LABELS} more labels" if len(order) > MOST_LABELS else ""
    yield f"Labels of the training rows: {', '.join(shown)}{more}"


def _weakest(facts: Facts) -> Iterator[str]:
    scores = facts.scores
    slices = [] if scores is None else [one for one in scores.slices if one.rows >= _FEW_ROWS]
    if slices:
        low = min(slices, key=lambda one: one.score)
        yield (
            f"Weakest of its parts with at least {_FEW_ROWS} rows: {said(low.slice)} {said(low.value)} of "
            f"{said(low.split)}, {said(low.metric)} {low.score:.4f} (95 % interval {low.low:.4f} to {low.high:.4f}, "
            f"{low.rows:,} rows)"
        )


def _files(value: object) -> str:
    """Names of files, without folders of this machine."""
    names = [value] if isinstance(value, str) else []
    if isinstance(value, Mapping):
        names = [one for one in value.values() if isinstance(one, str)]
    return f" ({', '.join(said(Path(name).name) for name in names)})" if names else ""


def is_hub_name(name: str) -> bool:
    """What is no folder here, and looks like a name of the hub."""
    return bool(re.fullmatch(r"[A-Za-z][\w.-]*(/[\w.-]+)?", name)) and not Path(name).exists()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def bullets(lines: Iterator[str]) -> str:
    return "\n".join(f"- {_sentence(line)}" for line in lines if line)
