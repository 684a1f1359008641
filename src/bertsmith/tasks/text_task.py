"""What the tasks have in common that read a text, or a pair of them, at [CLS] and say one thing of it.

A text that is too long is cut, or, with `windows`, read in several pieces that share `stride` tokens. The head's
outputs of a row's windows are pooled into one, and both the loss and the answer are of that one: what is trained is
what is scored. `mean` is for what the whole text says; `max`, the largest of each output, for what a text says if any
part of it does, as in multiple-instance learning (Ramon and De Raedt 2000). A loss on each window instead would teach
windows that hold nothing of it the row's label. A row of one window has the outputs that it has without windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeVar

import numpy.typing as npt
from torch import Tensor, nn

from bertsmith.errors import UsageError
from bertsmith.model.heads import BertForSequenceClassification, with_own_head
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.features import Features
from bertsmith.tasks.losses import by_group
from bertsmith.tasks.rows import LabelT, TextRow
from bertsmith.tasks.texts import encode_texts, encode_windows, row_text, text_row
from bertsmith.tokenizer.encode import Tokenizer

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class TextTask(Task[TextRow[LabelT], AnswerT]):
    """Text -> something, by `BertForSequenceClassification`; rows are `TextRow`s, one item each."""

    windows: Literal["mean", "max"] | None = None
    """How the outputs of a long text's windows become one; None: such a text is cut."""
    stride: int = 128
    """Tokens that neighbouring windows share; at most half of what of the text a window holds."""
    max_windows: int | None = None
    """The first windows of a text, that are read; None: all."""
    head: type[Pretrained] = BertForSequenceClassification
    own_head: str | None = None

    reads_whole_texts = True
    takes_pairs = True
    expected = "a string, or (text, second text)"

    @property
    def options(self) -> dict[str, Any]:
        if self.windows is None:
            return {}
        return {"windows": self.windows, "stride": self.stride, "max_windows": self.max_windows}

    def with_options(self, **options: Any) -> Self:
        return replace(self, **options)

    def with_head(self, head: type[nn.Module]) -> Self:
        return replace(self, head=with_own_head(head), own_head=head.__name__)

    def row(self, given: object, line: int) -> TextRow[LabelT] | None:
        return text_row(given, line)

    def text_of(self, row: TextRow[LabelT]) -> str:
        return row_text(row)

    def features(
        self, rows: Sequence[TextRow[LabelT]], tokenizer: Tokenizer, max_length: int, targets: npt.NDArray[Any] | None
    ) -> Features:
        """Rows as the model reads them; targets: (rows, ...)."""
        if self.windows is None:
            return encode_texts(rows, tokenizer, max_length=max_length, targets=targets)
        if any(row.pair is not None for row in rows):
            raise UsageError("windows are for single texts; leave finetune.windows out for pairs")
        return encode_windows(
            rows,
            tokenizer,
            max_length=max_length,
            stride=self.stride,
            max_windows=self.max_windows,
            targets=targets,
        )

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        logits: Tensor = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        if batch.sequence_examples is None:
            return logits  # (batch, outputs), and each row is one item
        if self.windows == "max":
            return by_group(logits, batch.sequence_examples, filled=float("-inf")).amax(1)
        counts = batch.sequence_examples.bincount()
        return by_group(logits, batch.sequence_examples, filled=0.0).sum(1) / counts[:, None]
