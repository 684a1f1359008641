"""Classification with any number of labels a text, none too: one binary decision a label, read at [CLS]."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from bertsmith.tasks.base import Bools, Columns, Labels
from bertsmith.tasks.calibration import Decisions
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.losses import ANY_OF_LABELS
from bertsmith.tasks.metrics import MULTILABEL_SCORES, multilabel_statistics, score_multilabel
from bertsmith.tasks.recorded import probabilities_in, recorded_text, texts_in
from bertsmith.tasks.resampling import Statistic
from bertsmith.tasks.rows import ClassesRow
from bertsmith.tasks.tables import check_labels, class_names, read_multilabel_rows
from bertsmith.tasks.text_task import TextTask
from bertsmith.tasks.texts import record_text
from bertsmith.tokenizer.encode import Tokenizer

THRESHOLD = 0.5
"""A label is given from this probability on."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """The labels that are more probable than not, in the model's order, and the probability of each."""

    labels: Labels
    probabilities: dict[str, float]


class Multilabel(TextTask[Labels, Labelling]):
    """Text -> labels. Loss: binary cross-entropy, mean over labels."""

    name = "multilabel"
    default_metric = "micro_f1"
    metrics = tuple(MULTILABEL_SCORES)
    problem_type = "multi_label_classification"
    outputs = ANY_OF_LABELS
    gives_probabilities = True

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[ClassesRow]:
        return read_multilabel_rows(
            source,
            text_column=columns.text,
            label_column=columns.label,
            label_columns=columns.labels,
            label_separator=columns.label_separator,
            pair_column=columns.pair,
            header=columns.header,
            label_names=columns.label_names,
            require_labels=require_labels,
        )

    def labels_in(self, rows: Sequence[ClassesRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        return class_names(rows, where=where, declared=declared)

    def check(self, rows: Sequence[ClassesRow], labels: Sequence[str], *, where: str | Path | None) -> None:
        check_labels(rows, labels, where=where)

    def encode(
        self, rows: Sequence[ClassesRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        targets = None if labels is None else _table([row.label or () for row in rows], labels).astype(np.float32)
        return self.features(rows, tokenizer, max_length, targets)

    def decode(
        self,
        rows: Sequence[ClassesRow],  # noqa: ARG002
        features: Features,  # noqa: ARG002
        outputs: Floats,
        labels: Sequence[str],
    ) -> list[Labelling]:
        answers = []
        for shares in expit(outputs.astype(np.float64)).tolist():
            probabilities = dict(zip(labels, shares, strict=True))
            given = tuple(label for label, share in probabilities.items() if share >= THRESHOLD)
            answers.append(Labelling(given, probabilities))
        return answers

    def answer_of(self, row: ClassesRow, prediction: Labels) -> Labelling:  # noqa: ARG002
        return Labelling(prediction, dict.fromkeys(prediction, 1.0))

    def score(
        self, rows: Sequence[ClassesRow], answers: Sequence[Labelling], labels: Sequence[str]
    ) -> dict[str, float]:
        return score_multilabel(*_tables(rows, answers, labels))

    def statistics(
        self, rows: Sequence[ClassesRow], answers: Sequence[Labelling], labels: Sequence[str]
    ) -> dict[str, Statistic]:
        return multilabel_statistics(*_tables(rows, answers, labels))

    def right(self, rows: Sequence[ClassesRow], answers: Sequence[Labelling]) -> Bools:
        pairs = zip(rows, answers, strict=True)
        return np.array([set(row.label or ()) == set(answer.labels) for row, answer in pairs], dtype=np.bool_)

    def decisions(self, rows: Sequence[ClassesRow], answers: Sequence[Labelling]) -> Decisions:
        """Each label of each row is decided on its own: it is there, or it is not."""
        found = [
            (max(share, 1 - share), (label in (row.label or ())) == (label in answer.labels))
            for row, answer in zip(rows, answers, strict=True)
            for label, share in answer.probabilities.items()
        ]
        sure, right = [share for share, _ in found], [is_right for _, is_right in found]
        return Decisions(np.array(sure, dtype=np.float64), np.array(right, dtype=np.bool_))

    def predictions_of(self, answer: Labelling) -> Labels:
        return answer.labels

    def record(self, number: int, row: ClassesRow, answer: Labelling) -> dict[str, Any]:
        return {
            **record_text(number, row),
            "labels": row.label,
            "predictions": answer.labels,
            "probabilities": {label: round(share, 6) for label, share in answer.probabilities.items()},
        }

    def of_record(self, record: Mapping[str, Any]) -> tuple[ClassesRow, Labelling]:
        row = recorded_text(record, texts_in(record, "labels"))
        return row, Labelling(texts_in(record, "predictions"), probabilities_in(record))

    def told(self, row: ClassesRow, answer: Labelling) -> tuple[str, str]:
        return ", ".join(row.label or ()), ", ".join(answer.labels)


def _tables(
    rows: Sequence[ClassesRow], answers: Sequence[Labelling], labels: Sequence[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return _table([row.label or () for row in rows], labels), _table([answer.labels for answer in answers], labels)


def _table(of_rows: Sequence[Labels], labels: Sequence[str]) -> np.ndarray[Any, Any]:
    """(rows, labels) bool: which labels each row has."""
    index = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(of_rows), len(labels)), dtype=np.bool_)
    for number, own in enumerate(of_rows):
        table[number, [index[label] for label in own]] = True
    return table
