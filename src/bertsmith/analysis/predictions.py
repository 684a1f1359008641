"""What a fine-tuned model got right and wrong, from predictions-SPLIT.jsonl, in one pass over the file."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertsmith.analysis.folder import mapping, read_lines, sequence
from bertsmith.analysis.markup import Html, details, join, number, percent, score, share_bar, table, tag
from bertsmith.tasks.metrics import score_classification

BATCH_ROWS = 32
"""Rows in a batch of the per-batch chart, as in the usual CoLA tutorial."""
NUM_MISTAKES = 10
NUM_SENTENCES = 15
MOST_LABELS = 16
"""Larger confusion matrices are told as a list of the most frequent confusions."""
MOST_BARS = 130
OUTSIDE = "O"


@dataclass(order=True)
class Mistake:
    """A wrong answer; ordered so that the surest comes last, and of equals the first row."""

    confidence: float
    minus_row: int
    minus_word: int
    label: str = field(compare=False)
    prediction: str = field(compare=False)
    record: Mapping[str, Any] = field(compare=False)


@dataclass
class Answers:
    """Counts and samples of one split."""

    split: str
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    mistakes: list[Mistake] = field(default_factory=list)
    sentences: list[Mapping[str, Any]] = field(default_factory=list)
    batch_scores: list[float] = field(default_factory=list)
    rows: int = 0

    @property
    def labels(self) -> list[str]:
        return sorted({name for pair in self.confusion for name in pair})


def read_answers(split: str, path: Path) -> Answers:
    """Rows without classes are passed over: those without labels, and those with numbers."""
    answers = Answers(split)
    batch: list[tuple[str, str]] = []
    for record in read_lines(path):
        if isinstance(record.get("words"), list):
            _add_tagged(answers, record)
        elif isinstance(record.get("label"), str) and isinstance(record.get("prediction"), str):
            pair = (str(record["label"]), str(record["prediction"]))
            _add(answers, record, pair, _probability(record), word=0)
            answers.rows += 1
            batch.append(pair)
            if len(batch) == BATCH_ROWS:
                answers.batch_scores.append(_matthews(batch))
                batch = []
    if batch:
        answers.batch_scores.append(_matthews(batch))
    return answers


def sections(answers: Answers) -> list[Html]:
    """The parts of the report about one split."""
    if not answers.confusion:
        return []
    parts = [_confusion(answers), _mistakes(answers)]
    if answers.sentences:
        parts.append(_tagged_sentences(answers))
    if answers.batch_scores:
        parts.append(_batch_chart(answers))
    return parts


def _add(answers: Answers, record: Mapping[str, Any], pair: tuple[str, str], confidence: float, *, word: int) -> None:
    answers.confusion[pair] += 1
    if pair[0] != pair[1]:
        mistake = Mistake(confidence, -answers.rows, -word, *pair, record)
        if len(answers.mistakes) < NUM_MISTAKES:
            heapq.heappush(answers.mistakes, mistake)
        else:
            heapq.heappushpop(answers.mistakes, mistake)


def _add_tagged(answers: Answers, record: Mapping[str, Any]) -> None:
    labels, predictions = sequence(record.get("labels")), sequence(record.get("predictions"))
    confidence = sequence(record.get("confidence"))
    if not labels or len(labels) != len(predictions) or len(labels) != len(record["words"]):
        return
    for word, pair in enumerate(zip(map(str, labels), map(str, predictions), strict=True)):
        sure = number(confidence[word]) if word < len(confidence) else None
        _add(answers, record, pair, sure or 0.0, word=word)
    answers.rows += 1
    if len(answers.sentences) < NUM_SENTENCES and any(tag != OUTSIDE for tag in [*labels, *predictions]):
        answers.sentences.append(record)


def _probability(record: Mapping[str, Any]) -> float:
    return number(mapping(record.get("probabilities")).get(str(record["prediction"]))) or 0.0


def _matthews(pairs: Sequence[tuple[str, str]]) -> float:
    names = sorted({name for pair in pairs for name in pair})
    return score_classification([label for label, _ in pairs], [guess for _, guess in pairs], names)["matthews"]


def _confusion(answers: Answers) -> Html:
    what = "words" if answers.sentences else "rows"
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


def _mistakes(answers: Answers) -> Html:
    if not answers.mistakes:
        return _part("Most confident mistakes", "", tag("p", None, "None: every answer is right."))
    rows = [
        [
            percent(m.confidence, 1),
            _left(m.label),
            _left(m.prediction),
            _context(m),
            str(m.record.get("line", m.record.get("row", ""))),
        ]
        for m in sorted(answers.mistakes, reverse=True)
    ]
    said = "The model was surest of these, and wrong: look here first for mislabelled rows."
    return _part(
        "Ten most confident mistakes" if len(rows) == NUM_MISTAKES else "Mistakes, most confident first",
        said,
        table(["sure", "true", "predicted", "text", "line"], rows, classes="texts"),
    )


def _context(mistake: Mistake) -> Html:
    """The row's text; of a tagged sentence, the words around the one that is wrong."""
    words = mistake.record.get("words")
    if not isinstance(words, list):
        texts = (str(mistake.record[key]) for key in ("text", "pair") if key in mistake.record)
        return tag("span", None, _clipped(" | ".join(texts)))
    at = -mistake.minus_word
    before, after = words[max(0, at - 8) : at], words[at + 1 : at + 9]
    return tag(
        "span",
        None,
        "… " if at > 8 else "",
        " ".join(map(str, before)) + " ",
        tag("mark", {"class": "missed" if mistake.prediction == OUTSIDE else "wrong"}, str(words[at])),
        " " + " ".join(map(str, after)),
        " …" if at + 9 < len(words) else "",
    )


