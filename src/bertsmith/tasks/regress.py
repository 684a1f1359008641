"""Regression: a number for a text or a pair of texts, read at [CLS] through the pooler (Devlin et al. 2018, STS-B)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.base import Columns, Labels
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.losses import NUMBER
from bertsmith.tasks.number_metrics import NUMBER_SCORES, SMALLER_IS_BETTER, number_statistics, score_numbers
from bertsmith.tasks.recorded import number_in, recorded_text
from bertsmith.tasks.resampling import Statistic
from bertsmith.tasks.rows import RatedRow
from bertsmith.tasks.tables import read_rated_rows
from bertsmith.tasks.text_task import TextTask
from bertsmith.tasks.texts import record_text
from bertsmith.tokenizer.encode import Tokenizer

OUTPUT = "value"
"""What the head's one output is called in config.json."""


@dataclass(frozen=True, slots=True)
class Rating:
    """The number that the model gives."""

    value: float


class Regress(TextTask[float, Rating]):
    """Text -> number. Loss: squared error."""

    name = "regress"
    default_metric = "spearman"
    metrics = tuple(NUMBER_SCORES)
    smaller_is_better = SMALLER_IS_BETTER
    problem_type = "regression"
    outputs = NUMBER
    outputs_are_classes = False

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[RatedRow]:
        if columns.label_names is not None:
            raise UsageError("label_names is for classes; numbers have none")
        return read_rated_rows(
            source,
            text_column=columns.text,
            label_column=columns.label,
            pair_column=columns.pair,
            header=columns.header,
            require_labels=require_labels,
        )

    def labels_in(self, rows: Sequence[RatedRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        if declared:
            raise UsageError("labels is for classes; numbers have none")
        found = {row.label for row in rows}
        if len(found) < 2:
            told = f"only the number {found.pop():g}" if found else "no numbers"
            raise DataError(f"{len(rows)} rows with {told}; nothing can be learned from them", path=where)
        return (OUTPUT,)

    def encode(
        self, rows: Sequence[RatedRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        targets = None if labels is None else np.array([_number(row) for row in rows], dtype=np.float32)
        return self.features(rows, tokenizer, max_length, targets)

    def decode(
        self,
        rows: Sequence[RatedRow],  # noqa: ARG002
        features: Features,  # noqa: ARG002
        outputs: Floats,
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[Rating]:
        return [Rating(round(value, 6)) for value in outputs[:, 0].tolist()]

    def answer_of(self, row: RatedRow, prediction: float) -> Rating:  # noqa: ARG002
        return Rating(prediction)

    def score(self, rows: Sequence[RatedRow], answers: Sequence[Rating], labels: Sequence[str]) -> dict[str, float]:  # noqa: ARG002
        return score_numbers([_number(row) for row in rows], [answer.value for answer in answers])

    def statistics(
        self,
        rows: Sequence[RatedRow],
        answers: Sequence[Rating],
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, Statistic]:
        return number_statistics([_number(row) for row in rows], [answer.value for answer in answers])

    def of_record(self, record: Mapping[str, Any]) -> tuple[RatedRow, Rating]:
        return recorded_text(record, number_in(record, "label")), Rating(number_in(record, "prediction"))

    def record(self, number: int, row: RatedRow, answer: Rating) -> dict[str, Any]:
        return {
            **record_text(number, row),
            "label": row.label,
            "prediction": answer.value,
        }

    def told(self, row: RatedRow, answer: Rating) -> tuple[str, str]:
        return "" if row.label is None else f"{row.label:g}", f"{answer.value:.4g}"


def _number(row: RatedRow) -> float:
    if row.label is None:
        raise DataError("the row has no number", line=row.line)
    return row.label
