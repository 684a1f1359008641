"""Masked words: what the model put in their place, during training and at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsmith.analysis.folder import RunFolder, mapping, sequence, step_of
from bertsmith.analysis.markup import Html, join, number, percent, share_bar, table, tag, text

MOST_SAMPLES = 6
MOST_SAMPLE_STEPS = 8


def masked_words(folder: RunFolder) -> list[Html]:
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
                    tag("div", {"class": "samples"}, tables),
                )
            )
    return shown


def _fill_mask(item: Mapping[str, Any]) -> Html:
    guesses = [(str(pair[0]), number(pair[1]) or 0.0) for pair in _pairs(item.get("predictions"))][:5]
    rows = [
        tag("li", None, tag("span", None, word), share_bar(share), tag("small", None, percent(share)))
        for word, share in guesses
    ]
    return tag(
        "div", {"class": "fill"}, tag("p", None, _blanks(str(item["text"]), numbered=False)), tag("ol", None, rows)
    )


def _sample(sentence: str, events: Sequence[Mapping[str, Any]]) -> Html:
    truths = [str(mapping(m).get("truth", "")) for m in sequence(events[-1].get("masked"))]
    rows = []
    for event in _tenfold(events):
        cells = [_guess(mapping(masked)) for masked in sequence(event.get("masked"))]
        rows.append([f"{step_of(event):,}", *cells])
    header = ["step", *[tag("span", None, tag("b", None, i), " ", truth) for i, truth in enumerate(truths, start=1)]]
    return tag(
        "div",
        {"class": "card sample"},
        tag("p", {"class": "sentence"}, _blanks(sentence, numbered=True)),
        table(header, rows, classes="guesses"),
    )


def _tenfold(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first, the last, and those nearest to steps 100, 1,000, ...; between them as many as there is room for.

    A model learns most in its first steps, so steps that grow by the same factor tell more than even ones.
    """
    if len(events) <= MOST_SAMPLE_STEPS:
        return list(events)
    steps = np.array([max(1, step_of(event)) for event in events], dtype=float)
    powers = [10.0**n for n in range(2, 9) if steps[0] < 10.0**n < steps[-1]]
    between = np.geomspace(steps[0], steps[-1], MOST_SAMPLE_STEPS).tolist()
    wanted = [steps[0], steps[-1], *powers, *between]
    nearest = dict.fromkeys(int(np.abs(np.log(steps / step)).argmin()) for step in wanted)
    return [events[i] for i in sorted(list(nearest)[:MOST_SAMPLE_STEPS])]


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


def _blanks(sentence: str, *, numbered: bool) -> Html:
    """Text with each [MASK] as a blank, numbered like the columns of a table below it."""
    pieces = sentence.split("[MASK]")
    parts: list[Html] = [text(pieces[0])]
    for i, piece in enumerate(pieces[1:], start=1):
        parts += [tag("span", {"class": "blank"}, i if numbered else " "), text(piece)]
    return join(parts)
