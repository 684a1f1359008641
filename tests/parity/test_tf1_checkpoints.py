"""An imported TensorFlow 1 checkpoint answers as Google's modeling.py has it, in NumPy, and transformers loads it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from scipy.special import erf

from bertsmith.export.bring_in import import_tf1
from tf1_case import FIXTURE, HEADS, HIDDEN, LAYERS, weights, write_with_tensorflow

IDS = np.array([[2, 5, 6, 7, 8, 9, 3], [2, 12, 13, 10, 11, 3, 5]])
TYPES = np.array([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]])
W = {name: value.astype(np.float64) for name, value in weights().items()}
Array = npt.NDArray[np.float64]


def norm(states: Array, name: str) -> Array:
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * W[f"{name}/LayerNorm/gamma"] + W[f"{name}/LayerNorm/beta"]


def dense(states: Array, name: str) -> Array:
    return states @ W[f"{name}/kernel"] + W[f"{name}/bias"]


def gelu(states: Array) -> Array:
    return states * 0.5 * (1 + erf(states / np.sqrt(2)))


def attention(states: Array, name: str) -> Array:
    split = [
        dense(states, f"{name}/{part}").reshape(*IDS.shape, HEADS, -1).swapaxes(1, 2)
        for part in ("query", "key", "value")
    ]
    scores = split[0] @ split[1].swapaxes(2, 3) / np.sqrt(HIDDEN // HEADS)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ split[2]).swapaxes(1, 2).reshape(*IDS.shape, HIDDEN)


def forward() -> tuple[Array, Array]:
    """Scores of words, and of the next sentence."""
    table = W["bert/embeddings/word_embeddings"]
    states = table[IDS] + W["bert/embeddings/token_type_embeddings"][TYPES]
    states = norm(states + W["bert/embeddings/position_embeddings"][: IDS.shape[1]], "bert/embeddings")
    for number in range(LAYERS):
        layer = f"bert/encoder/layer_{number}"
        mixed = dense(attention(states, f"{layer}/attention/self"), f"{layer}/attention/output/dense")
        states = norm(mixed + states, f"{layer}/attention/output")
        inner = gelu(dense(states, f"{layer}/intermediate/dense"))
        states = norm(dense(inner, f"{layer}/output/dense") + states, f"{layer}/output")
    pooled = np.tanh(dense(states[:, 0], "bert/pooler/dense"))
    transformed = gelu(dense(states, "cls/predictions/transform/dense"))
    words = norm(transformed, "cls/predictions/transform") @ table.T + W["cls/predictions/output_bias"]
    return words, pooled @ W["cls/seq_relationship/output_weights"].T + W["cls/seq_relationship/output_bias"]


def test_answers(tmp_path: Path) -> None:
    found = import_tf1(FIXTURE, tmp_path / "out")
    assert (found.architecture, found.left_out, found.unexpected, found.lowercase) == (
        "BertForPreTraining",
        5,
        (),
        True,
    )
    theirs, report = transformers.BertForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(IDS), token_type_ids=torch.from_numpy(TYPES))
    words, sentences = forward()
    np.testing.assert_allclose(outputs.prediction_logits, words, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs.seq_relationship_logits, sentences, rtol=1e-4, atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("The day was lovely")["input_ids"] == [2, 5, 6, 7, 8, 9, 3]


@pytest.mark.slow
def test_the_fixture_is_what_tensorflow_writes(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    write_with_tensorflow(tmp_path)
    for file in FIXTURE.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name
