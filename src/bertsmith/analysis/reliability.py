"""Is the model right as often as it says? The calibration of one split, from scores.json."""

from collections.abc import Mapping
from typing import Any

from bertsmith.analysis.folder import mapping, sequence
from bertsmith.analysis.markup import Html, details, number, percent, score, show, table, tag
from bertsmith.analysis.scores import interval_bar


def reliability(calibration: Mapping[str, Any], split: str) -> Html | None:
    """How confidence and truth went together, as the model gives its probabilities, and folded as it else would."""
    of_split = mapping(mapping(calibration.get("splits")).get(split))
    temperature = number(calibration.get("temperature"))
    if not of_split or temperature is None:
        return None
    kept = "after" if calibration.get("kept") else "before"
    said = (
        f"Expected calibration error {_ece(of_split, 'before')} as trained, {_ece(of_split, 'after')} at temperature "
        f"{show(temperature)}, which was fitted on the validation rows"
    )
    said += ", and by which this model's probabilities are made." if kept == "after" else "; calibrate = true keeps it."
    other = "before" if kept == "after" else "after"
    name = "As trained" if other == "before" else f"At temperature {show(temperature)}"
    return tag(
        "div",
        {"class": "part"},
        tag("h3", None, "Calibration"),
        tag("p", {"class": "said"}, f"{said} Bars: how often it is right; whiskers: up or down to what it says."),
        _bins(mapping(of_split.get(kept))),
        details(name, _bins(mapping(of_split.get(other)))),
    )


def _ece(of_split: Mapping[str, Any], when: str) -> str:
    return score(mapping(of_split.get(when)).get("ece"))


def _bins(found: Mapping[str, Any]) -> Html:
    rows = []
    for one in map(mapping, sequence(found.get("bins"))):
        sure, right = number(one.get("confidence")), number(one.get("accuracy"))
        if not one.get("count") or sure is None or right is None:
            continue
        gap = {"score": right, "low": min(sure, right), "high": max(sure, right)}
        bounds = f"{percent(one.get('low'))} – {percent(one.get('high'))}"
        bar = tag("td", {"class": "wide"}, interval_bar(gap, 0.0, 1.0))
        rows.append([bounds, percent(sure, 1), percent(right, 1), bar, show(one.get("count"))])
    return table(["probability", "it says", "it is right", "", "answers"], rows, classes="scores")
