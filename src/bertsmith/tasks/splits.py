"""Which labelled rows a fine-tuning learns from, is chosen by, and is scored on."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.config import RowSource, TableConfig
from bertsmith.errors import DataError, UsageError
from bertsmith.runtime import derive_seed
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.batches import shuffled
from bertsmith.tasks.features import Ints
from bertsmith.tasks.partition import held_out
from bertsmith.tasks.records import TABLE_SUFFIXES, read_records, suffix_of
from bertsmith.tasks.row_sources import Table, tables_of
from bertsmith.tasks.tables import in_order, read_label_names


@dataclass(frozen=True)
class Splits:
    """Rows to train on, to choose the best checkpoint by, and to score at the end, with the labels they may have."""

    train: Sequence[Any]
    validation: Sequence[Any]
    test: Mapping[str, Sequence[Any]]
    labels: tuple[str, ...]
    columns: Columns
    """Where the tables keep what the task reads."""

    def scored(self) -> Mapping[str, Sequence[Any]]:
        """Split -> its rows, of splits that are scored at the end: the test splits, or else the validation rows."""
        return self.test or {"validation": self.validation}

    def training_digest(self) -> str:
        """Hash of the labels and of the rows that the weights depend on, in their order."""
        return rows_digest(self.labels, self.train, self.validation)

    def test_digests(self) -> dict[str, str]:
        """Hash of the rows of each test split."""
        return {name: rows_digest((), rows) for name, rows in self.test.items()}

    def repeated(self) -> dict[str, int]:
        """Split -> how many of its rows say the same as a training row; only splits that have any."""
        known = {row.content for row in self.train}
        splits = {"validation": self.validation, **self.test}
        counts = {name: sum(row.content in known for row in rows) for name, rows in splits.items()}
        return {name: count for name, count in counts.items() if count}

    def facts(self, task: Task[Any, Any]) -> dict[str, Any]:
        """The `data` of a start event."""
        counts = Counter(label for row in self.train for label in task.labels_of(row))
        return {
            "train_rows": len(self.train),
            "validation_rows": len(self.validation),
            "test_rows": sum(map(len, self.test.values())),
            "label_counts": {label: counts[label] for label in self.labels} if counts else {},
            "repeated_rows": self.repeated(),
        }


def read_splits(
    config: TableConfig,
    task: Task[Any, Any],
    *,
    seed: int,
    train: object = None,
    validation: object = None,
    test: Mapping[str, object] | None = None,
    test_share: float = 0.0,
    columns: Columns | None = None,
    known: Sequence[str] = (),
) -> Splits:
    """Read the rows that `config` names; tables given as `train` and `validation` go before its files, and `columns`
    before its mapping.

    Without test tables `test_share` of the rows is split off first, if any, and then without validation rows a share of
    those that are left. `known` labels, of a model that learns on, come first, and the rows' others after them. Raises
    `DataError` with file and line for what is wrong, such as a label in a test file that the training rows do not have.
    """
    columns = columns or columns_of(config)
    found = read_all(config, task, train=train, columns=columns, known=known)
    train_rows, groups, labels = found.rows, found.groups, found.labels
    test_rows: dict[str, Sequence[Any]] = {
        name: read_labelled(task, source, columns, labels) for name, source in (test or {}).items()
    }
    if not test_rows and test_share:
        train_rows, groups, test_rows["test"] = _held_out(train_rows, groups, test_share, seed, "test")
        task.check(test_rows["test"], labels, where=found.where)
    validation = config.validation if validation is None else validation
    if validation is None:
        train_rows, _, validation_rows = _held_out(train_rows, groups, config.validation_share, seed, "validation")
        task.check(validation_rows, labels, where=found.where)
    else:
        validation_rows = read_labelled(task, validation, columns, labels)
    return Splits(_for_trial(config, train_rows, seed), validation_rows, test_rows, labels, columns)


@dataclass(frozen=True)
class AllRows:
    """Rows to train on, before any are held out."""

    rows: list[Any]
    groups: list[str | None]
    """(rows,) what `group_column` says of each."""
    labels: tuple[str, ...]
    columns: Columns
    where: str | Path | None
    """The file that they are of, where it is one."""

    def fold(self, number: int, places: Ints, config: TableConfig, task: Task[Any, Any], *, seed: int) -> Splits:
        """Splits in which the rows of a fold are for testing; places: (rows,) the fold of each."""
        inside = [place == number for place in places.tolist()]
        tested = [row for row, is_in in zip(self.rows, inside, strict=True) if is_in]
        rest = [row for row, is_in in zip(self.rows, inside, strict=True) if not is_in]
        task.check(tested, self.labels, where=self.where)
        if config.validation is not None:
            validation = read_labelled(task, config.validation, self.columns, self.labels)
        else:
            groups = [group for group, is_in in zip(self.groups, inside, strict=True) if not is_in]
            rest, _, validation = _held_out(rest, groups, config.validation_share, seed, "validation")
            task.check(validation, self.labels, where=self.where)
        return Splits(_for_trial(config, rest, seed), validation, {"test": tested}, self.labels, self.columns)


def read_all(
    config: TableConfig,
    task: Task[Any, Any],
    *,
    train: object = None,
    columns: Columns | None = None,
    known: Sequence[str] = (),
) -> AllRows:
    """All rows that `config` names for training, or of the table given, with their groups and the labels to learn:
    those `known` before, and then the others.
    """
    columns = columns or columns_of(config)
    source = config.train if train is None else train
    if isinstance(source, str) and not source:
        raise UsageError("no rows to train on; set finetune.train to a file of labelled rows")
    tables = given_tables(source)
    read = [(table, _read(task, table, columns)) for table in tables]
    rows = [row for _, some in read for row in some]
    declared = config.labels
    if not declared and columns.label_names is not None:
        declared = read_label_names(columns.label_names)
    if declared and len(read) > 1:  # so that an error names the table
        for table, some in read:
            _check(task, table, some, declared)
    where = tables[0].path if len(tables) == 1 else None
    if known:
        fresh = declared or in_order({label for row in rows for label in task.labels_of(row)})
        labels = (*known, *(label for label in fresh if label not in known))
        for table, some in read:
            _check(task, table, some, labels)
    else:
        with tables[0].named():
            labels = task.labels_in(rows, where=where, declared=declared)
    groups: list[str | None] = [None] * len(rows)
    if config.group_column is not None:
        groups = [group for table, some in read for group in _groups(table, config, len(some))]
    return AllRows(rows, groups, labels, columns, where)


def given_tables(source: object) -> list[Table]:
    """A recipe's tables, or the one that a caller gives: a list is one of rows, a tuple of file names several."""
    if isinstance(source, str | RowSource):
        return tables_of(source)
    if isinstance(source, tuple) and all(isinstance(name, str) for name in source):
        return tables_of(source)
    return [Table(source)]


