"""Every head against transformers: the same directory, the same inputs, the same answers and gradients."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import bertsmith.model as model_room
from bertsmith.model import BertConfig

BATCH, SEQ, VOCAB, CHOICES, LABELS = 3, 17, 101, 2, 3
TINY = BertConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
    initializer_range=0.3,  # wide, so that attention is far from uniform and a mistake shows
)
HEADS = (
    "BertModel",
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertLMHeadModel",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForMultipleChoice",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
)


def config_for(head: str) -> BertConfig:
    labelled = head in ("BertForSequenceClassification", "BertForTokenClassification")
    return TINY.replace(is_decoder=head == "BertLMHeadModel", num_labels=LABELS if labelled else 2)


def pair(
    head: str, directory: Path, config: BertConfig | None = None, *, attention: str = "sdpa"
) -> tuple[nn.Module, nn.Module]:
    """Ours with random weights, biases and LayerNorms too, and theirs loaded from what ours saved.

    attention: theirs, "sdpa" (its default) or "eager", the formula step by step, which alone returns attentions. With
    weights as wide as these the two of them differ from each other by more than 1e-5 in float32 on some machines.
    """
    ours = getattr(model_room, head)(config or config_for(head)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours.save_pretrained(directory)
    theirs = getattr(transformers, head).from_pretrained(directory, attn_implementation=attention).eval()
    return ours, theirs


def inputs_for(head: str, *, masked: bool = True, typed: bool = True) -> dict[str, Tensor]:
    shape = (BATCH, CHOICES, SEQ) if head == "BertForMultipleChoice" else (BATCH, SEQ)
    inputs = {"input_ids": torch.randint(0, VOCAB, shape)}
    if masked:
        inputs["attention_mask"] = torch.ones(shape, dtype=torch.long)
        inputs["attention_mask"][0, ..., SEQ // 2 :] = 0
        inputs["attention_mask"][1, ..., SEQ - 1 :] = 0
        inputs["input_ids"][inputs["attention_mask"] == 0] = 0
    if typed:
        inputs["token_type_ids"] = torch.randint(0, 2, shape)
    return inputs


def labels_for(head: str) -> dict[str, Tensor]:
    words = torch.randint(0, VOCAB, (BATCH, SEQ))
    words[torch.rand(BATCH, SEQ) < 0.5] = -100
    return {
        "BertModel": {},
        "BertForPreTraining": {"labels": words, "next_sentence_label": torch.tensor([0, 1, -100])},
        "BertForMaskedLM": {"labels": words},
        "BertLMHeadModel": {"labels": words},
        "BertForNextSentencePrediction": {"labels": torch.tensor([0, 1, 1])},
        "BertForSequenceClassification": {"labels": torch.tensor([2, 0, 1])},
        "BertForMultipleChoice": {"labels": torch.tensor([1, 0, 1])},
        "BertForTokenClassification": {"labels": words.clamp(max=LABELS - 1)},
        "BertForQuestionAnswering": {
            "start_positions": torch.tensor([1, SEQ + 3, 5]),  # the second lies past the end: ignored
            "end_positions": torch.tensor([[4], [2], [6]]),
        },
    }[head]


def assert_same(ours: Any, theirs: Any, *, tolerance: float, real: Tensor | None) -> None:
    """Every named output within `tolerance * max(1, |theirs|)`, where tokens are real."""
    compared = 0
    for field in fields(ours):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name, None)
        if mine is None or other is None:
            assert mine is None, f"{field.name}: transformers has none"
            assert other is None, f"{field.name}: we have none"
            continue
        for a, b in zip(mine, other, strict=True) if isinstance(mine, tuple) else [(mine, other)]:
            assert a.shape == b.shape
            gap = (a - b).abs() / b.abs().clamp(min=1)
            if real is not None and a.shape[:2] == real.shape:  # (batch, seq, ...)
                gap = gap[real.bool()]
            elif real is not None and a.dim() == 4:  # attention: (batch, heads, seq, seq)
                gap = gap.transpose(1, 2)[real.bool()]
            assert gap.max() <= tolerance, f"{field.name} differs by {gap.max():.2e}"
            compared += 1
    assert compared > 0


@pytest.mark.parametrize("typed", [False, True], ids=["no types", "types"])
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "padding"])
@pytest.mark.parametrize("head", HEADS)
def test_answers_losses_and_gradients_in_float32(head: str, masked: bool, typed: bool, tmp_path: Path) -> None:
    ours, theirs = pair(head, tmp_path / "model")
    inputs = inputs_for(head, masked=masked, typed=typed)
    real = inputs.get("attention_mask")
    labels = labels_for(head)
    mine, other = ours(**inputs, **labels), theirs(**inputs, **labels)
    assert_same(mine, other, tolerance=1e-5, real=real)
    if head == "BertModel":
        weight = torch.randn(BATCH, SEQ, 32) * (1 if real is None else real[..., None])
        mine_loss = (mine.last_hidden_state * weight).sum() + mine.pooler_output.sum()
        other_loss = (other.last_hidden_state * weight).sum() + other.pooler_output.sum()
    else:
        mine_loss, other_loss = mine.loss, other.loss
    mine_loss.backward()
    other_loss.backward()
    assert_same_gradients(ours, theirs, tolerance=1e-5)


# A softmax does not see a shift of all its inputs, so the true gradient of these is 0; beside each a weight whose
# gradient says what is small.
WITHOUT_GRADIENT = {
    "key.bias": ("key.bias", "query.bias"),
    "BertForMultipleChoice.classifier.bias": ("bias", "weight"),
    "BertForQuestionAnswering.qa_outputs.bias": ("bias", "weight"),
    "BertForQuestionAnswering.bert.encoder.layer.1.output.LayerNorm.bias": ("bias", "weight"),
}


def assert_same_gradients(ours: nn.Module, theirs: nn.Module, *, tolerance: float) -> None:
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        grad, other = parameter.grad, named[name].grad
        if grad is None or other is None:
            assert grad is None or not grad.any(), f"{name}: only we have a gradient"
            assert other is None or not other.any(), f"{name}: only transformers has a gradient"
            continue
        full_name = f"{type(ours).__name__}.{name}"
        shift = next((ending for ending in WITHOUT_GRADIENT if full_name.endswith(ending)), None)
        if shift is None:
            gap = (grad - other).norm() / other.norm().clamp(min=1e-12)
            assert gap <= tolerance, f"gradient of {name} differs by {gap:.2e}"
        else:
            neighbour = named[name.replace(*WITHOUT_GRADIENT[shift])].grad
            assert neighbour is not None
            assert grad.norm() <= 1e-4 * neighbour.norm(), f"{name} has a gradient"


@pytest.mark.parametrize("head", HEADS)
def test_answers_in_float64(head: str, tmp_path: Path) -> None:
    ours, theirs = pair(head, tmp_path / "model", attention="eager")
    ours, theirs = ours.double(), theirs.double()
    inputs, labels = inputs_for(head), labels_for(head)
    if head in ("BertForMaskedLM", "BertLMHeadModel"):
        mine, other = ours(**inputs, **labels), theirs(**inputs, **labels)
        assert mine.loss.item() == pytest.approx(other.loss.item(), rel=1e-5)  # theirs is computed in float32
        labels = {}
    mine, other = ours(**inputs, **labels), theirs(**inputs, **labels)
    assert_same(mine, other, tolerance=1e-10, real=inputs["attention_mask"])


@pytest.mark.parametrize("head", HEADS)
def test_hidden_states_and_attentions(head: str, tmp_path: Path) -> None:
    ours, theirs = pair(head, tmp_path / "model", attention="eager")
    inputs = inputs_for(head)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    mine, other = ours(**inputs, **wanted), theirs(**inputs, **wanted)
    assert len(mine.hidden_states) == 3
    assert len(mine.attentions) == 2
    real = inputs["attention_mask"].flatten(0, -2)
    assert_same(mine, other, tolerance=1e-5, real=real)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh"])
def test_activations(activation: str, tmp_path: Path) -> None:
    ours, theirs = pair("BertForMaskedLM", tmp_path / "model", TINY.replace(hidden_act=activation))
    inputs = inputs_for("BertForMaskedLM")
    assert_same(ours(**inputs), theirs(**inputs), tolerance=1e-5, real=inputs["attention_mask"])


@pytest.mark.parametrize("head", ["BertForMaskedLM", "BertForPreTraining", "BertLMHeadModel"])
def test_untied_decoder(head: str, tmp_path: Path) -> None:
    ours, theirs = pair(head, tmp_path / "model", config_for(head).replace(tie_word_embeddings=False))
    inputs = inputs_for(head)
    assert_same(ours(**inputs), theirs(**inputs), tolerance=1e-5, real=inputs["attention_mask"])
    assert (ours.decoder_weight - ours.bert.embeddings.word_embeddings.weight).abs().max() > 0.1


@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "padding"])
@pytest.mark.parametrize("head", HEADS)
def test_a_decoder_sees_only_what_is_before(head: str, masked: bool, tmp_path: Path) -> None:
    ours, theirs = pair(head, tmp_path / "model", config_for(head).replace(is_decoder=True))
    inputs = inputs_for(head, masked=masked)
    keeps_nothing = {"use_cache": False} if head in ("BertModel", "BertForMaskedLM", "BertLMHeadModel") else {}
    assert_same(ours(**inputs), theirs(**inputs, **keeps_nothing), tolerance=1e-5, real=inputs.get("attention_mask"))
    both_ways = getattr(model_room, head).from_pretrained(tmp_path / "model", overrides={"is_decoder": False})
    if head != "BertLMHeadModel":  # which always reads from left to right
        mine, other = ours(**inputs), both_ways(**inputs)
        assert any(
            not torch.allclose(getattr(mine, field.name), getattr(other, field.name), atol=1e-3)
            for field in fields(mine)
            if isinstance(getattr(mine, field.name), Tensor)
        )


@pytest.mark.parametrize("head", HEADS)
def test_position_ids_and_embeddings_as_input(head: str, tmp_path: Path) -> None:
    ours, theirs = pair(head, tmp_path / "model")
    inputs = inputs_for(head)
    ids = inputs.pop("input_ids")
    inputs["inputs_embeds"] = torch.randn(*ids.shape, 32)
    inputs["position_ids"] = torch.randint(0, 40, ids.shape)
    real = inputs["attention_mask"]
    assert_same(ours(**inputs), theirs(**inputs), tolerance=1e-5, real=real)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [
        (None, 1, torch.tensor([0.5, -1.0, 2.0])),
        (None, 3, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])),
        ("regression", 3, torch.randn(3, 3)),
        ("multi_label_classification", 2, torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])),
        ("single_label_classification", 3, torch.tensor([0, 2, 1])),
    ],
)
def test_losses_of_sequence_classification(
    problem_type: str | None, num_labels: int, labels: Tensor, tmp_path: Path
) -> None:
    config = TINY.replace(num_labels=num_labels, problem_type=problem_type)
    ours, theirs = pair("BertForSequenceClassification", tmp_path / "model", config)
    inputs = inputs_for("BertForSequenceClassification")
    mine, other = ours(**inputs, labels=labels), theirs(**inputs, labels=labels)
    assert mine.loss.item() == pytest.approx(other.loss.item(), rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_what_they_save_we_load(head: str, tmp_path: Path) -> None:
    theirs = getattr(transformers, head)(transformers.BertConfig.from_dict(config_for(head).to_dict())).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(model_room, head).from_pretrained(tmp_path / "theirs")
    assert str(ours.load_report) == ""
    inputs = inputs_for(head)
    assert_same(ours(**inputs), theirs(**inputs), tolerance=1e-5, real=inputs["attention_mask"])
