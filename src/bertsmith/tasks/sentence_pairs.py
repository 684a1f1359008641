"""Pairs of sentences, of which the second follows the first or is from elsewhere: tables, and a corpus's own pairs.

A `.txt` has a sentence a line and blank lines between documents. Each sentence but a document's last makes one row:
half of them with the sentence after it, half with one from another document (Devlin et al. 2018, section 3.1, task 2).
Which, and with what, is a function of the row's number alone, so that a test file is the same for every model.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from bertsmith.errors import DataError
from bertsmith.examples.draws import below, hash_counters
from bertsmith.runtime import derive_seed
from bertsmith.tasks.base import Columns
from bertsmith.tasks.records import Place, collect, find_data_file, numbered_lines, read_text
from bertsmith.tasks.rows import ClassRow
from bertsmith.tasks.tables import read_text_rows

IS_NEXT, NOT_NEXT = "is_next", "not_next"
PAIR_COLUMN = "pair"
_MEANS = {"0": IS_NEXT, IS_NEXT: IS_NEXT, "1": NOT_NEXT, NOT_NEXT: NOT_NEXT}
"""As BERT numbers them."""


@dataclass(frozen=True, slots=True)
class CorpusPair(ClassRow):
    """Two sentences and whether the second follows."""

    document: str = ""

    @property
    def group(self) -> str:  # type: ignore[override]
        return self.document


def read_sentence_pairs(source: object, columns: Columns, *, require_labels: bool) -> list[ClassRow]:
    """Rows of a table, or those that a .txt makes; `DataError` with file and line."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() == ".txt":
        return list(_corpus_pairs(find_data_file(source)))
    rows = read_text_rows(
        source,
        text_column=columns.text,
        label_column=columns.label,
        pair_column=PAIR_COLUMN if columns.pair is None else columns.pair,
        header=columns.header,
        require_labels=require_labels,
    )
    place = Place(find_data_file(source) if isinstance(source, str | Path) else None)

    def told(row: ClassRow) -> ClassRow:
        if row.label is None:
            return row
        if (label := _MEANS.get(row.label.lower())) is None:
            raise place.error(f"label {row.label!r}; expected 0 or is_next, 1 or not_next", row.line)
        return replace(row, label=label)

    return collect(rows, told)


def _corpus_pairs(path: Path) -> list[CorpusPair]:
    documents: list[list[tuple[int, str]]] = [[]]
    for line, text in numbered_lines(read_text(path)):
        if text.strip():
            documents[-1].append((line, text.strip()))
        elif documents[-1]:
            documents.append([])
    documents = [document for document in documents if document]
    if len(documents) < 2 or max(map(len, documents)) < 2:
        raise DataError(
            f"{len(documents)} documents, the longest of {max(map(len, documents))} sentences; expected a sentence a "
            "line and blank lines between documents, two of them at least",
            path=path,
        )
    sentences = [text for document in documents for _, text in document]
    ends = np.cumsum([len(document) for document in documents])
    rows: list[CorpusPair] = []
    key = np.uint64(derive_seed("next-sentence"))
    for document, end in zip(documents, ends.tolist(), strict=True):
        start = end - len(document)
        for (line, text), (_, following) in pairwise(document):
            bits = hash_counters(key, np.array([2 * len(rows), 2 * len(rows) + 1]))
            label, other = IS_NEXT, following
            if bits[0] >> np.uint64(63):
                drawn = int(below(bits[1:], np.array([len(sentences) - len(document)]))[0])
                label, other = NOT_NEXT, sentences[drawn if drawn < start else drawn + len(document)]
            rows.append(CorpusPair(text, label, line, other, document=f"document at line {document[0][0]}"))
    return rows
