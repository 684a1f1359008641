"""Vectors of texts from any BERT's layers, for search, clustering or a model of another kind (Devlin et al. 2018,
section 5.3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bertsmith.artifact import draft_of, output_to
from bertsmith.errors import UsageError
from bertsmith.model.encoder import BertModel
from bertsmith.model.pooling import pooled
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime, detect
from bertsmith.tasks.batches import TaskBatch, evaluation_batches
from bertsmith.tasks.features import Features
from bertsmith.tasks.predict import BATCH_TOKENS, ROWS_AT_ONCE, check_max_length, check_tokenizer
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.texts import encode_texts
from bertsmith.tokenizer.encode import Tokenizer

Pooling = Literal["cls", "mean", "pooler", "tokens"]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TextVectors:
    """What a model says of one text."""

    vectors: Vectors
    """(width,) of the text, or (tokens, width) of each of its tokens; width is hidden size x layers."""
    tokens: tuple[str, ...]
    """Its tokens, [CLS] and [SEP] included."""


@dataclass(frozen=True)
class FeatureExtractor:
    """An encoder, ready to give vectors: FeatureExtractor.load(MODEL).extract(["a text", "another"])."""

    model: BertModel
    tokenizer: Tokenizer
    runtime: Runtime
    pooling: Pooling
    layers: tuple[int, ...]
    max_length: int

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        pooling: Pooling = "mean",
        layers: Sequence[int] = (-1,),
        max_length: int | None = None,
        runtime: Runtime | None = None,
    ) -> "FeatureExtractor":
        """Load the encoder of any model directory, run or hub name.

        Args:
            pooling: of a text's tokens to one vector: that of [CLS], the mean over all tokens ([CLS] and [SEP] too, as
                sentence-transformers has it), or the pooler's, which pre-training on sentence pairs has trained;
                or "tokens": a vector each.
            layers: 0 is the embeddings, 1 the lowest layer, -1 the highest; of several the vectors stand side by side.
            max_length: tokens read of a text; by default as many as the model has positions.

        Raises `UsageError` for a layer that the model does not have, or a pooler that was never trained.
        """
        directory = resolve_model_dir(name)
        config, tokenizer = read_config(directory), Tokenizer.load(directory)
        check_tokenizer(tokenizer, config, directory)
        if pooling not in get_args(Pooling):
            raise UsageError(f"pooling = {pooling!r}; use one of: {', '.join(get_args(Pooling))}")
        count = config.num_hidden_layers + 1
        if wrong := [layer for layer in layers if not -count <= layer < count]:
            raise UsageError(f"no layer {wrong[0]}; {directory} has 0 (embeddings) to {count - 1}, or -1 to -{count}")
        if not layers or (pooling == "pooler" and tuple(layers) not in ((-1,), (count - 1,))):
            raise UsageError("name at least one layer, and for the pooler only the highest, which it reads")
        max_length = max_length or config.max_position_embeddings
        check_max_length(max_length, config, directory)
        model = BertModel.from_pretrained(directory)
        fresh = () if model.load_report is None else model.load_report.fresh
        if pooling == "pooler" and fresh:
            raise UsageError(f"{directory} has no trained pooler; use pooling = 'cls' or 'mean'")
        runtime = runtime or detect(dtype="float32")
        return cls(model.to(runtime.device).eval(), tokenizer, runtime, pooling, tuple(layers), max_length)

    def extract(self, texts: Sequence[str]) -> list[TextVectors]:
        """One for each text, in their order. Shapes: see `TextVectors`."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UsageError("extract takes a list of texts")
        features = encode_texts(
            [TextRow(text, None, line) for line, text in enumerate(texts, 1)],
            self.tokenizer,
            max_length=self.max_length,
        )
        found: dict[int, TextVectors] = {}
        for examples, batch in self._batches(features):
            lengths = features.tokens.lengths[examples]
            with torch.no_grad(), self.runtime.autocast():
                vectors = self._vectors(batch.to(self.runtime.device)).float().cpu().numpy()
            for number, own, length in zip(examples.tolist(), vectors, lengths.tolist(), strict=True):
                start = features.tokens.starts[number]
                tokens = tuple(self.tokenizer.tokens(features.tokens.values[start : start + length].tolist()))
                found[number] = TextVectors(own[:length].copy() if self.pooling == "tokens" else own, tokens)
        return [found[number] for number in range(len(texts))]

    def _batches(self, features: Features) -> Iterator[tuple[npt.NDArray[np.int64], TaskBatch]]:
        most = BATCH_TOKENS.get(self.runtime.device.type, 4096)
        return evaluation_batches(features, objective="", pad_id=self.tokenizer.pad_id, batch_tokens=most)

    def _vectors(self, batch: TaskBatch) -> Tensor:
        """(batch, width), or (batch, seq, width) of tokens."""
        outputs = self.model(batch.input_ids, batch.attention_mask, output_hidden_states=True)
        if self.pooling == "pooler":
            vectors: Tensor = outputs.pooler_output
            return vectors
        hidden = torch.cat([outputs.hidden_states[layer] for layer in self.layers], dim=-1)
        if self.pooling == "tokens":
            return hidden
        return pooled(hidden, batch.attention_mask, self.pooling)


