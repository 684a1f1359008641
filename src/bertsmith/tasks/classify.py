"""Classification of texts or pairs of them: one label a row, read at [CLS] through the pooler (Devlin et al. 2018,
figure 4a and b).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from bertsmith.tasks.base import Bools, Columns, Labels
from bertsmith.tasks.calibration import Decisions
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.losses import ONE_OF_CLASSES
from bertsmith.tasks.metrics import (
    BINARY_SCORES,
    CLASSIFICATION_SCORES,
    classification_statistics,
    score_classification,
)
from bertsmith.tasks.recorded import probabilities_in, recorded_text, text_in
from bertsmith.tasks.resampling import Statistic
from bertsmith.tasks.roc import class_table, roc_auc, roc_auc_statistic
from bertsmith.tasks.rows import ClassRow
from bertsmith.tasks.tables import check_labels, class_names, read_text_rows
from bertsmith.tasks.text_task import TextTask
from bertsmith.tasks.texts import record_text
from bertsmith.tokenizer.encode import Tokenizer

ROC_AUC = "roc_auc"


@dataclass(frozen=True, slots=True)
class Classification:
    """The most probable label, and the probability of each."""

    label: str
    probabilities: dict[str, float]


class Classify(TextTask[str, Classification]):
    """Text -> label. Loss: cross-entropy over labels."""

    name = "classify"
    default_metric = "macro_f1"
    metrics = (*CLASSIFICATION_SCORES, *BINARY_SCORES, ROC_AUC)
    outputs = ONE_OF_CLASSES
    gives_probabilities = True

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[ClassRow]:
        return read_text_rows(
            source,
            text_column=columns.text,
            label_column=columns.label,
            pair_column=columns.pair,
            header=columns.header,
            label_names=columns.label_names,
            require_labels=require_labels,
        )

    def encode(
        self, rows: Sequence[ClassRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        targets = None
        if labels is not None:
            index = {label: number for number, label in enumerate(labels)}
            targets = np.array([index[row.label] for row in rows if row.label is not None], dtype=np.int64)
        return self.features(rows, tokenizer, max_length, targets)

    def decode(
        self,
        rows: Sequence[ClassRow],  # noqa: ARG002
        features: Features,  # noqa: ARG002
        outputs: Floats,
        labels: Sequence[str],
    ) -> list[Classification]:
        chosen = outputs.argmax(axis=-1).tolist()
        probabilities = softmax(outputs.astype(np.float64), axis=-1).tolist()
        return [
            Classification(labels[best], dict(zip(labels, row, strict=True)))
            for best, row in zip(chosen, probabilities, strict=True)
        ]

    def score(
        self, rows: Sequence[ClassRow], answers: Sequence[Classification], labels: Sequence[str]
    ) -> dict[str, float]:
        scores = score_classification(_gold(rows), [answer.label for answer in answers], labels)
        return scores | {ROC_AUC: roc_auc(*_numbers(rows, answers, labels))}

    def statistics(
        self, rows: Sequence[ClassRow], answers: Sequence[Classification], labels: Sequence[str]
    ) -> dict[str, Statistic]:
        of_classes = classification_statistics(_gold(rows), [answer.label for answer in answers], labels)
        return of_classes | {ROC_AUC: roc_auc_statistic(*_numbers(rows, answers, labels))}

    def right(self, rows: Sequence[ClassRow], answers: Sequence[Classification]) -> Bools:
        return np.array([row.label == answer.label for row, answer in zip(rows, answers, strict=True)], dtype=np.bool_)

    def decisions(self, rows: Sequence[ClassRow], answers: Sequence[Classification]) -> Decisions:
        sure = [answer.probabilities.get(answer.label, 0.0) for answer in answers]
        return Decisions(np.array(sure, dtype=np.float64), self.right(rows, answers))

    def labels_in(self, rows: Sequence[ClassRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        return class_names(rows, where=where, declared=declared)

    def metrics_of(self, rows: Sequence[ClassRow], labels: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(metric for metric in self.metrics if len(labels) == 2 or metric not in BINARY_SCORES)

    def check(self, rows: Sequence[ClassRow], labels: Sequence[str], *, where: str | Path | None) -> None:
        check_labels(rows, labels, where=where)

    def record(self, number: int, row: ClassRow, answer: Classification) -> dict[str, Any]:
        return {
            **record_text(number, row),
            "label": row.label,
            "prediction": answer.label,
            "probabilities": {label: round(share, 6) for label, share in answer.probabilities.items()},
        }

    def of_record(self, record: Mapping[str, Any]) -> tuple[ClassRow, Classification]:
        row = recorded_text(record, text_in(record, "label"))
        return row, Classification(text_in(record, "prediction"), probabilities_in(record))

    def answer_of(self, row: ClassRow, prediction: str | dict[str, float]) -> Classification:  # noqa: ARG002
        """`prediction` is a label, or the probability of each."""
        if isinstance(prediction, str):
            return Classification(prediction, {prediction: 1.0})
        return Classification(max(prediction, key=lambda label: prediction[label]), prediction)

    def told(self, row: ClassRow, answer: Classification) -> tuple[str, str]:
        return row.label or "", answer.label

    def predictions_of(self, answer: Classification) -> Labels:
        return (answer.label,)


def _numbers(
    rows: Sequence[ClassRow], answers: Sequence[Classification], labels: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(rows,) class numbers, and (rows, classes) probabilities."""
    index = {label: number for number, label in enumerate(labels)}
    truth = np.array([index[label] for label in _gold(rows)], dtype=np.int64)
    return truth, class_table(labels, [answer.probabilities for answer in answers])


def _gold(rows: Sequence[ClassRow]) -> list[str]:
    return [row.label for row in rows if row.label is not None]
