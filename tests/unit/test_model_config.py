"""Each field of a config.json is honoured, refused by name, or kept."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model import BertConfig, BertModel, preset
from bertsmith.model.config import REFUSED_UNLESS
from bertsmith.model.presets import PRESETS

BERT_BASE_CHINESE = {  # as the hub has it
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "type_vocab_size": 2,
    "vocab_size": 21128,
}


def test_a_published_config_is_read_and_its_bookkeeping_kept() -> None:
    config = BertConfig.from_dict(BERT_BASE_CHINESE)
    assert config == dataclasses.replace(BertConfig(vocab_size=21128), extra=config.extra)
    assert config.to_dict().items() >= BERT_BASE_CHINESE.items()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "roberta"),
        ("position_embedding_type", "relative_key"),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("chunk_size_feed_forward", 64),
        ("gradient_checkpointing", True),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"load_in_8bit": True}),
        ("pooler_type", "mean"),
        ("embedding_size", 128),
    ],
)
def test_what_this_network_is_not_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"a/config.json: {key} = "):
        BertConfig.from_dict(BERT_BASE_CHINESE | {key: value}, where="a/config.json")


@pytest.mark.parametrize("key", [key for key in REFUSED_UNLESS if key != "model_type"])
def test_the_harmless_value_of_such_a_key_is_fine(key: str) -> None:
    for value in REFUSED_UNLESS[key]:
        BertConfig.from_dict(BERT_BASE_CHINESE | {key: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", "many"),
        ("hidden_size", 100),  # not a multiple of 12 heads
        ("num_hidden_layers", -1),
        ("num_hidden_layers", True),
        ("hidden_act", "swiglu"),
        ("hidden_dropout_prob", 1.0),
        ("attention_probs_dropout_prob", -0.1),
        ("classifier_dropout", 2),
        ("layer_norm_eps", "tiny"),
        ("pad_token_id", 21128),
        ("is_decoder", "yes"),
        ("problem_type", "ranking"),
        ("id2label", {"0": "a", "2": "b"}),
        ("id2label", ["a", "b"]),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {field} = "):
        BertConfig.from_dict(BERT_BASE_CHINESE | {field: value}, where="config.json")


def test_labels_come_and_go_under_the_names_of_hugging_face() -> None:
    config = BertConfig.from_dict({"id2label": {"0": "O", "1": "CODE", "2": "X"}, "label2id": {"O": 0}})
    assert config.num_labels == 3
    assert config.labels == ("O", "CODE", "X")
    assert config.to_dict()["label2id"] == {"O": 0, "CODE": 1, "X": 2}
    assert config.replace(num_labels=2).labels == ("LABEL_0", "LABEL_1")
    assert "id2label" not in BertConfig().to_dict()
    assert BertConfig(num_labels=3).to_dict()["id2label"]["2"] == "LABEL_2"


@given(
    layers=st.integers(0, 30),
    heads=st.integers(1, 16),
    width=st.integers(1, 64),
    dropout=st.floats(0, 0.99),
    labels=st.lists(st.text(min_size=1, max_size=5), max_size=5, unique=True),
    pad=st.none() | st.integers(0, 50),
)
def test_to_dict_and_back_through_json(
    layers: int, heads: int, width: int, dropout: float, labels: list[str], pad: int | None
) -> None:
    config = BertConfig(
        vocab_size=60,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_size=heads * width,
        classifier_dropout=dropout,
        num_labels=len(labels) or 2,
        id2label=dict(enumerate(labels)),
        pad_token_id=pad,
    )
    again = BertConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert dataclasses.replace(again, extra={}) == config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_heads_of_64(name: str) -> None:
    config = preset(name)
    assert config.head_size == 64
    assert config.intermediate_size == 4 * config.hidden_size


def test_sizes_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        millions = {name: BertModel(preset(name)).num_parameters / 1e6 for name in PRESETS}
    assert {name: round(value, 1) for name, value in millions.items()} == {
        "tiny": 4.4,
        "mini": 11.2,
        "small": 28.8,
        "medium": 41.4,
        "base": 109.5,
        "large": 335.1,
    }


def test_an_unknown_preset_or_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'huge'; use one of tiny, mini"):
        preset("huge")
    with pytest.raises(UsageError, match="did you mean 'hidden_dropout_prob'"):
        preset("tiny", {"hidden_dropout": 0.0})
    with pytest.raises(UsageError, match="position_embedding_type = 'relative_key' is not supported"):
        preset("tiny", {"position_embedding_type": "relative_key"})
    with pytest.raises(UsageError, match="vocab_size = -5 is not possible"):
        preset("tiny", {"vocab_size": -5})
    assert preset("tiny", {"vocab_size": 99, "position_embedding_type": "absolute"}).vocab_size == 99