def extract_features(
    model: str | Path | FeatureExtractor,
    texts: Sequence[str],
    out: str | Path | None = None,
    *,
    pooling: Pooling = "mean",
    layers: Sequence[int] = (-1,),
    max_length: int | None = None,
    runtime: Runtime | None = None,
) -> list[TextVectors] | Path:
    """The vectors of texts; with `out`, written there in their order and its path returned.

    .npy holds a (texts, width) float32 array; .parquet a row a text, with columns text and vector, or, for "tokens",
    text, tokens and vectors. See `FeatureExtractor.load` for the rest.
    """
    if not isinstance(model, FeatureExtractor):
        model = FeatureExtractor.load(model, pooling=pooling, layers=layers, max_length=max_length, runtime=runtime)
    if out is None:
        return model.extract(texts)
    path = Path(out)
    write = {".npy": _write_npy, ".parquet": _write_parquet}.get(path.suffix)
    if write is None or (path.suffix == ".npy" and model.pooling == "tokens"):
        what = (
            "texts have unequal numbers of tokens"
            if write
            else f"cannot write {path.suffix or 'a file without ending'}"
        )
        raise UsageError(f"{path}: {what}; use .parquet" + ("" if write else " or .npy"))
    with output_to(path), draft_of(path) as draft:
        write(model, texts, draft)
    return path


def _some(model: FeatureExtractor, texts: Sequence[str]) -> Iterator[tuple[Sequence[str], list[TextVectors]]]:
    for start in range(0, len(texts), ROWS_AT_ONCE):
        part = texts[start : start + ROWS_AT_ONCE]
        yield part, model.extract(part)


def _write_npy(model: FeatureExtractor, texts: Sequence[str], path: Path) -> None:
    width = model.model.config.hidden_size * len(model.layers)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
    with path.open("wb") as file:  # not a memory map: a full disk would kill the process
        np.lib.format.write_array_header_1_0(file, header | {"shape": (len(texts), width)})
        for _, found in _some(model, texts):
            file.write(np.stack([row.vectors for row in found]).tobytes())


def _write_parquet(model: FeatureExtractor, texts: Sequence[str], path: Path) -> None:
    width = model.model.config.hidden_size * len(model.layers)
    vector = pa.list_(pa.float32(), width)
    fields = [("text", pa.string()), ("vector", vector)]
    if model.pooling == "tokens":
        fields = [("text", pa.string()), ("tokens", pa.list_(pa.string())), ("vectors", pa.list_(vector))]
    with pq.ParquetWriter(path, pa.schema(fields)) as writer:
        for part, found in _some(model, texts):
            columns: dict[str, object] = {"text": list(part)}
            if model.pooling == "tokens":
                columns["tokens"] = [list(row.tokens) for row in found]
                columns["vectors"] = [row.vectors.tolist() for row in found]
            else:
                columns["vector"] = [row.vectors.tolist() for row in found]
            writer.write_table(pa.table(columns, schema=pa.schema(fields)))
