"""Extractive question answering: where in a text does the answer to a question start, and where does it end?

Question and text are read as a pair, `[CLS] question [SEP] text [SEP]` (Devlin et al. 2018, section 4.2); a text that
is too long in windows that share `stride` tokens, each an example of its own. A window without the answer has [CLS] for
a target, as questions without an answer have in every window (section 4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from torch import Tensor, nn, stack

from bertsmith.errors import DataError, UsageError
from bertsmith.model.heads import BertForQuestionAnswering
from bertsmith.tasks.answer_metrics import ANSWER_SCORES
from bertsmith.tasks.base import Bools, Columns, Labels, Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.calibration import Decisions
from bertsmith.tasks.features import Features, Floats, Ints, Ragged
from bertsmith.tasks.losses import ONE_OF_ITEMS
from bertsmith.tasks.question_tables import read_question_rows
from bertsmith.tasks.recorded import line_in, number_in, text_in, texts_in
from bertsmith.tasks.resampling import Statistic, mean
from bertsmith.tasks.rows import QuestionRow
from bertsmith.tasks.texts import mostly_chinese
from bertsmith.tokenizer.encode import Encoded, Tokenizer

LONGEST_ANSWER = 30
"""Tokens, as in Google's run_squad."""
NOWHERE = -1
"""Stands for a token's characters where it is none of the text's."""


@dataclass(frozen=True, slots=True)
class Span:
    """The answer, the characters [start, end) of the text that it is, and how probable the model holds both ends to be,
    of all tokens of that window. Where the model finds none: an empty answer at [0, 0).
    """

    text: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Windows(Features):
    """Windows of texts; every token is an item, at which an answer may start or end."""

    spans: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int32))
    """(all items, 2) Characters [start, end) of the text that each token stands for, or `NOWHERE`."""


