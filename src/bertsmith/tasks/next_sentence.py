"""Next sentence: does the second text follow the first, or is it from elsewhere (Devlin et al. 2018, section 3.1)?

Classification of pairs by the head of pre-training, whose two outputs always mean the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import nn

from bertsmith.errors import DataError, UsageError
from bertsmith.model.language import BertForNextSentencePrediction
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Columns, Labels, Task
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.rows import ClassRow, TextRow
from bertsmith.tasks.sentence_pairs import IS_NEXT, NOT_NEXT, read_sentence_pairs


@dataclass(frozen=True)
class NextSentence(Classify):
    """(text, second text) -> is_next or not_next. Loss: cross-entropy."""

    head: type[Pretrained] = BertForNextSentencePrediction

    name = "next-sentence"
    default_metric = "accuracy"
    outputs_are_classes = False
    reads_whole_texts = False
    own_labels = (IS_NEXT, NOT_NEXT)
    expected = "(text, second text)"

    def with_head(self, head: type[nn.Module]) -> Self:
        return Task.with_head(self, head)  # its own is that of pre-training

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[ClassRow]:
        if columns.label_names is not None:
            raise UsageError("label_names is for classify; here labels are 0 or is_next, 1 or not_next")
        return read_sentence_pairs(source, columns, require_labels=require_labels)

    def row(self, given: object, line: int) -> TextRow[str] | None:
        found = super().row(given, line)
        return None if found is None or found.pair is None else found

    def labels_in(self, rows: Sequence[ClassRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        if declared:
            raise UsageError("labels is for classify; here they are is_next and not_next")
        if len(found := {row.label for row in rows}) < 2:
            raise DataError(f"{len(rows)} rows, all of them {found.pop()}; nothing can be learned", path=where)
        return self.own_labels
