"""Texts for vectors: a table of pairs or triples, with or without a score, or plain sentences."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bertsmith.tasks.records import (
    Column,
    Place,
    collect,
    located,
    numbered_lines,
    read_records,
    read_text,
    suffix_of,
)
from bertsmith.tasks.rows import EmbedRow
from bertsmith.tasks.tables import number_cell, text_cell

_USUAL_LABEL = "label"


def read_embed_rows(
    source: object,
    *,
    text_column: Column = "text",
    pair_column: Column | None = None,
    negative_column: Column | None = None,
    label_column: Column = _USUAL_LABEL,
    header: bool = True,
    require_texts: bool = True,
) -> list[EmbedRow]:
    """Read a text a row, and what stands beside it: all rows of a table have it, or none.

    A .txt file and a list of strings are plain sentences. A table has the columns that are named here; numbers, how
    alike the two texts are, may be left out where nobody named their column. With `require_texts` an empty text is a
    `DataError`.
    """
    cell = partial(text_cell, required=require_texts)
    if isinstance(source, str | Path) and suffix_of(source) == ".txt":
        path = located(source)
        return [EmbedRow(text, line) for line, text in numbered_lines(read_text(path)) if text.strip()]
    if isinstance(source, list | tuple) and source and all(isinstance(text, str) for text in source):
        return collect(enumerate(source, start=1), lambda row: EmbedRow(cell(row[1], 0, Place(), row[0]), row[0]))
    columns = [column for column in (text_column, pair_column, negative_column) if column is not None]
    records = read_records(source, header=header, columns=(*columns, label_column))
    place = records.place

    def row(found: Sequence[tuple[int, object]]) -> EmbedRow:
        (line, label), *texts = found
        given = dict(zip(columns, (text for _, text in texts), strict=True))
        text, pair, negative = (
            None if column is None else cell(given[column], column, place, line)
            for column in (text_column, pair_column, negative_column)
        )
        assert text is not None, "text_column is always given"
        score = number_cell(label, place, line, required=False)
        return EmbedRow(text, line, pair, negative, score)

    labels = records.values(label_column, optional=label_column == _USUAL_LABEL)
    rows = collect(zip(labels, *(records.values(column) for column in columns), strict=True), row)
    scored = [row.label is not None for row in rows]
    if any(scored) and not all(scored):
        first = rows[scored.index(False)]
        raise place.error("no number, where other rows have one; fill it in or remove the row", first.line)
    return rows
