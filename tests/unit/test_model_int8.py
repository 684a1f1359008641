"""8-bit layers: products are those of the rounded numbers, answers near the whole model's, files checked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
    int8,
)
from bertsmith.model.encoder import encoder_of
from bertsmith.model.heads import SentenceEncoder
from bertsmith.model.int8 import Int8Layer, Int8Linear, LayerRanges, Range, quantized_rows
from bertsmith.model.int8_files import load_int8, save_int8
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_tensors, save_tensors

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=24,
    initializer_range=0.1,
    num_labels=3,
)
IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 5, 6, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
WIDE: LayerRanges = (Range.of(-4, 4), Range.of(-2, 2), Range.of(-4, 4), Range.of(-0.2, 4))
HEADS = (
    *(BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering, BertForMultipleChoice),
    *(BertForMaskedLM, BertLMHeadModel, BertForNextSentencePrediction, SentenceEncoder, BertModel),
)


@pytest.fixture(params=[True, False], ids=["as here", "without the instructions"])
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(int8, "has_fast_int8", lambda: False)


def first(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else next(one for one in vars(outputs).values() if one is not None)


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("gives", [None, Range.of(-0.5, 3.0)])
@pytest.mark.usefixtures("speed")
def test_a_product_is_that_of_the_rounded_numbers(activation: str | None, gives: Range | None) -> None:
    torch.manual_seed(0)
    weight, scale = quantized_rows(torch.randn(24, 16))
    bias, given = torch.randn(24), Range.of(-2.0, 3.0)
    x = given.to_uint8(torch.randn(5, 7, 16))
    wanted = given.to_float(x) @ (weight.float() * scale[:, None]).T + bias
    wanted = wanted if activation is None else int8.ACTIVATION_FUNCTIONS[activation](wanted)
    found = Int8Linear(weight, scale, bias, given, activation=activation, gives=gives)(x)
    if gives is None:
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    else:
        assert found.dtype == torch.uint8
        inside = wanted.clamp(-0.5, 3.0)
        torch.testing.assert_close(gives.to_float(found), inside, rtol=0, atol=0.51 * gives.scale + 1e-4)


def test_a_range_holds_what_it_is_of_and_nothing_exactly() -> None:
    found = Range.of(0.5, 2.0)
    assert found.to_float(found.to_uint8(torch.zeros(1))).item() == 0
    values = torch.linspace(-9, 9, 1001)
    wide = Range.of(-3.0, 5.0)
    rounded = wide.to_float(wide.to_uint8(values))
    torch.testing.assert_close(rounded, values.clamp(-3, 5), rtol=0, atol=0.51 * wide.scale)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_every_head_answers_nearly_as_before(head: type[Pretrained], tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = head(CONFIG.replace(layer_heads=(4, 2, 4))).eval()
    save_int8(network, {0: WIDE, 2: WIDE}, tmp_path / "int8")
    again = load_int8(tmp_path / "int8", head)
    assert [isinstance(layer, Int8Layer) for layer in encoder_of(again).layer] == [True, False, True]
    given = [one[:, None] for one in (IDS, MASK)] if head is BertForMultipleChoice else [IDS, MASK]
    with torch.no_grad():
        before, after = first(network(*given)), first(again(*given))
        is_rounded = (after - before).abs().max()
        alone = first(again(*(one[:1] for one in given)))
    assert 0 < is_rounded < 0.06 * before.abs().max()
    torch.testing.assert_close(alone, after[:1], rtol=1e-5, atol=1e-6)  # no answer hangs on its neighbours


@pytest.mark.usefixtures("speed")
def test_without_the_instructions_answers_are_nearly_the_same(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = BertForSequenceClassification(CONFIG).eval()
    save_int8(network, dict.fromkeys(range(3), WIDE), tmp_path / "int8")
    with torch.no_grad():
        found = load_int8(tmp_path / "int8", BertForSequenceClassification)(IDS, MASK).logits
        wanted = network(IDS, MASK).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_int8(BertForSequenceClassification(CONFIG).eval(), dict.fromkeys(range(3), WIDE), tmp_path / "int8")
    return tmp_path / "int8"


def test_it_cannot_be_trained_nor_show_its_attention(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is stored as torch\.int8; only floating-point weights can be read"):
        BertForSequenceClassification.from_pretrained(saved)
    with pytest.raises(UsageError, match="keeps no attention; ask the model that it was made from"):
        load_int8(saved, BertForSequenceClassification)(IDS, output_attentions=True)


NAME = "bert.encoder.layer.1.attention.self.query."


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (f"{NAME}weight", None, "query.weight is missing; the file is not whole"),
        (f"{NAME}weight", torch.zeros(32, 31, dtype=torch.int8), r"asks for \(32, 32\) of torch.int8"),
        (f"{NAME}weight", torch.zeros(32, 32), r"is \(32, 32\) of torch.float32"),
        (f"{NAME}weight_scale", torch.full((32,), torch.nan), "holds numbers that are none"),
        ("bert.embeddings.word_embeddings.weight", torch.zeros(1, 32, dtype=torch.int8), r"asks for \(60, 32\)"),
        ("bert.embeddings.position_embeddings.weight", None, "position_embeddings.weight is missing"),
        ("classifier.weight", torch.zeros(4, 32), r"asks for \(3, 32\) of torch.float32"),
    ],
)
def test_files_that_are_not_whole_are_refused(saved: Path, name: str, value: Tensor | None, said: str) -> None:
    tensors = read_tensors(saved)
    facts = json.loads((saved / "config.json").read_text())
    tensors.pop(name)
    save_tensors(tensors if value is None else tensors | {name: value}, facts, saved)
    with pytest.raises(CheckpointError, match=said):
        load_int8(saved, BertForSequenceClassification)


@pytest.mark.parametrize(
    "layers",
    [
        *({"3": [[0.1, 3]] * 4}, {"-1": [[0.1, 3]] * 4}, {"0": [[0.1, 3]] * 3}, {"0": [[0.0, 3]] * 4}),
        *({"0": [[0.1, 256]] * 4}, {"0": [[float("inf"), 3]] * 4}, {"0": [["x", 3]] * 4}, {"0": 7}, [1, 2], None),
    ],
)
def test_ranges_that_cannot_be_are_refused(saved: Path, layers: object) -> None:
    facts = json.loads((saved / "config.json").read_text())
    facts["quantization_config"]["layers"] = layers
    (saved / "config.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="quantization_config is not as bertsmith writes it"):
        load_int8(saved, BertForSequenceClassification)


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"])
def test_sizes_beyond_all_memory_are_refused_at_once(saved: Path, key: str) -> None:
    facts = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(facts | {key: 4 * 10**8}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_int8(saved, BertForSequenceClassification)


def test_layers_of_modules_stay_as_they_were(saved: Path) -> None:
    network = load_int8(saved, BertForSequenceClassification)
    assert isinstance(network.get_submodule("classifier"), nn.Linear)
    assert not any(parameter.requires_grad and parameter.device.type == "meta" for parameter in network.parameters())
