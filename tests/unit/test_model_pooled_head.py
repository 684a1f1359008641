"""Heads of whole texts: pooling and depth against their formulas, kept by config.json; a class of one's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model import BertForSequenceClassification
from bertsmith.model.config import POOLINGS, BertConfig
from bertsmith.model.heads import with_own_head
from finetune_case import tiny_config

IDS = torch.tensor([[2, 7, 8, 9, 3, 0], [2, 10, 3, 0, 0, 0]])
MASK = (IDS != 0).long()


class Weighted(nn.Module):
    """Sum over tokens by a learned vector, which begins in a way of its own."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.query = nn.Parameter(torch.full((config.hidden_size,), 0.25))
        self.out = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        shares = (hidden @ self.query).masked_fill(attention_mask == 0, -1e9).softmax(-1)
        scores: Tensor = self.out((shares[:, :, None] * hidden).sum(1))
        return scores


def made(**changes: Any) -> BertForSequenceClassification:
    torch.manual_seed(5)
    return BertForSequenceClassification(tiny_config(30, num_labels=3, **changes)).eval()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("depth", [0, 2])
def test_the_head_is_pooling_then_layers_then_labels(pooling: str, depth: int) -> None:
    model = made(head_pooling=pooling, head_layers=depth, head_act="tanh")
    outputs = model(IDS, MASK, output_hidden_states=True)
    states = outputs.hidden_states
    for row in range(2):
        length = int(MASK[row].sum())
        last, first = states[-1][row, :length], states[1][row, :length]
        vector = {
            "cls": torch.tanh(model.bert.pooler.dense(last[0])) if model.bert.pooler is not None else None,
            "mean": last.mean(0),
            "max": last.max(0).values,
            "first-last": (first.mean(0) + last.mean(0)) / 2,
        }[pooling]
        assert vector is not None
        if depth:
            for layer in model.head.layers:
                vector = torch.tanh(layer(vector))
        classifier = model.classifier if pooling == "cls" and not depth else model.head.classifier
        torch.testing.assert_close(outputs.logits[row], classifier(vector), atol=1e-5, rtol=1e-5)
    assert model(IDS, MASK).hidden_states is None


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_says_nothing(pooling: str) -> None:
    model = made(head_pooling=pooling, head_layers=1)
    alone = model(IDS[1:, :3]).logits
    torch.testing.assert_close(model(IDS, MASK).logits[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", [{"head_pooling": "mean"}, {"head_layers": 2, "head_act": "relu"}])
def test_a_head_is_kept_by_its_directory(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = made(**changes)
    model.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    assert again.load_report is not None
    assert not again.load_report.fresh
    assert torch.equal(again(IDS, MASK).logits, model(IDS, MASK).logits)
    facts = json.loads((tmp_path / "config.json").read_text())
    assert facts.items() >= changes.items()
    assert facts["architectures"] == ["BertWithHead"]


def test_a_usual_model_has_the_keys_of_the_field_alone(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    assert not [key for key in facts if key.startswith(("head_", "own_"))]
    assert facts["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.parametrize(("key", "value"), [("head_pooling", "sum"), ("head_layers", -1), ("head_act", "softmax")])
def test_what_no_head_is_made_of_is_refused(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"{key} = .* is not possible"):
        tiny_config(30, **{key: value})


def test_an_own_head_begins_as_its_author_says_and_is_kept(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path / "base")
    chosen = with_own_head(Weighted)
    model = chosen.from_pretrained(tmp_path / "base", overrides={"own_head": "Weighted"})
    assert torch.equal(model.head.query, torch.full((16,), 0.25))
    assert model.bert.pooler is None
    with torch.no_grad():
        model.head.query.mul_(3)
    model.save_pretrained(tmp_path / "own")
    again = chosen.from_pretrained(tmp_path / "own")
    assert torch.equal(again(IDS, MASK).logits, model(IDS, MASK).logits)
    torch.testing.assert_close(again(IDS[1:, :3]).logits, model(IDS, MASK).logits[1:])


def test_an_own_head_is_given_and_never_looked_up(tmp_path: Path) -> None:
    class Other(Weighted):
        pass

    with_own_head(Weighted)(tiny_config(30, own_head="Weighted")).save_pretrained(tmp_path / "own")
    made().save_pretrained(tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"a head of its own, Weighted, and head is None; .*head=Weighted"):
        BertForSequenceClassification.from_pretrained(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"a head of its own, Weighted, and head is Other"):
        with_own_head(Other).from_pretrained(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"no head of its own, and head is Weighted; leave head out"):
        with_own_head(Weighted).from_pretrained(tmp_path / "plain")


def test_a_head_that_cannot_be_kept_or_used_is_refused() -> None:
    class Running(Weighted):
        def __init__(self, config: BertConfig):
            super().__init__(config)
            self.norm = nn.BatchNorm1d(config.hidden_size)

    class Wide(Weighted):
        def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
            return hidden

    with pytest.raises(UsageError, match=r"Running keeps 'norm\.running_mean' as a buffer"):
        with_own_head(Running)(tiny_config(30, own_head="Running"))
    with pytest.raises(UsageError, match=r"Wide gives shape \(2, 6, 16\); it must be \(batch, labels\) = \(2, 2\)"):
        with_own_head(Wide)(tiny_config(30, own_head="Wide"))(IDS, MASK)


def test_transformers_says_that_it_has_no_such_head(tmp_path: Path) -> None:
    """It reads the encoder as it is, and tells of a fresh classifier where it cannot have ours."""
    transformers = pytest.importorskip("transformers")
    model = made(head_pooling="mean", head_layers=1)
    model.save_pretrained(tmp_path)
    encoder = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    ours = model.bert(IDS, MASK).last_hidden_state
    torch.testing.assert_close(encoder(IDS, attention_mask=MASK).last_hidden_state, ours, atol=1e-5, rtol=1e-5)
    _, found = transformers.BertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert {"classifier.weight", "classifier.bias"} <= set(found["missing_keys"])
