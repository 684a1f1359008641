"""HTML that cannot be hostile: every text is escaped where it enters a tag, and numbers are written for people."""

import html
import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Attributes: TypeAlias = Mapping[str, str | int | float | bool | None]
Child: TypeAlias = "str | int | Iterable[Child] | None"
"""What may stand inside a tag: `Html` as it is, other text and numbers escaped, lists one after the other."""

_VOID = frozenset({"meta", "br", "line", "path", "link"})
_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\N{REPLACEMENT CHARACTER}")


class Html(str):
    """Text that is markup already; made only by `tag` and `join`."""

    __slots__ = ()


def text(value: object) -> Html:
    """Any value as escaped text; control characters and lone surrogates become U+FFFD."""
    clean = str(value).encode("utf-8", "replace").decode("utf-8").translate(_CONTROL)
    return Html(html.escape(clean))


def tag(name: str, attributes: Attributes | None = None, *children: Child) -> Html:
    """One element: attributes and children are escaped unless they are `Html`; None and False are left out."""
    written = "".join(
        f" {key}" if value is True else f' {key}="{text(value)}"'
        for key, value in (attributes or {}).items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Children one after the other, each escaped unless it is `Html`."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str | int):
            parts.append(text(child))
        elif child is not None:
            parts.append(join(child))
    return Html("".join(parts))


def table(header: Iterable[Html | str], rows: Iterable[Iterable[Html | str]], *, classes: str = "") -> Html:
    """A table that scrolls sideways by itself on a narrow screen; cells that are plain numbers are right-aligned."""
    head = tag("tr", None, [tag("th", {"scope": "col"}, cell) for cell in header])
    body = [tag("tr", None, [_cell(cell) for cell in row]) for row in rows]
    inner = tag("table", {"class": classes or None}, tag("thead", None, head), tag("tbody", None, body))
    return tag("div", {"class": "scroll"}, inner)


def _cell(cell: Html | str) -> Html:
    if isinstance(cell, Html) and cell.startswith("<td"):
        return cell
    is_number = cell.strip("-+0123456789.,:%e \N{MINUS SIGN}–") == "" and cell != ""
    return tag("td", {"class": "n" if is_number else None}, cell)


def details(summary: str, *children: Child, opened: bool = False) -> Html:
    """A part that is folded away until it is asked for."""
    return tag("details", {"open": opened}, tag("summary", None, summary), *children)


def number(value: object) -> float | None:
    """`value` as a finite float, or None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def show(value: object) -> str:
    """A number for reading: thousands apart, four digits or so, an exponent only where it is very small."""
    amount = number(value)
    if amount is None:
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\N{MINUS SIGN}")
    size = abs(amount)
    if size == 0:
        return "0"
    if size < 1e-3:
        return f"{amount:.2e}".replace("e-0", "e-")
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 0.1 else 4
    return f"{amount:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def score(value: object) -> str:
    """A score with three decimals, so that columns line up."""
    amount = number(value)
    return "–" if amount is None else f"{amount:.3f}".replace("-", "\N{MINUS SIGN}")


def percent(value: object, digits: int = 0) -> str:
    amount = number(value)
    return "–" if amount is None else f"{100 * amount:.{digits}f} %"


def duration(seconds: object) -> str:
    """Seconds as h:mm:ss, or with a decimal where they are few."""
    amount = number(seconds)
    if amount is None:
        return "–"
    if amount < 10:
        return f"{amount:.1f} s"
    whole = round(amount)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def words(key: object) -> str:
    """A field's name as words: `dropped_by_reason` -> `dropped by reason`."""
    return str(key).replace("_", " ")
