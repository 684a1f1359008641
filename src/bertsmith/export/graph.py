"""A head's network as an ONNX graph: int64 tokens in, the head's own outputs out, batch and length open.

The graph is of the standard operators of `OPSET`, all but attention: where it is made for ONNX Runtime, each layer's is
that runtime's own `com.microsoft.Attention` (one product for query, key and value, and no scores in memory).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bertsmith.errors import MissingExtraError
from bertsmith.model.encoder import BertModel, Layer, SelfAttention, encoder_of
from bertsmith.model.heads import BertForMultipleChoice, BertForQuestionAnswering, SentenceEncoder
from bertsmith.model.language import BertForPreTraining
from bertsmith.model.onnx_network import INPUTS, SENTENCE, STATES
from bertsmith.model.pooling import Pooling, pooled
from bertsmith.model.pretrained import Pretrained

OPSET = 20
"""Of the standard operators: the first with Gelu. ONNX Runtime reads it since 1.17."""


class Graph(nn.Module):
    """What is traced: a network whose inputs are all given and whose outputs are a tuple of tensors."""

    def __init__(self, network: Pretrained, pooling: Pooling = "mean"):
        super().__init__()
        self.network, self.pooling = network, pooling

    @property
    def output_names(self) -> tuple[str, ...]:
        kinds: dict[type[Pretrained], tuple[str, ...]] = {
            BertForQuestionAnswering: ("start_logits", "end_logits"),
            BertForPreTraining: ("prediction_logits", "seq_relationship_logits"),
            SentenceEncoder: (STATES, SENTENCE),
        }
        if isinstance(self.network, BertModel):
            return (STATES,) if self.network.pooler is None else (STATES, "pooler_output")
        return next((names for kind, names in kinds.items() if isinstance(self.network, kind)), ("logits",))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.network, SentenceEncoder):
            states = self.network.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
            return states, pooled(states, attention_mask, self.pooling)
        found = self.network(input_ids, attention_mask, token_type_ids)
        return tuple(getattr(found, name) for name in self.output_names)


class FusedAttention(nn.Module):
    """A layer's attention as ONNX Runtime's own operator; it can be traced, not run."""

    def __init__(self, attention: SelfAttention, *, causal: bool):
        super().__init__()
        parts = (attention.query, attention.key, attention.value)
        self.weight = nn.Parameter(torch.cat([part.weight.T for part in parts], dim=1).contiguous())
        self.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self.width = attention.query.out_features
        self.attributes: dict[str, Any] = {
            "num_heads": attention.num_heads,
            "qkv_hidden_sizes": [self.width] * 3,
            "unidirectional": int(causal),
        }

    def forward(self, hidden: Tensor, bias: Tensor | None, *, want_attention: bool) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        assert bias is not None, "the graph is given a mask"
        mask = (bias[:, 0, -1] == 0).to(torch.int32)  # (batch, seq); the last token sees all, causal or not
        context: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::Attention",
            (hidden, self.weight, self.bias, mask),
            self.attributes,
            dtype=hidden.dtype,
            shape=(*hidden.shape[:2], self.width),
            version=1,
        )
        return context, None


def export_graph(network: Pretrained, path: Path, *, pooling: Pooling = "mean", portable: bool = False) -> None:
    """Write the graph of a network in evaluation mode, float32; `portable`: of standard operators alone.

    Raises `MissingExtraError` where the extra is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - what torch exports with
    except ImportError as error:
        raise MissingExtraError("an ONNX export", "onnx") from error
    fused = not portable and hasattr(torch.onnx, "ops")  # older releases of PyTorch cannot name a runtime's operators
    with _fused_attention(network) if fused else nullcontext():
        model = _traced(Graph(network, pooling))
    _tidy(model)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))


@contextmanager
def _fused_attention(network: Pretrained) -> Iterator[None]:
    halves = [cast(Layer, layer).attention for layer in encoder_of(network).layer]
    whole = [half.self for half in halves]
    try:
        for half, attention in zip(halves, whole, strict=True):
            half.self = FusedAttention(attention, causal=network.config.is_decoder)  # type: ignore[assignment]
        yield
    finally:
        for half, attention in zip(halves, whole, strict=True):
            half.self = attention


def _traced(graph: Graph) -> Any:
    """An onnx.ModelProto. What the exporter tells of its progress, and of packages that it could use, is kept back."""
    config = graph.network.config
    lead = (2, 2) if isinstance(graph.network, BertForMultipleChoice) else (2,)
    shape = (*lead, min(4, config.max_position_embeddings))
    example = tuple(torch.ones(shape, dtype=torch.int64) for _ in INPUTS)
    names = ("batch", "choices", "sequence") if len(lead) == 2 else ("batch", "sequence")
    axes = {number: torch.export.Dim(name) for number, name in enumerate(names[:-1])}
    axes[len(lead)] = torch.export.Dim(names[-1], max=config.max_position_embeddings)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                example,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=list(graph.output_names),
                dynamic_shapes=(axes,) * len(INPUTS),
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None, "dynamo gives a program"
    return program.model_proto


def _tidy(model: Any) -> None:
    """Name each node by the module that it is of, and forget where on this machine its code stands."""
    import bertsmith

    for number, node in enumerate(model.graph.node):
        scopes = next((one.value for one in node.metadata_props if one.key == "pkg.torch.onnx.name_scopes"), "[]")
        modules = [name.strip("' ") for name in scopes.strip("[]").split(",")]
        scope = next((name for name in reversed(modules) if name.startswith("network.")), "")
        node.name = f"{scope.removeprefix('network.').removeprefix('bert.')}/{node.op_type}_{number}"
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.name, model.doc_string = "bert", ""
    model.producer_name, model.producer_version = "bertsmith", bertsmith.__version__
