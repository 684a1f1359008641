"""Multiple choice: which of several endings, or answers to a question, fits a text?

Each is read with the text as a pair, `[CLS] text [SEP] question choice [SEP]`, and gets one score at [CLS] (Devlin et
al. 2018, section 4.4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from torch import Tensor, nn

from bertsmith.errors import DataError, UsageError
from bertsmith.model.heads import BertForMultipleChoice
from bertsmith.tasks.base import Bools, Columns, Labels, Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.calibration import Decisions
from bertsmith.tasks.choice_tables import read_choice_rows
from bertsmith.tasks.features import Features, Floats, Ragged
from bertsmith.tasks.losses import ONE_OF_ITEMS
from bertsmith.tasks.recorded import line_in, number_in, numbers_in, text_in, texts_in
from bertsmith.tasks.resampling import Statistic, mean
from bertsmith.tasks.rows import ChoiceRow
from bertsmith.tasks.texts import frame_texts
from bertsmith.tokenizer.encode import Tokenizer

OUTPUT = "score"
"""What the head's one output is called in config.json."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The most probable choice, its number from 0, and the probability of each."""

    number: int
    choice: str
    probabilities: tuple[float, ...]


class Choose(Task[ChoiceRow, Choice]):
    """Text, question and choices -> number of a choice. Loss: cross-entropy over a row's choices."""

    name = "choose"
    default_metric = "accuracy"
    metrics = ("accuracy",)
    head = BertForMultipleChoice
    outputs = ONE_OF_ITEMS
    outputs_are_classes = False
    gives_probabilities = True
    expected = "(text, question, choices), or (text, choices)"

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[ChoiceRow]:
        columns.without_pairs("here each choice is read with the text")
        return read_choice_rows(
            source,
            text_column=columns.text,
            question_column=columns.question,
            choice_columns=columns.choices,
            label_column=columns.label,
            header=columns.header,
            require_labels=require_labels,
        )

    def row(self, given: object, line: int) -> ChoiceRow | None:
        if not isinstance(given, tuple) or len(given) not in (2, 3):
            return None
        text, *question, choices = given
        if not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2:
            return None
        if not all(isinstance(part, str) for part in (text, *question, *choices)):
            return None
        return ChoiceRow(text, question[0] if question else None, tuple(choices), None, line)

    def labels_in(self, rows: Sequence[ChoiceRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        if declared:
            raise UsageError("labels is for classes; choices are the rows' own")
        found = {row.label for row in rows}
        if len(found) < 2:
            raise DataError(
                f"{len(rows)} rows, and the right choice is always number {found.pop()}; shuffle the choices, or "
                "check the label column"
                if found
                else "no rows; expected at least two",
                path=where,
            )
        return (OUTPUT,)

    def labels_of(self, row: ChoiceRow) -> Labels:  # noqa: ARG002
        return ()

    def text_of(self, row: ChoiceRow) -> str:
        return " | ".join(part for part in (row.text, row.question) if part)

    def encode(
        self, rows: Sequence[ChoiceRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        """A sequence a choice. Of those that are too long, tokens are taken from the longer of text and choice."""
        counts = [len(row.choices) for row in rows]
        texts = tokenizer.encode_ids([row.text for row in rows])
        endings = iter(tokenizer.encode_ids([_ending(row, choice) for row in rows for choice in row.choices]))
        framed = [
            frame_texts(text, next(endings), tokenizer, max_length)
            for text, count in zip(texts, counts, strict=True)
            for _ in range(count)
        ]
        targets = None
        if labels is not None:
            targets = np.array([[row.label] for row in rows], dtype=np.int64)
        return Features(
            tokens=Ragged.of([ids for ids, _, _ in framed]),
            items=Ragged.of([[0]] * len(framed)),
            targets=targets,
            cut_tokens=np.array([cut for _, _, cut in framed], dtype=np.int64),
            second_starts=np.array([start for _, start, _ in framed], dtype=np.int64),
            alternatives=True,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        inputs = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        logits: Tensor = model(*(None if ids is None else ids[:, None] for ids in inputs)).logits
        return logits  # (batch, 1): rows may have unequal numbers of choices, so each goes in as a row of one

    def decode(
        self,
        rows: Sequence[ChoiceRow],
        features: Features,
        outputs: Floats,
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[Choice]:
        assert features.starts is not None, "a row has several sequences"
        answers = []
        for row, start, end in zip(rows, features.starts, features.starts[1:], strict=False):
            shares = softmax(outputs[start:end, 0].astype(np.float64))
            best = int(shares.argmax())
            answers.append(Choice(best, row.choices[best], tuple(np.round(shares, 6).tolist())))
        return answers

    def answer_of(self, row: ChoiceRow, prediction: int) -> Choice:
        number = min(prediction, len(row.choices) - 1)
        return Choice(number, row.choices[number], ())

    def score(
        self,
        rows: Sequence[ChoiceRow],
        answers: Sequence[Choice],
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, float]:
        return {"accuracy": float(self.right(rows, answers).mean())}

    def statistics(
        self,
        rows: Sequence[ChoiceRow],
        answers: Sequence[Choice],
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, Statistic]:
        return {"accuracy": mean(self.right(rows, answers).astype(np.float64))}

    def right(self, rows: Sequence[ChoiceRow], answers: Sequence[Choice]) -> Bools:
        pairs = zip(rows, answers, strict=True)
        return np.array([row.label == answer.number for row, answer in pairs], dtype=np.bool_)

    def decisions(self, rows: Sequence[ChoiceRow], answers: Sequence[Choice]) -> Decisions:
        sure = [answer.probabilities[answer.number] for answer in answers]
        return Decisions(np.array(sure, dtype=np.float64), self.right(rows, answers))

    def of_record(self, record: Mapping[str, Any]) -> tuple[ChoiceRow, Choice]:
        choices, number = texts_in(record, "choices"), int(number_in(record, "prediction"))
        question = None if record.get("question") is None else text_in(record, "question")
        row = ChoiceRow(text_in(record, "text"), question, choices, int(number_in(record, "label")), line_in(record))
        shares = numbers_in(record, "probabilities")
        if len(shares) != len(choices) or not 0 <= number < len(choices) or not 0 <= (row.label or 0) < len(choices):
            raise ValueError(f"choice {number} of {len(choices)} choices with {len(shares)} probabilities")
        return row, Choice(number, choices[number], shares)

    def record(self, number: int, row: ChoiceRow, answer: Choice) -> dict[str, Any]:
        return {
            "row": number,
            "line": row.line,
            "text": row.text,
            "question": row.question,
            "choices": row.choices,
            "label": row.label,
            "prediction": answer.number,
            "choice": answer.choice,
            "probabilities": answer.probabilities,
        }

    def told(self, row: ChoiceRow, answer: Choice) -> tuple[str, str]:
        return "" if row.label is None else row.choices[row.label], answer.choice


def _ending(row: ChoiceRow, choice: str) -> str:
    return choice if row.question is None else f"{row.question} {choice}"
