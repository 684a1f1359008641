"""What a fine-tuned model got right and wrong, from predictions-SPLIT.jsonl."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertsmith.analysis.folder import mapping, read_lines, sequence
from bertsmith.analysis.markup import Html, details, join, number, percent, score, table, tag, title
from bertsmith.analysis.mistakes import (
    BLOCK_ROWS,
    Blocks,
    LabelScore,
    Mistake,
    blocks,
    confusion,
    have_mistakes,
    label_scores,
    surest_mistakes,
)
from bertsmith.tasks.predictions import Predictions, sound_predictions

NUM_MISTAKES = 10
NUM_SENTENCES = 15
LEAST_FALL = 0.01
"""Of a probability, from which a word is coloured."""
MOST_LABELS = 16
"""Larger confusion matrices are told as a list of the most frequent confusions."""
OUTSIDE = "O"


@dataclass(frozen=True)
class Answers:
    """One split, counted."""

    split: str
    predictions: Predictions
    confusion: Counter[tuple[str, str]]
    by_label: tuple[LabelScore, ...]
    mistakes: tuple[Mistake, ...]
    """The surest."""
    blocks: Blocks
    driving: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Row -> its line of mistakes-SPLIT.jsonl, which says what each word had to do with the answer."""

    @property
    def labels(self) -> list[str]:
        return sorted({name for pair in self.confusion for name in pair})

    @property
    def is_tagged(self) -> bool:
        return self.predictions.task.name == "tag"

    @property
    def sentences(self) -> list[tuple[Any, Any]]:
        """The first with an entity in the truth or in the answer."""
        pairs = zip(self.predictions.rows, self.predictions.answers, strict=True)
        found = ((row, answer) for row, answer in pairs if {*row.labels, *answer.tags} != {OUTSIDE})
        return [pair for pair, _ in zip(found, range(NUM_SENTENCES), strict=False)]


def read_answers(split: str, path: Path, *, task_name: str | None = None, metric: str | None = None) -> Answers | None:
    """Rows without labels, and lines that are torn, are passed over; None where none is left.

    task_name: default: as the fields tell. metric: of the blocks; where the task has no such one, Matthews' for
    classes, else the task's own.
    """
    predictions = sound_predictions(read_lines(path), task_name=task_name)
    if predictions is None:
        return None
    metrics = predictions.task.metrics
    usual = "matthews" if "matthews" in metrics else predictions.task.default_metric
    return Answers(
        split=split,
        predictions=predictions,
        confusion=confusion(predictions),
        by_label=label_scores(predictions),
        mistakes=surest_mistakes(predictions, NUM_MISTAKES),
        blocks=blocks(predictions, metric if metric in metrics else usual),
        driving=_driving(path.with_name(f"mistakes-{split}.jsonl")),
    )


def _driving(path: Path) -> dict[int, Mapping[str, Any]]:
    try:
        lines = list(read_lines(path))
    except OSError:
        return {}
    return {line["row"]: line for line in lines if isinstance(line.get("row"), int)}


def sections(answers: Answers) -> list[Html]:
    """The parts of the report about one split."""
    parts = [_confusion(answers)] if answers.confusion else []
    parts += [_by_label(answers)] if answers.by_label else []
    parts += [_mistakes(answers)] if have_mistakes(answers.predictions) else []
    if answers.is_tagged and answers.sentences:
        parts.append(_tagged_sentences(answers))
    parts.append(_block_chart(answers.blocks))
    return parts


def _confusion(answers: Answers) -> Html:
    what = "words" if answers.is_tagged else "rows"
    total = sum(answers.confusion.values())
    wrong = sum(count for (label, guess), count in answers.confusion.items() if label != guess)
    said = f"{wrong:,} of {total:,} {what} wrong ({percent(wrong / total, 1)}). "
    if len(answers.labels) > MOST_LABELS:
        worst = sorted(((-n, pair) for pair, n in answers.confusion.items() if pair[0] != pair[1]))[:20]
        body = table(["true", "predicted", what], [[*pair, f"{-n:,}"] for n, pair in worst])
        return _part("Most frequent confusions", said, body)
    totals = Counter(dict.fromkeys(answers.labels, 0))
    for (label, _), count in answers.confusion.items():
        totals[label] += count
    rows = []
    for label in answers.labels:
        cells = [
            _cell(answers.confusion[label, guess], totals[label], right=label == guess) for guess in answers.labels
        ]
        rows.append(
            [tag("td", {"class": "rowhead"}, label), *cells, tag("td", {"class": "n dim"}, f"{totals[label]:,}")]
        )
    header = [tag("span", {"class": "dim"}, "true ↓   predicted →"), *answers.labels, "all"]
    said += "Shading is the share of each true label."
    return _part("Confusion matrix", said, table(header, rows, classes="confusion"))


