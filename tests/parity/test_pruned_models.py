"""What was cut is read by `transformers` with the same answers, or, where its config cannot say it, not at all."""

from pathlib import Path

import pytest
import torch
import transformers

from bertsmith.compress.cut import Cut, pruned
from bertsmith.model import BertConfig, BertForSequenceClassification

IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 5, 6, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


def cut_model(folder: Path, heads: tuple[tuple[int, ...], ...]) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24)
    model = BertForSequenceClassification(config)
    smaller = pruned(model, Cut((0, 2), heads, (tuple(range(8)), tuple(range(16, 24)))))
    smaller.save_pretrained(folder)
    assert isinstance(smaller, BertForSequenceClassification)
    return smaller


def test_fewer_layers_and_narrower_ones_are_an_ordinary_model(tmp_path: Path) -> None:
    ours = cut_model(tmp_path, ((0, 1, 2, 3), (0, 1, 2, 3)))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS, MASK).logits, theirs(IDS, MASK).logits, rtol=1e-5, atol=1e-5)


def test_uneven_heads_are_not_read_as_something_else(tmp_path: Path) -> None:
    cut_model(tmp_path, ((0, 1), (0, 1, 3)))
    with pytest.raises(RuntimeError, match="mismatch"):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
