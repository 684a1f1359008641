"""Documents that hold rows of evaluation files: a model that has read the test scores too well.

A row is found by any run of 13 words (20 Chinese characters) that it shares with a document, case and punctuation
aside, as GPT-3's authors looked for it (Brown et al. 2020, appendix C: runs of 8 to 13 words, by the length of a data
set's rows). A shorter row is found as a whole. Rows under 8 words (10 Chinese characters) say too little to be looked
for, and are counted. A document with one such run is dropped whole: its other sentences may give the row away, too.
"""

import csv
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertsmith.config import Column, EvaluationFiles
from bertsmith.corpus.files import UNREADABLE, SourceFile, find_files
from bertsmith.corpus.grams import Hashes, gram_hashes, growing_grams, token_hashes
from bertsmith.corpus.sentences import language_of
from bertsmith.errors import DataError

EVALUATION = "evaluation: "
"""Before the names of evaluation files among a corpus's inputs."""
_LONGEST = {"en": 13, "zh": 20}
_SHORTEST = {"en": 8, "zh": 10}
_START = min(_SHORTEST.values())
_FILTER_BITS = 22
_FILTER_SHIFT = np.uint64(64 - _FILTER_BITS)


@dataclass(frozen=True)
class Overlap:
    """Runs of tokens of evaluation rows; picklable, some 16 bytes a run."""

    runs: dict[int, Hashes]
    """Length -> hashes of the runs of so many tokens, ascending."""
    starts: Hashes
    """Hashes of the first 8 tokens of every run, ascending: without one of them a text holds no run."""
    num_rows: int = 0
    """Rows that are looked for."""
    num_short_rows: int = 0
    """Rows that are too short to be looked for."""

    @classmethod
    def from_rows(cls, rows: Iterable[str]) -> "Overlap":
        """Of texts at hand."""
        runs: dict[int, list[Hashes]] = {}
        starts = [np.empty(0, np.uint64)]
        num_rows = num_short_rows = 0
        for row in rows:
            tokens = token_hashes(row)
            language = language_of(row)
            if len(tokens) < _SHORTEST[language]:
                num_short_rows += 1
                continue
            num_rows += 1
            length = min(len(tokens), _LONGEST[language])
            runs.setdefault(length, []).append(gram_hashes(tokens, length))
            starts.append(gram_hashes(tokens, _START)[: len(tokens) - length + 1])
        unique = {length: np.unique(np.concatenate(parts)) for length, parts in sorted(runs.items())}
        return cls(unique, np.unique(np.concatenate(starts)), num_rows, num_short_rows)

    @classmethod
    def from_files(cls, files: Sequence[EvaluationFiles], roots: Sequence[Path] | None = None) -> "Overlap":
        """Of the files that a recipe names. Raises `DataError` for one that is missing, or that cannot be read."""
        return cls.from_rows(
            row for one in files for file in find_files(one.paths, roots) for row in _rows(file, one.columns)
        )

    def found_in(self, text: str) -> bool:
        """Whether the text holds a run of a row."""
        tokens = token_hashes(text)
        if len(tokens) < _START or not self.runs:
            return False
        grams = gram_hashes(tokens, _START)
        if not _any_in(grams[self._filter[grams >> _FILTER_SHIFT]], self.starts):
            return False
        grown = enumerate(growing_grams(tokens, max(self.runs)), start=1)
        return any(_any_in(grams, self.runs[length]) for length, grams in grown if length in self.runs)

    @functools.cached_property
    def _filter(self) -> npt.NDArray[np.bool_]:
        """(2**22,): whether some start's hash begins with these bits. Few of a text's hashes need a closer look."""
        begins = np.zeros(2**_FILTER_BITS, np.bool_)
        begins[self.starts >> _FILTER_SHIFT] = True
        return begins


def _any_in(hashes: Hashes, wanted: Hashes) -> bool:
    """Whether any of `hashes` is one of `wanted`, which are ascending and not none."""
    places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
    return bool((wanted[places] == hashes).any())


def overlap_inputs(files: Sequence[EvaluationFiles]) -> dict[str, str]:
    """Name and digest of each file that `Overlap.from_files` reads."""
    return {EVALUATION + file.name: file.digest() for one in files for file in find_files(one.paths)}


def _rows(file: SourceFile, columns: Sequence[Column]) -> Iterator[str]:
    """The texts of a file, one by one; `columns` chooses among the columns of a table or the fields of an object."""
    path = file.path
    try:
        with file.open_content() as opened:
            text = opened.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"not UTF-8 (byte 0x{byte:02x} at {error.start}); convert it with iconv", path=path) from error
    except UNREADABLE as error:
        raise DataError(f"cannot be read: {error}", path=path) from error
    lines = text.split("\n")
    if file.suffix == ".csv":
        yield from _chosen_cells(csv.reader(lines), columns, path)
    elif file.suffix == ".tsv":
        yield from _chosen_cells((line.rstrip("\r").split("\t") for line in lines), columns, path)
    elif file.suffix == ".jsonl":
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield from _chosen_fields(_parsed(line, path, number), columns, path, number)
    elif file.suffix == ".json":
        yield from _texts_in(_parsed(text, path, None))
    else:
        yield from lines


def _chosen_cells(rows: Iterator[list[str]], columns: Sequence[Column], path: str) -> Iterator[str]:
    numbers = [column for column in columns if isinstance(column, int)]
    names = [column for column in columns if isinstance(column, str)]
    if names:
        header = next(rows, [])
        missing = [name for name in names if name not in header]
        if missing:
            raise DataError(f"no column {missing[0]!r}; columns: {', '.join(header)}", path=path, line=1)
        numbers += [header.index(name) for name in names]
    for row in rows:
        yield from row if not columns else (row[number] for number in numbers if number < len(row))


def _chosen_fields(value: Any, columns: Sequence[Column], path: str, line: int) -> Iterator[str]:
    if not columns:
        yield from _texts_in(value)
        return
    for column in columns:
        if not isinstance(value, dict) or column not in value:
            fields = ", ".join(value) if isinstance(value, dict) else "none"
            raise DataError(f"no field {column!r}; fields here: {fields}", path=path, line=line)
        yield from _texts_in(value[column])


def _parsed(text: str, path: str, line: int | None) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"not JSON ({error})", path=path, line=line) from error


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)
