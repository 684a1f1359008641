"""A network that ONNX Runtime runs, called as ours is: `model.onnx` in the place of `model.safetensors`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from bertsmith.errors import CheckpointError, MissingExtraError, Stopped, UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.heads import HeadOutputs, QuestionAnsweringOutputs
from bertsmith.model.language import PreTrainingOutputs
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_config

ONNX_FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""int64, (batch, seq), of multiple choice (batch, choices, seq)."""
STATES = "last_hidden_state"
SENTENCE = "sentence_embedding"

_OUTPUTS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("logits",): lambda logits: HeadOutputs(None, logits, None, None),
    ("start_logits", "end_logits"): lambda start, end: QuestionAnsweringOutputs(None, start, end, None, None),
    ("prediction_logits", "seq_relationship_logits"): lambda words, follows: PreTrainingOutputs(
        None, words, follows, None, None
    ),
    (STATES, SENTENCE): lambda states, _: states,
    (STATES, "pooler_output"): lambda states, _: states,
    (STATES,): lambda states: states,
}
"""Names of a graph's outputs -> what the class of ours that it came from gives."""


class OnnxNetwork(Pretrained):
    """The forward pass of a head as ONNX Runtime computes it, on the CPU; it cannot be trained.

    Raises `MissingExtraError` without ONNX Runtime, and `CheckpointError` where the file is damaged or is no graph of a
    BERT with these inputs and outputs.
    """

    def __init__(self, config: BertConfig, path: Path, *, threads: int):
        super().__init__(config)
        self.path, self.threads = path, threads
        self._session = _session(path, threads)
        self._inputs = tuple(given.name for given in self._session.get_inputs())
        self._outputs = tuple(given.name for given in self._session.get_outputs())
        if self._outputs not in _OUTPUTS or not set(self._inputs) <= set(INPUTS) or INPUTS[0] not in self._inputs:
            raise CheckpointError(
                f"{path} takes {', '.join(self._inputs)} and gives {', '.join(self._outputs)}; that is no graph as "
                "`bertsmith export onnx` writes it"
            )
        labels = self._session.get_outputs()[0].shape[-1]
        if self._outputs == ("logits",) and isinstance(labels, int) and labels != (wanted := _num_scores(config)):
            raise CheckpointError(f"{path} gives {labels} scores, but by config.json there are {wanted}")

    @classmethod
    def load(cls, directory: Path, *, threads: int) -> Self:
        """The network of a directory with `model.onnx` and `config.json`."""
        return cls(read_config(directory), directory / ONNX_FILE, threads=threads).eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Any:
        """What the class gives that the graph came from; see `INPUTS` for shapes. Without a mask all are tokens."""
        return _OUTPUTS[self._outputs](*self.outputs(input_ids, attention_mask, token_type_ids))

    def outputs(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> list[Tensor]:
        """All that the graph gives, in its order."""
        ones, zeros = torch.ones_like, torch.zeros_like
        given = dict(
            zip(
                INPUTS,
                (
                    input_ids,
                    ones(input_ids) if attention_mask is None else attention_mask,
                    zeros(input_ids) if token_type_ids is None else token_type_ids,
                ),
                strict=True,
            )
        )
        feeds = {name: np.ascontiguousarray(given[name].numpy()) for name in self._inputs}
        try:
            found = self._session.run(list(self._outputs), feeds)
        except (Stopped, MemoryError):
            raise
        except Exception as error:  # ONNX Runtime has errors of its own
            raise CheckpointError(f"{self.path}: ONNX Runtime could not run it ({_first_line(error)})") from error
        return [torch.from_numpy(one) for one in found]

    @property
    def num_parameters(self) -> int:
        """Unknown: a graph's constants are not all weights."""
        return 0

    def save_pretrained(self, directory: str | Path) -> NoReturn:  # noqa: ARG002
        raise UsageError(f"{self.path} is an ONNX graph; weights can be written only from the model that it came from")


def is_onnx(directory: Path) -> bool:
    """Whether a model directory holds a graph and no weights."""
    return (directory / ONNX_FILE).is_file() and not any(directory.glob("model*.safetensors"))


def _num_scores(config: BertConfig) -> int:
    """Of each item: words, the two of next sentence, or labels."""
    (head, *_) = config.extra.get("architectures") or [""]
    words = dict.fromkeys(("BertForMaskedLM", "BertLMHeadModel"), config.vocab_size)
    return (words | {"BertForNextSentencePrediction": 2}).get(head, config.num_labels)


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"{path}, an ONNX model,", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (Stopped, MemoryError):
        raise
    except Exception as error:
        reason = _first_line(error)
        raise CheckpointError(f"{path} is damaged or no ONNX model that ONNX Runtime reads ({reason})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