def _cell(count: int, total: int, *, right: bool) -> Html:
    share = count / total if total else 0.0
    style = f"--share:{100 * share:.0f}%"
    inner = [tag("b", None, f"{count:,}"), tag("small", None, percent(share))] if count else [tag("span", None, "·")]
    return tag("td", {"class": f"cell {'right' if right else 'wrong'}", "style": style}, inner)


def _by_label(answers: Answers) -> Html:
    """Precision, recall and F1 of each label, and its two-by-two table where each row is a yes or a no."""
    has_cells = answers.by_label[0].cells is not None
    header = ["", "precision", "recall", "F1", "truly there"]
    header += ["right", "given wrongly", "missed", "neither"] if has_cells else []
    rows = [
        [
            _left(one.label),
            *map(score, (one.precision, one.recall, one.f1)),
            f"{one.truly:,}",
            *(f"{count:,}" for count in one.cells or ()),
        ]
        for one in answers.by_label
    ]
    what = {"tag": "Entity types", "multilabel": "Labels"}.get(answers.predictions.task.name, "Classes")
    return _part(what, "", table(header, rows, classes="numbers"))


def _mistakes(answers: Answers) -> Html:
    off = not answers.predictions.task.gives_probabilities
    if not answers.mistakes:
        return _part("Most confident mistakes", "", tag("p", None, "None: every answer is right."))
    rows = [
        [
            f"{one.size:.4g}" if off else percent(one.size, 1),
            _left(_clipped(one.label, 120)),
            _left(_clipped(one.prediction, 120)),
            _words_that_drove(one, answers.driving.get(one.row)) or _context(one),
            str(one.line),
        ]
        for one in answers.mistakes
    ]
    if off:
        heading, said = "Largest errors", "Look here first for rows with a wrong number."
    else:
        heading = "Ten most confident mistakes" if len(rows) == NUM_MISTAKES else "Mistakes, most confident first"
        said = "The model was surest of these, and wrong: look here first for mislabelled rows."
    if any(one.row in answers.driving for one in answers.mistakes):
        said += (
            " Each word was hidden in turn: the redder, the further the wrong answer's probability fell without it; "
            "blue words spoke against it."
        )
    header = ["off by" if off else "sure", "true", "predicted", "text", "line"]
    return _part(heading, said, table(header, rows, classes="texts"))


def _words_that_drove(mistake: Mistake, told: Mapping[str, Any] | None) -> Html | None:
    """The text with what each word did; None where nobody tried, or where the file is of another text."""
    if told is None or str(told.get("prediction")) != mistake.prediction:
        return None
    shown = []
    for name in ("text", "pair"):
        pieces = [one for one in sequence(told.get(name)) if isinstance(one, list) and len(one) == 2]
        if pieces:
            shown.append(tag("span", {"class": "drove"}, [_piece(str(word), number(fall)) for word, fall in pieces]))
    return join(tag("div", None, part) for part in shown) if shown else None


def _piece(word: str, fall: float | None) -> Html:
    if fall is None or abs(fall) < LEAST_FALL:
        return tag("span", None, word)
    kind = "for" if fall > 0 else "against"
    style = f"--share:{100 * min(1.0, abs(fall)):.0f}%"
    said = f"hidden, the probability {'falls' if fall > 0 else 'rises'} by {abs(fall):.3f}"
    return tag("mark", {"class": kind, "style": style, "title": said}, word)


def _context(mistake: Mistake) -> Html:
    """The row's text; of a tagged sentence, the words around the one that is wrong."""
    if not mistake.words:
        return tag("span", None, _clipped(mistake.text))
    at, spoken = mistake.word, mistake.words
    before, after = spoken[max(0, at - 8) : at], spoken[at + 1 : at + 9]
    return tag(
        "span",
        None,
        "… " if at > 8 else "",
        " ".join(before) + " ",
        tag("mark", {"class": "missed" if mistake.prediction == OUTSIDE else "wrong"}, spoken[at]),
        " " + " ".join(after),
        " …" if at + 9 < len(spoken) else "",
    )


