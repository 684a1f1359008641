"""Which labelled rows a fine-tuning learns from, is chosen by, and is scored on."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.config import TableConfig
from bertsmith.errors import DataError, UsageError
from bertsmith.runtime import derive_seed
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.batches import shuffled
from bertsmith.tasks.tables import read_label_names, split_rows


@dataclass(frozen=True)
class Splits:
    """Rows to train on, to choose the best checkpoint by, and to score at the end, with the labels they may have."""

    train: Sequence[Any]
    validation: Sequence[Any]
    test: Mapping[str, Sequence[Any]]
    labels: tuple[str, ...]
    columns: Columns
    """Where the tables keep what the task reads."""

    def training_digest(self) -> str:
        """Hash of the labels and of the rows that the weights depend on, in their order."""
        return _digest(self.labels, self.train, self.validation)

    def test_digests(self) -> dict[str, str]:
        """Hash of the rows of each test split."""
        return {name: _digest((), rows) for name, rows in self.test.items()}

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
    columns: Columns | None = None,
) -> Splits:
    """Read the rows that `config` names; tables given as `train` and `validation` go before its files, and `columns`
    before its mapping.

    Without validation rows a share of the training rows is split off. Raises `DataError` with file and line for what is
    wrong, such as a label in a test file that the training rows do not have.
    """
    columns = columns or columns_of(config)
    train = config.train if train is None else train
    if isinstance(train, str) and not train:
        raise UsageError("no rows to train on; set finetune.train to a file of labelled rows")
    validation = config.validation if validation is None else validation

    declared = config.labels
    if not declared and columns.label_names is not None:
        declared = read_label_names(columns.label_names)
    train_rows = task.read(train, columns, require_labels=True)
    labels = task.labels_in(train_rows, where=_path(train), declared=declared)
    if validation is None:
        train_rows, validation_rows = split_rows(train_rows, config.validation_share, seed)
        task.check(validation_rows, labels, where=_path(train))
    else:
        validation_rows = _read_labelled(task, validation, columns, labels)
    if config.max_train_rows is not None and len(train_rows) > config.max_train_rows:
        chosen = np.sort(shuffled(len(train_rows), derive_seed("max_train_rows", seed))[: config.max_train_rows])
        train_rows = [train_rows[number] for number in chosen.tolist()]
    test_rows = {name: _read_labelled(task, source, columns, labels) for name, source in (test or {}).items()}
    return Splits(train_rows, validation_rows, test_rows, labels, columns)


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


def _read_labelled(task: Task[Any, Any], source: object, columns: Columns, labels: Sequence[str]) -> list[Any]:
    rows = task.read(source, columns, require_labels=True)
    if not rows:
        raise DataError("no rows; expected at least one", path=_path(source))
    task.check(rows, labels, where=_path(source))
    return rows


def _digest(labels: Sequence[str], *tables: Sequence[Any]) -> str:
    digest = hashlib.sha256(repr(labels).encode("utf-8", "surrogatepass"))
    for rows in tables:
        digest.update(f"{len(rows)} rows".encode())
        for row in rows:
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _path(source: object) -> str | Path | None:
    return source if isinstance(source, str | Path) else None
