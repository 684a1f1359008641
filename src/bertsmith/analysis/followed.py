"""Validation rows followed over the evaluations: learned, forgotten, never right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bertsmith.analysis.folder import RunFolder, Training, read_lines, sequence, step_of
from bertsmith.analysis.markup import Html, details, percent, share_bar, table, tag

Fate = Literal["always right", "learned", "forgotten", "never right"]
FATES: Mapping[Fate, str] = {
    "always right": "at every evaluation",
    "learned": "wrong before, right at the last evaluation",
    "forgotten": "right before, wrong at the last evaluation",
    "never right": "at no evaluation: hard rows, or wrong labels",
}
MOST_SHOWN = 12
"""Rows told of one fate."""


@dataclass(frozen=True)
class Followed:
    """One row."""

    row: int
    right: tuple[bool | None, ...]
    """At each evaluation; None where it was not asked."""
    label: str
    prediction: str
    """At the last evaluation."""
    text: str

    @property
    def fate(self) -> Fate:
        known = [is_right for is_right in self.right if is_right is not None]
        if all(known):
            return "always right"
        if not any(known):
            return "never right"
        return "learned" if known[-1] else "forgotten"


def followed_section(folder: RunFolder) -> list[Html]:
    parts = [_of_training(training) for training in folder.trainings]
    return [part for part in parts if part is not None]


def followed_rows(training: Training) -> tuple[list[int], list[Followed]]:
    """Steps of the evaluations, and the rows in their order; a line that is not as it is written is passed over."""
    events = [event for event in training.of("evaluation") if sequence(event.get("followed"))]
    at: list[dict[int, tuple[bool, str, str]]] = []
    for event in events:
        found = [entry for entry in sequence(event["followed"]) if isinstance(entry, list) and len(entry) == 4]
        at.append({row: (right is True, str(label), str(said)) for row, right, label, said in found if _is_row(row)})
    texts = _texts(training)
    rows = []
    for row in dict.fromkeys(row for one in at for row in one):
        told = [one.get(row) for one in at]
        last = [one for one in told if one is not None][-1]
        right = tuple(None if one is None else one[0] for one in told)
        rows.append(Followed(row, right, last[1], last[2], texts.get(row, "")))
    return [step_of(event) for event in events], rows


def _is_row(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(training: Training) -> dict[int, str]:
    try:
        lines = list(read_lines(training.path / "followed.jsonl"))
    except OSError:
        return {}
    return {line["row"]: str(line.get("text", "")) for line in lines if _is_row(line.get("row"))}


def _of_training(training: Training) -> Html | None:
    steps, rows = followed_rows(training)
    if len(steps) < 2 or not rows:
        return None
    by_fate = {fate: [row for row in rows if row.fate == fate] for fate in FATES}
    counts = [
        [fate, share_bar(len(found) / len(rows)), f"{len(found):,}", percent(len(found) / len(rows)), FATES[fate]]
        for fate, found in by_fate.items()
    ]
    span = f"{len(steps):,} evaluations (steps {steps[0]:,} to {steps[-1]:,})"
    said = f"The same {len(rows):,} validation rows at each of {span}."
    return tag(
        "div",
        {"class": "part"},
        tag("h3", None, training.name),
        tag("p", {"class": "said"}, said),
        table(["", "", "rows", "share", ""], counts, classes="countbars"),
        [_examples(fate, by_fate[fate]) for fate in ("forgotten", "never right", "learned") if by_fate[fate]],
    )


def _examples(fate: str, rows: Sequence[Followed]) -> Html:
    body: list[list[Any]] = [
        [_strip(row), tag("td", None, row.label), tag("td", None, row.prediction), row.text or f"row {row.row:,}"]
        for row in rows[:MOST_SHOWN]
    ]
    more = f", {MOST_SHOWN} of {len(rows):,}" if len(rows) > MOST_SHOWN else f" ({len(rows):,})"
    header = ["evaluations", "true", "predicted last", "text"]
    return details(f"Rows {fate}{more}", table(header, body, classes="texts"))


def _strip(row: Followed) -> Html:
    """A mark for each evaluation, told apart by height too: full is right, a foot is wrong."""
    kinds = {True: "yes", False: "no", None: "open"}
    right = sum(one is True for one in row.right)
    marks = [tag("i", {"class": kinds[one]}) for one in row.right[-60:]]
    return tag(
        "td", {"class": "strip", "title": f"right at {right} of {len(row.right)} evaluations"}, tag("span", None, marks)
    )
