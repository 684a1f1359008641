"""Promise 2: batches of like length answer as batches padded to the longest length allowed do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.batches import TrainingBatches
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.predict import TASKS, compute_outputs
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import (
    CPU,
    POSITIONS,
    choice_rows,
    multilabel_rows,
    pair_rows,
    question_rows,
    tagged_rows,
    text_rows,
    tiny_config,
    write_tiny_model,
)

LABELS = {
    "classify": ("bad", "good"),
    "multilabel": ("bad", "good"),
    "regress": ("value",),
    "choose": ("score",),
    "tag": ("B-PLACE", "O"),
    "answer": ("start", "end"),
    "next-sentence": ("is_next", "not_next"),
    "masked-word": ("word",),
    "language-model": ("word",),
}
"""Of all tasks but embed, whose loss is that of a whole batch (test_in_batch)."""
ROWS: dict[str, Any] = {
    "classify": text_rows(300, seed=3),
    "multilabel": multilabel_rows(300, seed=3),
    "choose": choice_rows(100, seed=3),
    "answer": question_rows(100, seed=3),
    "regress": [(text, float(len(text))) for text, _ in text_rows(300, seed=3)],
    "tag": tagged_rows(300, seed=3),
    "next-sentence": [(one, other, int(label == "other")) for one, other, label in pair_rows(200, seed=3)],
    "masked-word": [text for text, _ in text_rows(300, seed=3)],
    "language-model": [text for text, _ in text_rows(300, seed=3)],
}
WORDS = ("masked-word", "language-model")


class Case:
    def __init__(self, name: str, folder: Path, *, dtype: torch.dtype = torch.float32):
        self.task: Task[Any, Any] = TASKS[name]
        tokenizer = Tokenizer.load(write_tiny_model(folder))
        torch.manual_seed(2)
        config = tiny_config(tokenizer.vocab_size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.model: Pretrained = self.task.head(config.with_labels(LABELS[name])).to(dtype).eval()
        rows = self.task.read(ROWS[name], Columns(), require_labels=True)
        self.features: Features = self.task.encode(rows, tokenizer, labels=LABELS[name], max_length=POSITIONS)
        assert self.features.targets is not None
        self.targets = torch.from_numpy(self.features.targets)

    def padded(self) -> Tensor:
        """(all items, labels): all rows in one batch, padded to the longest length, written the plain way."""
        rows = len(self.features.tokens)
        ids, mask = torch.zeros(rows, POSITIONS, dtype=torch.long), torch.zeros(rows, POSITIONS, dtype=torch.long)
        types = torch.zeros_like(ids)
        tokens, items = self.features.tokens, self.features.items
        for row in range(rows):
            start, end = tokens.starts[row], tokens.starts[row + 1]
            ids[row, : end - start] = torch.from_numpy(tokens.values[start:end])
            mask[row, : end - start] = 1
            if self.features.second_starts is not None:
                types[row, self.features.second_starts[row] : end - start] = 1
        if self.task.name == "choose":
            logits: Tensor = self.model(ids[:, None], mask[:, None], types[:, None]).logits
            return logits
        outputs = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        if self.task.name == "answer":
            logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
        else:
            logits = outputs.logits
        if self.task.name not in ("tag", "answer", *WORDS):
            return logits
        return torch.cat([logits[r, items.values[items.starts[r] : items.starts[r + 1]]] for r in range(rows)])

    def groups(self) -> Tensor | None:
        return torch.from_numpy(self.features.item_groups) if self.features.alternatives else None

    def bucketed(self, **changes: Any) -> Floats:
        runtime = replace(CPU, **changes)
        return compute_outputs(self.model, self.features, self.task, pad_id=0, runtime=runtime, batch_tokens=128)


@pytest.mark.parametrize("name", LABELS)
def test_float32_answers(name: str, tmp_path: Path):
    case = Case(name, tmp_path)
    with torch.no_grad():
        padded = case.padded()
    if name in WORDS:  # of which is kept: loss, log-probabilities and ids of the likeliest
        logs = padded.log_softmax(-1)
        best = logs.topk(5 if name == "masked-word" else 1)
        padded = torch.cat([-logs.gather(1, case.targets[:, None]), best.values, best.indices], dim=1)
    torch.testing.assert_close(torch.from_numpy(case.bucketed()), padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["classify", "multilabel", "tag"])
def test_bfloat16_answers_have_the_same_arg_max(name: str, tmp_path: Path):
    case = Case(name, tmp_path)
    with torch.no_grad(), replace(CPU, dtype=torch.bfloat16).autocast():
        padded = case.padded().float()
    bucketed = torch.from_numpy(case.bucketed(dtype=torch.bfloat16))
    margin = (padded[:, 0] - padded[:, 1]).abs()
    agree = bucketed.argmax(-1) == padded.argmax(-1)
    assert agree.float().mean() >= 0.999 or margin[~agree].max() < 0.02, "only where the two labels are level"


@pytest.mark.parametrize("name", LABELS)
def test_an_epoch_of_bucketed_micro_batches_has_the_padded_gradient(name: str, tmp_path: Path):
    """In float64: the sum of the losses of all batches of an epoch, and its gradient, to 1e-10."""
    case = Case(name, tmp_path, dtype=torch.float64)
    case.task.outputs.losses(case.padded(), case.targets, case.groups()).sum().backward()
    expected = {name: p.grad.clone() for name, p in case.model.named_parameters() if p.grad is not None}
    case.model.zero_grad()
    batches = TrainingBatches(
        case.features, objective=name, pad_id=0, batch_size=32, micro_batch_size=7, seed=5, window_batches=4
    )
    items = 0
    for step in range(3 * batches.steps_per_epoch, 4 * batches.steps_per_epoch):
        for batch in batches.batch(step):
            assert batch.targets is not None
            case.task.loss_sum(case.model, batch).backward()
            items += batch.counts[name]
    assert items == len(case.targets)
    for parameter_name, parameter in case.model.named_parameters():
        if parameter_name in expected:
            torch.testing.assert_close(parameter.grad, expected[parameter_name], rtol=1e-10, atol=1e-10)


def test_the_order_of_an_epoch_is_not_that_of_lengths(tmp_path: Path):
    """Sorting within windows must not turn an epoch into a walk from short to long."""
    case = Case("classify", tmp_path)
    batches = TrainingBatches(case.features, objective="x", pad_id=0, batch_size=8, seed=0)
    widths = [batch[0].input_ids.shape[1] for batch in map(batches.batch, range(batches.steps_per_epoch))]
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.5