@dataclass(frozen=True)
class Answer(Task[QuestionRow, Span]):
    """Question and text -> part of the text. Loss: cross-entropy over a window's tokens, mean of start and end."""

    stride: int = 128
    """Tokens that neighbouring windows share; at most half of what of the text a window holds."""
    no_answer: bool = False
    """Whether a text may hold no answer."""

    name = "answer"
    default_metric = "f1"
    metrics = tuple(ANSWER_SCORES)
    head = BertForQuestionAnswering
    outputs = ONE_OF_ITEMS
    outputs_are_classes = False
    gives_probabilities = True
    takes_pairs = True
    expected = "(question, text)"

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "no_answer": self.no_answer}

    def with_options(self, **options: Any) -> Self:
        return replace(self, **options)

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[QuestionRow]:
        """Of a table the columns' usual names are those of `datasets`: question, context and answers."""
        columns.without_pairs("here the question is read with the text (question_column)")
        usual = Columns()
        return read_question_rows(
            source,
            question_column=columns.question,
            text_column="context" if columns.text == usual.text else columns.text,
            answers_column="answers" if columns.label == usual.label else columns.label,
            header=columns.header,
            no_answer=self.no_answer,
            require_labels=require_labels,
        )

    def row(self, given: object, line: int) -> QuestionRow | None:
        if not isinstance(given, tuple) or len(given) != 2 or not all(isinstance(part, str) for part in given):
            return None
        return QuestionRow(given[0], given[1], None, line)

    def labels_in(self, rows: Sequence[QuestionRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        if declared:
            raise UsageError("labels is for classes; answers are parts of the texts")
        if not any(row.answers for row in rows):
            raise DataError(f"{len(rows)} questions and no answer to any; nothing can be learned from them", path=where)
        return ("start", "end")

    def labels_of(self, row: QuestionRow) -> Labels:  # noqa: ARG002
        return ()

    def text_of(self, row: QuestionRow) -> str:
        return f"{row.question} | {row.text}"

    def encode(
        self, rows: Sequence[QuestionRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Windows:
        """At most half of a window is the question's; what it is longer is cut off."""
        texts = {row.text: number for number, row in enumerate(rows)}  # many questions are on one text
        encoded = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))
        questions = tokenizer.encode_ids([row.question for row in rows])
        made: list[_Window] = []
        for number, (row, question) in enumerate(zip(rows, questions, strict=True)):
            asked = question[: (max_length - 3) // 2]
            lost = len(question) - len(asked)
            made += self._windows(number, row, encoded[row.text], asked, lost, tokenizer, max_length)
        tokens = Ragged.of([window.ids for window in made])
        return Windows(
            tokens=tokens,
            items=Ragged.of([range(len(window.ids)) for window in made]),
            targets=np.array([window.target for window in made], dtype=np.int64) if labels is not None else None,
            cut_tokens=np.array([window.lost for window in made], dtype=np.int64),
            second_starts=np.array([window.second for window in made], dtype=np.int64),
            alternatives=True,
            rows=np.array([window.row for window in made], dtype=np.int64),
            spans=np.concatenate([np.zeros((0, 2), dtype=np.int32), *(window.spans for window in made)]),
        )

    def _windows(
        self,
        number: int,
        row: QuestionRow,
        text: Encoded,
        question: list[int],
        lost: int,
        tokenizer: Tokenizer,
        max_length: int,
    ) -> list["_Window"]:
        head = [tokenizer.cls_id, *question, tokenizer.sep_id]
        room = max_length - len(head) - 1
        step = room - min(self.stride, room // 2)
        offsets = np.array(text.offsets, dtype=np.int32).reshape(-1, 2)
        answer = _tokens_of(row, offsets)
        windows = []
        for start in range(0, len(text.ids) or 1, step):
            ids = text.ids[start : start + room]
            spans = np.full((len(head) + len(ids) + 1, 2), NOWHERE, dtype=np.int32)
            spans[len(head) : -1] = offsets[start : start + room]
            target = (0, 0)
            if answer is not None and start <= answer[0] and answer[1] < start + len(ids):
                target = (len(head) + answer[0] - start, len(head) + answer[1] - start)
            windows.append(_Window(number, [*head, *ids, tokenizer.sep_id], len(head), spans, target, lost))
            if start + room >= len(text.ids):
                break
        return windows

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        found = model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        logits = stack([found.start_logits, found.end_logits], dim=-1)
        return logits.flatten(0, 1)[batch.items]  # (batch, seq, 2) -> (items, 2): padding can hold no answer

    def decode(
        self,
        rows: Sequence[QuestionRow],
        features: Features,
        outputs: Floats,
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[Span]:
        """The span with the largest sum of start and end score, of all windows; none, where one may be missing and
        [CLS] has a larger sum in every window.
        """
        assert isinstance(features, Windows)
        start, end, score = _best_spans(outputs.astype(np.float64), features)
        first = features.items.starts[:-1]
        none_scores = outputs[first].sum(axis=-1)
        bounds = np.searchsorted(features.row_of_example, np.arange(len(rows) + 1))
        answers = []
        for row, low, high in zip(rows, bounds, bounds[1:], strict=False):
            window = int(low + score[low:high].argmax())
            of_window = outputs[features.items.starts[window] : features.items.starts[window + 1]].astype(np.float64)
            total = logsumexp(of_window, axis=0).sum()
            if not np.isfinite(score[window]) or (self.no_answer and none_scores[low:high].min() > score[window]):
                answers.append(Span("", 0, 0, round(float(np.exp(none_scores[window] - total)), 6)))
                continue
            begin, close = int(features.spans[start[window], 0]), int(features.spans[end[window], 1])
            probability = round(float(np.exp(score[window] - total)), 6)
            answers.append(Span(row.text[begin:close], begin, close, probability))
        return answers

    def answer_of(self, row: QuestionRow, prediction: str) -> Span:
        start = max(0, row.text.find(prediction))
        return Span(prediction, start, start + len(prediction), 1.0)

    def score(
        self,
        rows: Sequence[QuestionRow],
        answers: Sequence[Span],
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, float]:
        return {metric: float(_values(rows, answers, metric).mean()) for metric in ANSWER_SCORES}

    def statistics(
        self,
        rows: Sequence[QuestionRow],
        answers: Sequence[Span],
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, Statistic]:
        return {metric: mean(_values(rows, answers, metric)) for metric in ANSWER_SCORES}

    def right(self, rows: Sequence[QuestionRow], answers: Sequence[Span]) -> Bools:
        return np.array(_values(rows, answers, "exact_match") == 1.0, dtype=np.bool_)

    def decisions(self, rows: Sequence[QuestionRow], answers: Sequence[Span]) -> Decisions:
        sure = [answer.probability for answer in answers]
        return Decisions(np.array(sure, dtype=np.float64), self.right(rows, answers))

    def of_record(self, record: Mapping[str, Any]) -> tuple[QuestionRow, Span]:
        answers = tuple((text, NOWHERE) for text in texts_in(record, "answers"))
        key = record.get("id")
        question, text = text_in(record, "question"), text_in(record, "text")
        row = QuestionRow(question, text, answers, line_in(record), "" if key is None else str(key))
        places = int(number_in(record, "start")), int(number_in(record, "end"))
        return row, Span(text_in(record, "prediction"), *places, number_in(record, "probability"))

    def record(self, number: int, row: QuestionRow, answer: Span) -> dict[str, Any]:
        return {
            "row": number,
            "line": row.line,
            "id": row.key or None,
            "question": row.question,
            "text": row.text,
            "answers": None if row.answers is None else [text for text, _ in row.answers],
            "prediction": answer.text,
            "start": answer.start,
            "end": answer.end,
            "probability": answer.probability,
        }

    def told(self, row: QuestionRow, answer: Span) -> tuple[str, str]:
        return " / ".join(text for text, _ in row.answers or ()), answer.text


@dataclass(frozen=True, slots=True)
class _Window:
    row: int
    ids: list[int]
    second: int
    spans: npt.NDArray[np.int32]
    target: tuple[int, int]
    lost: int


def _tokens_of(row: QuestionRow, offsets: npt.NDArray[np.int32]) -> tuple[int, int] | None:
    """The first and the last token of the first answer that is in the text; None where there is none, or no token."""
    answer, start = next(((text, start) for text, start in row.answers or () if start >= 0), ("", -1))
    if start < 0:
        return None
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], start + len(answer), side="left")) - 1
    return (first, last) if first <= last else None


def _best_spans(outputs: npt.NDArray[np.float64], features: Windows) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Of each window the items at which the best span starts and ends, and its score; -inf where there is none.

    All spans of at most `LONGEST_ANSWER` tokens of the text are compared, not only the best starts and ends.
    """
    inside = features.spans[:, 0] != NOWHERE
    starts = np.where(inside, outputs[:, 0], -np.inf)
    ends = np.where(inside, outputs[:, 1], -np.inf)
    best, length = np.full(len(outputs), -np.inf), np.zeros(len(outputs), dtype=np.int64)
    for more in range(min(LONGEST_ANSWER, len(outputs))):  # the text's tokens stand together, with [SEP] after them
        sums = starts[: len(starts) - more] + ends[more:]
        sums = np.where(features.item_groups[: len(starts) - more] == features.item_groups[more:], sums, -np.inf)
        is_better = sums > best[: len(sums)]
        best[: len(sums)][is_better] = sums[is_better]
        length[: len(sums)][is_better] = more
    bounds = features.items.starts
    chosen = np.array([low + best[low:high].argmax() for low, high in pairwise(bounds)], dtype=np.int64)
    return chosen, chosen + length[chosen], best[chosen]


def _values(rows: Sequence[QuestionRow], answers: Sequence[Span], metric: str) -> npt.NDArray[np.float64]:
    chinese = mostly_chinese(row.text for row in rows[:1000])
    score = ANSWER_SCORES[metric]
    return np.array(
        [
            score([text for text, _ in row.answers or ()], answer.text, chinese=chinese)
            for row, answer in zip(rows, answers, strict=True)
        ]
    )
