"""ONNX graphs of 8-bit integers, by ONNX Runtime's own quantizer: ranges from each batch, or fixed by sample rows."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.artifact import write_json
from bertsmith.compress.int8_torch import write_beside
from bertsmith.errors import MissingExtraError
from bertsmith.export.graph import export_graph
from bertsmith.model.language import LanguageModel
from bertsmith.model.onnx_network import INPUTS, ONNX_FILE
from bertsmith.tasks.batches import evaluation_batches
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.features import Features
from bertsmith.tasks.predict import Predictor

_BATCH_TOKENS = 1024


@dataclass
class OnnxQuantizer:
    """Writes a model as a graph with some layers in int8, and the word embeddings where nothing else uses them."""

    whole: Predictor
    work: Path
    """For the graph in float32, that is written once."""
    calibration: Features | None
    """Rows that fix the ranges of activations; None: each batch has its own."""
    name = "onnx"
    _graph: Path | None = field(default=None, init=False)

    @property
    def in_words(self) -> str:
        ranges = "of each batch" if self.calibration is None else "fixed by training rows"
        return f"by ONNX Runtime; ranges of activations {ranges}"

    def write(self, directory: Path, layers: frozenset[int]) -> None:
        try:
            import onnx
            from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
        except ImportError as error:
            raise MissingExtraError("int8 by ONNX Runtime", "onnx") from error
        if self._graph is None:
            self._graph = self.work / "whole.onnx"
            pooling = self.whole.task.pooling if isinstance(self.whole.task, Embed) else "mean"
            export_graph(self.whole.model, self._graph, pooling=pooling, portable=self.calibration is not None)
        nodes = onnx.load(self._graph, load_external_data=False).graph.node
        inside = tuple(f"encoder.layer.{layer}." for layer in layers)
        kinds = ["MatMul", "Attention"] + ([] if isinstance(self.whole.model, LanguageModel) else ["Gather"])
        chosen = [node.name for node in nodes if node.op_type in kinds and _is_chosen(node, inside)]
        directory.mkdir(parents=True)
        common: dict[str, Any] = {"op_types_to_quantize": kinds, "nodes_to_quantize": chosen, "per_channel": True}
        path = directory / ONNX_FILE
        logger, level = logging.getLogger(), logging.getLogger().level
        logger.setLevel(logging.ERROR)  # it advises on preparing the graph, which was written prepared
        try:
            if self.calibration is None:
                only_weights = {"MatMulConstBOnly": True}
                quantize_dynamic(self._graph, path, weight_type=QuantType.QInt8, extra_options=only_weights, **common)
            else:
                reader = _Reader(self.whole, self.calibration)
                quantize_static(
                    self._graph,
                    path,
                    reader,
                    quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
                    **common,
                )
        finally:
            logger.setLevel(level)
        network = self.whole.model
        write_json(directory / "config.json", network.config.to_dict() | {"architectures": [network.architecture]})
        write_beside(self.whole, directory)


def _is_chosen(node: Any, inside: tuple[str, ...]) -> bool:
    if node.op_type == "Gather":
        return bool(node.name.startswith("embeddings.word_embeddings/"))
    return bool(node.name.startswith(inside))


class _Reader:
    """Feeds of sample rows, one batch after the other, as the quantizer asks for them."""

    def __init__(self, whole: Predictor, features: Features):
        self._feeds = self._all(whole, features)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)

    def _all(self, whole: Predictor, features: Features) -> Iterator[dict[str, Any]]:
        wide = whole.task.name == "choose"
        batches = evaluation_batches(
            features, objective=whole.task.name, pad_id=whole.tokenizer.pad_id, batch_tokens=_BATCH_TOKENS
        )
        for _, batch in batches:
            ids = batch.input_ids.numpy()
            mask = np.ones_like(ids) if batch.attention_mask is None else batch.attention_mask.numpy()
            types = np.zeros_like(ids) if batch.token_type_ids is None else batch.token_type_ids.numpy()
            given = (one[:, None] if wide else one for one in (ids, mask, types))
            yield dict(zip(INPUTS, given, strict=True))
