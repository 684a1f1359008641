"""Promise 7: an ONNX graph answers as the network that it was written from, each head, to 1e-4 (here 1e-5)."""

from pathlib import Path

import onnx
import pytest
import torch

from bertsmith.export.check import check_outputs
from bertsmith.export.graph import OPSET, Graph, export_graph
from bertsmith.model import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
)
from bertsmith.model.heads import SentenceEncoder
from bertsmith.model.onnx_network import OnnxNetwork
from bertsmith.model.pretrained import Pretrained

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=24,
    initializer_range=0.3,
    num_labels=3,
)
UNEVEN = CONFIG.replace(layer_heads=(3, 1))
HEADS = (
    *(BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering, BertForMultipleChoice),
    *(BertForMaskedLM, BertForPreTraining, BertLMHeadModel, BertForNextSentencePrediction, SentenceEncoder, BertModel),
)


def written(network: Pretrained, path: Path, *, portable: bool) -> OnnxNetwork:
    export_graph(network, path, portable=portable)
    config = network.config
    return OnnxNetwork(config.replace(extra={"architectures": [network.architecture]}), path, threads=1)


def difference(network: Pretrained, graph: OnnxNetwork) -> float:
    """Of all outputs, over several lengths."""
    has_choices = isinstance(network, BertForMultipleChoice)
    return check_outputs(network.config, Graph(network), graph.outputs, has_choices=has_choices).difference


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_for_onnx_runtime(head: type[Pretrained], tmp_path: Path) -> None:
    """With heads of unequal number a layer, which no Hugging Face directory can hold."""
    torch.manual_seed(1)
    network = head(UNEVEN).eval()
    graph = written(network, tmp_path / "model.onnx", portable=False)
    assert difference(network, graph) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.replace(head_layers=1, head_pooling="mean"),
        CONFIG.replace(head_layers=1, head_pooling="first-last"),
        CONFIG.replace(hidden_act="gelu_new", is_decoder=True),
    ],
    ids=["mean pooling", "first and last layer", "causal"],
)
def test_portable(config: BertConfig, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = BertForSequenceClassification(config).eval()
    graph = written(network, tmp_path / "model.onnx", portable=True)
    assert difference(network, graph) < 1e-5
    found = onnx.load(tmp_path / "model.onnx")
    assert [(one.domain, one.version) for one in found.opset_import] == [("", OPSET)]


def test_a_graph_says_nothing_of_the_machine(tmp_path: Path) -> None:
    export_graph(BertForSequenceClassification(CONFIG).eval(), tmp_path / "model.onnx")
    found = onnx.load(tmp_path / "model.onnx")
    assert b".py" not in found.SerializeToString()
    names = [node.name for node in found.graph.node]
    assert len(set(names)) == len(names)
    assert any(name.startswith("encoder.layer.1.intermediate.dense/MatMul") for name in names)
    assert [one.name for one in found.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    shapes = [[axis.dim_param for axis in one.type.tensor_type.shape.dim] for one in found.graph.input]
    assert shapes == [["batch", "sequence"]] * 3
