"""How long labelled rows are in tokens, as bars, and where they are cut off."""

from collections.abc import Mapping
from typing import Any

from bertsmith.analysis.folder import RunFolder, mapping, sequence
from bertsmith.analysis.markup import Html, number, percent, tag


def token_lengths(folder: RunFolder) -> list[Html]:
    """A histogram for each different table of labelled rows; a baseline on the same rows is not told twice."""
    seen: list[Mapping[str, Any]] = []
    parts = []
    for training in folder.trainings:
        told = mapping(mapping(training.start.get("data")).get("token_lengths"))
        for split, found in told.items():
            if isinstance(found, Mapping) and found not in seen:
                seen.append(found)
                parts.append(_histogram(str(split), found))
    return [part for part in parts if part is not None]


def _histogram(split: str, found: Mapping[str, Any]) -> Html | None:
    counts = [number(count) for count in sequence(found.get("counts"))]
    width, longest = number(found.get("width")), number(found.get("max_length"))
    known = [count for count in counts if count is not None and count >= 0]
    if not known or len(known) < len(counts) or not width or width <= 0 or not sum(known):
        return None
    bars = []
    cut = 0.0
    for i, count in enumerate(known):
        low, high = int(i * width) + 1, int((i + 1) * width)
        is_cut = longest is not None and low > longest
        cut += count if is_cut else 0
        bar = tag(
            "i", {"style": f"bottom:0;height:{100 * count / max(known):.1f}%", "class": "below" if is_cut else None}
        )
        bars.append(tag("span", {"title": f"{low:,} to {high:,} tokens: {count:,.0f} rows"}, bar))
    each = f"{width:,.0f} tokens" if width > 1 else "token"
    said = f"{sum(known):,.0f} {split} rows; a bar for each {each}, from 1 to {int(len(known) * width):,}."
    if longest is not None:
        said += f" max_length = {longest:,.0f}"
        said += f": at least {percent(cut / sum(known), 1)} of the rows are cut (the other colour)." if cut else "."
    axis = [tag("span", {"style": "bottom:0%"}, "0"), tag("span", {"style": "bottom:100%"}, f"{max(known):,.0f}")]
    drawn = tag("div", {"class": "bars low"}, tag("div", {"class": "y"}, axis), tag("div", {"class": "row"}, bars))
    heading = tag("h3", None, f"Tokens of {split} rows")
    return tag("div", {"class": "part"}, heading, tag("p", {"class": "said"}, said), drawn)
