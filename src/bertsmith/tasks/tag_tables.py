"""Sentences with a label on each word: CoNLL, tables with lists of words and of labels, and texts with spans.

Whatever is wrong is a `DataError` with file and line.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeGuard

from bertsmith.tasks.metrics import are_entities, orphans
from bertsmith.tasks.records import (
    Column,
    Place,
    Records,
    collect,
    in_short,
    located,
    numbered_lines,
    read_records,
    read_text,
    suffix_of,
)
from bertsmith.tasks.rows import TaggedRow
from bertsmith.tasks.spans import Entity, tags_of
from bertsmith.tasks.tables import class_cell, kind_of, read_label_names
from bertsmith.tasks.words import split_words

_log = logging.getLogger("bertsmith.tasks")

_TABLE_SUFFIXES = (".jsonl", ".parquet", ".csv")


def read_tagged_rows(
    source: object,
    *,
    words_column: Column = "words",
    labels_column: Column = "labels",
    text_column: Column = "text",
    entities_column: Column = "entities",
    label_names: str | Path | None = None,
    require_labels: bool = True,
) -> list[TaggedRow]:
    """Read sentences with a label on each word.

    A file other than .jsonl, .parquet and .csv is CoNLL: tabs, or else spaces, between columns; the word is the first
    and the label the last, unless their columns are numbers; blank lines end sentences; lines of -DOCSTART- are
    skipped. A list holds dicts, pairs (words, labels), or, without `require_labels`, sequences of words.

    A table whose `text_column` holds text has spans: entities `{"start", "end", "label"}` or `[start, end, label]`, in
    characters, `end` not included. The text is split into words as for prediction. A span that begins or ends inside a
    word is widened to the whole word, with a warning that names the first ten rows.
    """
    names = read_label_names(label_names) if label_names is not None else None
    if isinstance(source, str | Path) and suffix_of(source) not in _TABLE_SUFFIXES:
        path = located(source)
        rows, place = _read_conll(path, words_column, labels_column, names, require_labels=require_labels), Place(path)
    else:
        if isinstance(source, list | tuple):
            source = [(row,) if _is_words(row) else row for row in source]
        columns = (words_column, labels_column, text_column, entities_column)
        records = read_records(source, header=True, columns=columns)
        place = records.place
        if records.has(text_column) and all(isinstance(text, str) for _, text in records.values(text_column)):
            return _rows_of_spans(records, text_column, entities_column, require_labels=require_labels)
        rows = _rows_of_lists(records, words_column, labels_column, names, require_labels=require_labels)
    _tell_of_orphans(rows, place)
    return rows


def _read_conll(
    path: str | Path,
    words_column: Column,
    labels_column: Column,
    names: Sequence[str] | None,
    *,
    require_labels: bool,
) -> list[TaggedRow]:
    """Every line is looked at before the first wrong one is told of."""
    place = Place(path)
    numbered = numbered_lines(read_text(path))
    lines = [(line, "" if text.startswith("-DOCSTART-") else text) for line, text in numbered]
    table = [(line, text.split("\t") if "\t" in text else text.split()) for line, text in lines if text.strip()]
    if not table:
        raise place.error("no sentences; expected a word and its label a line")
    first_line, width = table[0][0], len(table[0][1])
    if width < 2 and require_labels:
        raise place.error("one column; expected a word, a tab or space, and its label", first_line)
    word_at = words_column if isinstance(words_column, int) else 0
    label_at = labels_column if isinstance(labels_column, int) else width - 1
    if beyond := [column for column in (word_at, label_at) if column >= width]:
        raise place.error(f"no column {beyond[0]} in a line of {width}; columns are counted from 0", first_line)

    def word(found: tuple[int, list[str]]) -> tuple[int, tuple[str, str | None]]:
        line, fields = found
        if len(fields) != width:
            raise place.error(f"{len(fields)} columns, but line {first_line} has {width}; expected the same", line)
        if not fields[word_at].strip():
            raise place.error("the word is empty; expected a word, a tab or space, and its label", line)
        label = class_cell(fields[label_at], names, place, line, required=True) if width > 1 else None
        return line, (fields[word_at], label)

    words = dict(collect(table, word))
    rows: list[TaggedRow] = []
    for is_sentence, some in groupby(lines, key=lambda numbered: bool(numbered[1].strip())):
        if is_sentence:
            numbers = [line for line, _ in some]
            texts, labels = zip(*(words[line] for line in numbers), strict=True)
            rows.append(TaggedRow(texts, labels if width > 1 else None, numbers[0]))
    return rows


def _rows_of_lists(
    records: Records, words_column: Column, labels_column: Column, names: Sequence[str] | None, *, require_labels: bool
) -> list[TaggedRow]:
    place = records.place

    def row(found: tuple[tuple[int, object], tuple[int, object]]) -> TaggedRow:
        (line, words), (_, labels) = found
        if not _is_words(words) or not words:
            raise place.error(f"column {words_column!r} is {kind_of(words)}; expected a list of words", line)
        tags: tuple[str, ...] | None = None
        if labels is not None or require_labels:
            if not isinstance(labels, Sequence) or isinstance(labels, str):
                raise place.error(f"column {labels_column!r} is {kind_of(labels)}; expected a list of labels", line)
            if len(labels) != len(words):
                raise place.error(f"{len(words)} words but {len(labels)} labels; expected one label a word", line)
            tags = tuple(str(class_cell(label, names, place, line, required=True)) for label in labels)
        return TaggedRow(tuple(words), tags, line)

    columns = zip(records.values(words_column), records.values(labels_column, optional=not require_labels), strict=True)
    return collect(columns, row)


def _rows_of_spans(
    records: Records, text_column: Column, entities_column: Column, *, require_labels: bool
) -> list[TaggedRow]:
    place, widened = records.place, []

    def row(found: tuple[tuple[int, object], tuple[int, object]]) -> TaggedRow:
        (line, text), (_, listed) = found
        assert isinstance(text, str), "looked at before"
        if require_labels and not text.strip():
            raise place.error(f"the text in column {text_column!r} is empty; remove the row or fill it in", line)
        if listed is None and not require_labels:
            return TaggedRow(tuple(split_words(text)), None, line)
        if isinstance(listed, str) or not isinstance(listed, Sequence):
            raise place.error(f"column {entities_column!r} is {kind_of(listed)}; expected a list of entities", line)
        try:
            words, tags, is_widened = tags_of(text, [_entity(one, place, line) for one in listed])
        except ValueError as error:
            raise place.error(str(error), line) from error
        if is_widened:
            widened.append(line)
        return TaggedRow(words, tags, line)

    listed = records.values(entities_column, optional=not require_labels)
    rows = collect(zip(records.values(text_column), listed, strict=True), row)
    if widened:
        where = "" if place.path is None else f"{place.path}: "
        told = f"{len(widened):,} rows have an entity that begins or ends inside a word"
        _log.warning("%s%s, and are read with the whole word: %s", where, told, in_short(widened))
    return rows


def _entity(given: object, place: Place, line: int) -> Entity:
    if isinstance(given, Mapping):
        found: Sequence[object] = [given.get(key) for key in ("start", "end", "label")]
    else:
        found = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if len(found) != 3 or not all(isinstance(border, int) and not isinstance(border, bool) for border in found[:2]):
        raise place.error(
            f'entity {str(given)[:60]!r} is not {{"start": 0, "end": 5, "label": "NAME"}} nor [0, 5, "NAME"]', line
        )
    start, end, label = found
    assert isinstance(start, int), "looked at above"
    assert isinstance(end, int), "looked at above"
    return Entity(start, end, str(class_cell(label, None, place, line, required=True)))


def _tell_of_orphans(rows: Sequence[TaggedRow], place: Place) -> None:
    """Warn of tags that go on with an entity that never began, where most entities begin with B."""
    names = {label for row in rows for label in row.labels or ()}
    if not are_entities(sorted(names)):
        return
    found = [
        row.line + number * (place.path is not None and suffix_of(place.path) not in _TABLE_SUFFIXES)
        for row in rows
        for number in orphans(row.labels or ())
    ]
    begun = sum(label[:1] in "BS" for row in rows for label in row.labels or ())
    if 0 < len(found) < begun:
        where = "" if place.path is None else f"{place.path}: "
        told = f"{len(found):,} tags go on with an entity that has not begun"
        _log.warning("%s%s, and are read as its beginning, as seqeval does: %s", where, told, in_short(found))


def _is_words(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(word, str) for word in value)