def _tagged_sentences(answers: Answers) -> Html:
    types = [name for name in answers.labels if name != OUTSIDE]
    rows = [
        tag("p", {"class": "sentence"}, _tagged_words(row, answer, name_types=len(types) > 1))
        for row, answer in answers.sentences
    ]
    legend = tag(
        "p",
        {"class": "legend"},
        tag("mark", {"class": "right"}, "found"),
        tag("mark", {"class": "missed"}, "missed"),
        tag("mark", {"class": "wrong"}, "marked wrongly"),
    )
    what = f"words marked {types[0]}" if len(types) == 1 else "marked words"
    said = f"The first {len(rows)} sentences of the split that have {what}, in the truth or in the prediction."
    return _part("Tagged sentences", said, legend, *rows)


def _tagged_words(row: Any, answer: Any, *, name_types: bool) -> Html:
    parts: list[Html | str] = []
    for word, label, guess in zip(row.words, row.labels, answer.tags, strict=True):
        if label == guess == OUTSIDE:
            parts += [word, " "]
            continue
        kind = "right" if label == guess else "missed" if guess == OUTSIDE else "wrong"
        said = f"true: {label}, predicted: {guess}"
        shown = label if kind != "wrong" else guess
        name = tag("small", None, shown) if name_types else None
        parts += [tag("mark", {"class": kind, "title": said}, word, name), " "]
    return join(parts)


def _block_chart(found: Blocks) -> Html:
    """A bar for each block, so that a run of bad rows in a file is seen."""
    scores, size = found.scores, found.rows
    mean = sum(scores) / len(scores)
    said = f"{title(found.metric)} of each {size} rows, in their order in the file: mean {score(mean)} (dashed), "
    said += f"over the whole set {score(found.whole)}."
    if found.metric == "matthews":
        said += " A block in which labels or answers are all the same scores 0."
    lowest, highest = min(0.0, *scores), max(1.0, *scores)
    lowest = -1.0 if lowest < 0 and highest == 1 else lowest

    def height(value: float) -> float:
        return 100 * (value - lowest) / (highest - lowest)

    marks = [value for value in (-1, -0.5, 0, 0.5, 1) if value >= lowest] if highest == 1 else [0, highest]
    axis = [tag("span", {"style": f"bottom:{height(value):.4g}%"}, f"{value:.3g}") for value in marks]
    bars = []
    for block, value in enumerate(scores):
        bottom, top = sorted((height(0), height(value)))
        style = f"bottom:{bottom:.1f}%;height:{max(0.8, top - bottom):.1f}%"
        bar = tag("i", {"style": style, "class": "below" if value < 0 else None})
        rows = f"rows {block * size + 1:,} to {min((block + 1) * size, found.total):,}"
        bars.append(tag("span", {"title": f"{rows}: {score(value)}"}, bar))
    line = tag("em", {"style": f"bottom:{height(mean):.1f}%"})
    drawn = tag("div", {"class": "bars"}, tag("div", {"class": "y"}, axis), tag("div", {"class": "row"}, bars, line))
    return _part("Per-batch scores" if size == BLOCK_ROWS else f"Scores of each {size} rows", said, drawn)


def hardest(examples: Sequence[object]) -> Html | None:
    """Validation rows with the largest loss at the last evaluation."""
    rows = [
        [
            score(item.get("loss")),
            _left(item.get("label", "")),
            _left(item.get("prediction", "")),
            _clipped(str(item.get("text", ""))),
        ]
        for item in map(mapping, examples)
        if item
    ]
    if not rows:
        return None
    return details("Hardest validation examples", table(["loss", "true", "predicted", "text"], rows, classes="texts"))


def _left(name: object) -> Html:
    """A cell for a label: left-aligned even where labels are numbers."""
    return tag("td", None, str(name))


def _clipped(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _part(title: str, said: str, *children: Html) -> Html:
    return tag(
        "div", {"class": "part"}, tag("h3", None, title), tag("p", {"class": "said"}, said) if said else None, *children
    )
