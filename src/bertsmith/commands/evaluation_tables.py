"""What `bertsmith evaluate` says below the scores: calibration, parts of the table, labels, and the surest mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from bertsmith.analysis.mistakes import confusion, label_scores, surest_mistakes

if TYPE_CHECKING:
    from bertsmith.analysis.mistakes import Mistake
    from bertsmith.tasks.evaluate import EvaluateResult
    from bertsmith.tasks.predictions import Predictions

MOST_CONFUSIONS = 10
_TEXT = 100
"""Characters shown of a text."""


def evaluation_lines(result: EvaluateResult, *, num_mistakes: int) -> Iterator[str]:
    """Lines to print; `num_mistakes` 0: none of the mistakes."""
    if result.calibration is not None:
        found = result.calibration
        yield f"{'calibration':<18} ECE {found.ece:.4f}, Brier {found.brier:.4f} over {found.decisions:,} answers"
    for name, rows in groupby(result.slices, key=lambda row: row.slice):
        some = list(rows)
        yield f"\n{name:<18} {some[0].metric}"
        for row in some:
            yield f"  {_cut(row.value, 30):<30} {row.score:.4f}  ({row.low:.4f} to {row.high:.4f})  {row.rows:,} rows"
    yield from _labels(result.predictions)
    yield from _confusions(result.predictions)
    if num_mistakes and (found_mistakes := surest_mistakes(result.predictions, num_mistakes)):
        off = not result.predictions.task.gives_probabilities
        yield "\nlargest errors" if off else "\nmost confident mistakes"
        for one in found_mistakes:
            yield _mistake(one, off=off)


def _labels(predictions: Predictions) -> Iterator[str]:
    found = label_scores(predictions)
    if not found:
        return
    has_cells = found[0].cells is not None
    heads = f"\n{'label':<32} precision  recall      F1  truly there"
    yield heads + ("     right  wrongly   missed  neither" if has_cells else "")
    for one in found:
        cells = "".join(f"{count:>9,}" for count in one.cells or ())
        shares = f"{one.precision:>9.4f} {one.recall:>7.4f} {one.f1:>7.4f} {one.truly:>12,}"
        yield f"  {_cut(one.label, 30):<30} {shares} {cells}".rstrip()


def _confusions(predictions: Predictions) -> Iterator[str]:
    wrong = [(count, pair) for pair, count in confusion(predictions).items() if pair[0] != pair[1]]
    if not wrong:
        return
    wrong.sort(key=lambda found: (-found[0], found[1]))
    yield "\nmost frequent confusions"
    for count, (label, guess) in wrong[:MOST_CONFUSIONS]:
        yield f"  {count:>9,}  {label}, predicted {guess}"


def _mistake(one: Mistake, *, off: bool) -> str:
    size = f"{one.size:>7.4g}" if off else f"{one.size:>7.1%}"
    text = " ".join(one.words[max(0, one.word - 5) : one.word + 6]) if one.words else one.text
    told = f"{_cut(one.text, 30)}: " if one.words else ""
    label, prediction = _cut(one.label, 40) or "(none)", _cut(one.prediction, 40) or "(none)"
    return f"  {size}  line {one.line:<6} {told}{label}, predicted {prediction}  | {_cut(text, _TEXT)}"


def _cut(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
