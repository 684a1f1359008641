"""What the tasks have in common that read a text, or a pair of them, at [CLS] and say one thing of it."""

import copy
from typing import Self, TypeVar

from torch import Tensor, nn

from bertsmith.model.heads import BertForSequenceClassification, with_own_head
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.rows import LabelT, TextRow
from bertsmith.tasks.texts import row_text, text_row

AnswerT = TypeVar("AnswerT")


class TextTask(Task[TextRow[LabelT], AnswerT]):
    """Text -> something, by `BertForSequenceClassification`; rows are `TextRow`s, one item each."""

    head: type[Pretrained] = BertForSequenceClassification
    reads_whole_texts = True
    takes_pairs = True
    expected = "a string, or (text, second text)"

    def with_head(self, head: type[nn.Module]) -> Self:
        found = copy.copy(self)
        found.head, found.own_head = with_own_head(head), head.__name__
        return found

    def row(self, given: object, line: int) -> TextRow[LabelT] | None:
        return text_row(given, line)

    def text_of(self, row: TextRow[LabelT]) -> str:
        return row_text(row)

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        logits: Tensor = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        return logits  # (batch, outputs), and each row is one item
