"""Tables for a terminal, a page, a paper or a spreadsheet, from the same rows."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FORMATS = ("text", "markdown", "latex", "csv")

_WITH_COMMAS = re.compile(r"\d{1,3}(,\d{3})+")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class PaperTable:
    """A heading, columns, rows of text; the first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    is_text: bool = False
    """Columns after the first hold words, and not numbers."""


def written(tables: Sequence[PaperTable], form: str) -> str:
    """All tables in one of `FORMATS`, what they say escaped as the format wants it."""
    writers: dict[str, Callable[[PaperTable], str]] = {
        "text": _text,
        "markdown": _markdown,
        "latex": _latex,
        "csv": _csv,
    }
    return "\n".join(writers[form](table) for table in tables)


def _text(table: PaperTable) -> str:
    lines = [tuple(" ".join(cell.split()) for cell in line) for line in (table.columns, *table.rows)]
    widths = [max(_width(line[place]) for line in lines) for place in range(len(table.columns))]
    told = []
    for line in lines:
        places = enumerate(zip(line, widths, strict=True))
        cells = [_padded(cell, width, right=place > 0 and not table.is_text) for place, (cell, width) in places]
        told.append("  ".join(cells).rstrip())
    return "\n".join([table.title, *told, *table.notes, ""])


def _markdown(table: PaperTable) -> str:
    def cell(text: str) -> str:
        plain = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
        return plain.replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*").replace("`", "\\`")

    head = "| " + " | ".join(map(cell, table.columns)) + " |"
    rule = "|" + "|".join("---" if place == 0 or table.is_text else "---:" for place in range(len(table.columns))) + "|"
    rows = ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows]
    notes = [f"\n{cell(note)}" for note in table.notes]
    return "\n".join([f"**{cell(table.title)}**", "", head, rule, *rows, *notes, ""])


def _latex(table: PaperTable) -> str:
    def cell(text: str) -> str:
        return "".join(_LATEX.get(sign, sign) for sign in text.replace("\n", " "))

    lines = [
        f"% {table.title}".replace("\n", " "),
        r"\begin{tabular}{l" + ("l" if table.is_text else "r") * (len(table.columns) - 1) + "}",
        r"\toprule",
        " & ".join(map(cell, table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {note}".replace("\n", " ") for note in table.notes),
        "",
    ]
    return "\n".join(lines)


def _csv(table: PaperTable) -> str:
    """The title is a first column, so that all tables stand in one file. Numbers have no commas; another cell that a
    spreadsheet would take for a formula gets a quote before it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", *map(_harmless, table.columns)])
    writer.writerows([_harmless(table.title), *map(_harmless, row)] for row in table.rows)
    return file.getvalue()


def _harmless(cell: str) -> str:
    if _WITH_COMMAS.fullmatch(cell):
        return cell.replace(",", "")
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
    return cell


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else not unicodedata.combining(sign) for sign in text)


def _padded(text: str, width: int, *, right: bool) -> str:
    room = " " * (width - _width(text))
    return room + text if right else text + room