def _read(task: Task[Any, Any], table: Table, columns: Columns) -> list[Any]:
    with table.named():
        rows = task.read(table.source, columns, require_labels=True)
    if not rows:
        raise DataError("no rows; expected at least one", path=table.path)
    return rows


def _groups(table: Table, config: TableConfig, count: int) -> list[str | None]:
    """What the column says of each row; rows that it says nothing of stand alone."""
    column = config.group_column
    assert column is not None
    is_table = table.path is None or suffix_of(table.path) in TABLE_SUFFIXES
    if not is_table:
        raise DataError(f"group_column = {column!r}, but such a file has no columns; leave it out", path=table.path)
    values = [value for _, value in read_records(table.source, header=config.header, columns=(column,)).values(column)]
    if len(values) != count:
        raise DataError(f"column {column!r} has {len(values)} values for {count} rows", path=table.path)
    return [None if value is None or not str(value).strip() else str(value).strip() for value in values]


def _held_out(
    rows: list[Any], groups: list[str | None], share: float, seed: int, what: str
) -> tuple[list[Any], list[str | None], list[Any]]:
    """The others, their groups, and the rows held out."""
    numbered = list(range(len(rows)))
    held = set(held_out(rows, share, seed, groups=groups, what=what))
    others = [number for number in numbered if number not in held]
    return [rows[n] for n in others], [groups[n] for n in others], [rows[n] for n in numbered if n in held]


def _for_trial(config: TableConfig, rows: list[Any], seed: int) -> list[Any]:
    """All training rows, or `max_train_rows` of them."""
    if config.max_train_rows is None or len(rows) <= config.max_train_rows:
        return rows
    chosen = np.sort(shuffled(len(rows), derive_seed("max_train_rows", seed))[: config.max_train_rows])
    return [rows[number] for number in chosen.tolist()]


def columns_of(config: TableConfig) -> Columns:
    """The column mapping of a recipe."""
    return Columns(
        text=config.text_column,
        label=config.label_column,
        labels=config.label_columns,
        label_separator=config.label_separator,
        pair=config.pair_column,
        negative=config.negative_column,
        question=config.question_column,
        choices=config.choice_columns,
        header=config.header,
        label_names=config.label_names,
    )


def read_labelled(task: Task[Any, Any], source: object, columns: Columns, labels: Sequence[str]) -> list[Any]:
    """Rows of one or several tables, with labels that are known."""
    found = []
    for table in given_tables(source):
        rows = _read(task, table, columns)
        _check(task, table, rows, labels)
        found += rows
    return found


def _check(task: Task[Any, Any], table: Table, rows: Sequence[Any], labels: Sequence[str]) -> None:
    with table.named():
        task.check(rows, labels, where=table.path)


def rows_digest(labels: Sequence[str], *tables: Sequence[Any]) -> str:
    """Hash of labels and of all rows, in their order."""
    digest = hashlib.sha256(repr(labels).encode("utf-8", "surrogatepass"))
    for rows in tables:
        digest.update(f"{len(rows)} rows".encode())
        for row in rows:
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
