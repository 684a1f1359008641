"""HTML that cannot be hostile: every text is escaped where it enters a tag, and numbers are written for people."""

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Attributes: TypeAlias = Mapping[str, str | int | float | bool | None]
Child: TypeAlias = "str | int | Iterable[Child] | None"
"""What may stand inside a tag: `Html` as it is, other text and numbers escaped, lists one after the other."""

_VOID = frozenset({"meta", "br", "img"})
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
    """A table that scrolls sideways by itself on a narrow screen; columns of plain numbers are right-aligned."""
    body = [list(row) for row in rows]
    head = list(header)
    numeric = {i for i in range(len(head)) if body and all(i < len(row) and _is_number(row[i]) for row in body)}
    inner = tag(
        "table",
        {"class": classes or None},
        tag(
            "thead",
            None,
            tag("tr", None, [tag("th", {"scope": "col", **_side(i, numeric)}, c) for i, c in enumerate(head)]),
        ),
        tag("tbody", None, [tag("tr", None, [_cell(c, _side(i, numeric)) for i, c in enumerate(row)]) for row in body]),
    )
    return tag("div", {"class": "scroll"}, inner)


def _cell(cell: Html | str, side: Attributes) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else tag("td", side, cell)


def _is_number(cell: Html | str) -> bool:
    if isinstance(cell, Html):
        return cell.startswith('<td class="n')
    return cell.strip("-+0123456789.,:%es \N{MINUS SIGN}–★") == ""


def _side(column: int, numeric: set[int]) -> Attributes:
    return {"class": "n"} if column in numeric else {}


def details(summary: str, *children: Child, opened: bool = False) -> Html:
    """A part that is folded away until it is asked for."""
    return tag("details", {"open": opened}, tag("summary", None, summary), *children)


def fact(key: str, value: str) -> Html:
    """A term and its value, for a <dl>."""
    return tag("div", None, tag("dt", None, key), tag("dd", None, value))


def share_bar(share: float) -> Html:
    """A horizontal bar for a share between 0 and 1."""
    return tag("span", {"class": "share"}, tag("i", {"style": f"width:{100 * min(1.0, max(0.0, share)):.1f}%"}))


def spread(rows: list[Any], most: int) -> list[Any]:
    """At most `most` of the rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def number(value: object) -> float | None:
    """`value` as a finite float, or None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        amount = float(value)
    except OverflowError:
        return None
    return amount if math.isfinite(amount) else None


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
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4
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


_NAMES = {"f1": "F1", "mlm": "MLM", "nsp": "NSP", "sop": "SOP", "matthews": "Matthews", "roc": "ROC", "auc": "AUC"}


def title(key: object) -> str:
    """`words`, with a capital first letter."""
    said = words(key)
    return said[:1].upper() + said[1:]


def words(key: object) -> str:
    """A field's name as words: `dropped_by_reason` -> `dropped by reason`, `macro_f1` -> `macro F1`."""
    return " ".join(_NAMES.get(word, word) for word in str(key).split("_"))