def _tagged_sentences(answers: Answers) -> Html:
    types = [name for name in answers.labels if name != OUTSIDE]
    rows = [
        tag("p", {"class": "sentence"}, _tagged_words(record, name_types=len(types) > 1))
        for record in answers.sentences
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


def _tagged_words(record: Mapping[str, Any], *, name_types: bool) -> Html:
    parts: list[Html | str] = []
    for word, label, guess in zip(record["words"], record["labels"], record["predictions"], strict=True):
        if label == guess == OUTSIDE:
            parts += [str(word), " "]
            continue
        kind = "right" if label == guess else "missed" if guess == OUTSIDE else "wrong"
        said = f"true: {label}, predicted: {guess}"
        shown = label if kind != "wrong" else guess
        name = tag("small", None, str(shown)) if name_types else None
        parts += [tag("mark", {"class": kind, "title": said}, str(word), name), " "]
    return join(parts)


def _batch_chart(answers: Answers) -> Html:
    """A bar for each batch, or, of very many batches, a bar for each tenth of the score's range."""
    scores = answers.batch_scores
    mean = sum(scores) / len(scores)
    whole = _matthews(list(answers.confusion.elements()))
    said = (
        f"Matthews correlation of each batch of {BATCH_ROWS} rows, in their order: mean {score(mean)} (dashed), "
        f"over the whole set {score(whole)}. A batch in which labels or answers are all the same scores 0."
    )
    if len(scores) > MOST_BARS:
        counts = Counter(min(19, int((value + 1) * 10)) for value in scores)
        rows = [
            [
                f"{score(i / 10 - 1)[:-2]} to {score(i / 10 - 0.9)[:-2]}",
                share_bar(counts[i] / max(counts.values())),
                str(counts[i]),
            ]
            for i in range(min(counts), max(counts) + 1)
        ]
        return _part("Per-batch scores", said, table(["Matthews", "", "batches"], rows))
    lowest = -1.0 if min(scores) < 0 else 0.0

    def height(value: float) -> float:
        return 100 * (value - lowest) / (1 - lowest)

    marks = [value for value in (-1, -0.5, 0, 0.5, 1) if value >= lowest]
    axis = [tag("span", {"style": f"bottom:{height(value):g}%"}, f"{value:g}") for value in marks]
    bars = []
    for i, value in enumerate(scores, start=1):
        bottom, top = sorted((height(0), height(value)))
        style = f"bottom:{bottom:.1f}%;height:{max(0.8, top - bottom):.1f}%"
        bar = tag("i", {"style": style, "class": "below" if value < 0 else None})
        bars.append(tag("span", {"title": f"batch {i}: {score(value)}"}, bar))
    line = tag("em", {"style": f"bottom:{height(mean):.1f}%"})
    drawn = tag("div", {"class": "bars"}, tag("div", {"class": "y"}, axis), tag("div", {"class": "row"}, bars, line))
    return _part("Per-batch scores", said, drawn)


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
