"""Vectors of texts against transformers' output_hidden_states, of real text through a real model."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from typer.testing import CliRunner

import bertsmith
from bertsmith.cli import app
from bertsmith.errors import UsageError
from bertsmith.tasks.extract import FeatureExtractor
from finetune_case import CPU, text_rows, write_tiny_model

TEXTS = [
    "A short one.",
    "",
    "Another text, which is somewhat longer than the first one was.",
    "of",
    *["word " * 40] * 3,
]


@pytest.fixture(scope="module")
def theirs(minilm_dir: Path) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, ...], torch.Tensor]:
    """Inputs, hidden states of all layers, the pooler's output."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_dir)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = transformers.AutoModel.from_pretrained(minilm_dir)(**inputs, output_hidden_states=True)
    return inputs, found.hidden_states, found.pooler_output


@pytest.mark.parametrize("layers", [(-1,), (-1, -2, -3, -4), (0, 3)])
@pytest.mark.parametrize("pooling", ["cls", "mean", "tokens"])
def test_layers_and_pooling(minilm_dir, theirs, pooling, layers):
    inputs, states, _ = theirs
    hidden = torch.cat([states[layer] for layer in layers], dim=-1)
    mask = inputs["attention_mask"][..., None]
    ours = bertsmith.extract_features(minilm_dir, TEXTS, pooling=pooling, layers=layers, runtime=CPU)
    for number, row in enumerate(ours):
        length = int(mask[number].sum())
        expected = {
            "cls": hidden[number, 0],
            "mean": (hidden[number] * mask[number]).sum(0) / length,
            "tokens": hidden[number, :length],
        }[pooling]
        torch.testing.assert_close(torch.from_numpy(row.vectors), expected, rtol=1e-4, atol=1e-5)
        assert len(row.tokens) == length


def test_the_pooler(minilm_dir, theirs):
    found = FeatureExtractor.load(minilm_dir, pooling="pooler", runtime=CPU).extract(TEXTS)
    vectors = torch.from_numpy(np.stack([row.vectors for row in found]))
    torch.testing.assert_close(vectors, theirs[2], rtol=1e-4, atol=1e-5)


def test_files_hold_what_python_gives(tmp_path: Path):
    model = write_tiny_model(tmp_path / "model")
    texts = [text for text, _ in text_rows(30)]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    expected = np.stack([row.vectors for row in bertsmith.extract_features(model, texts, layers=(1, -1))])
    for name in ("a.npy", "a.parquet"):
        command = ["extract-features", str(model), str(tmp_path / "texts.txt"), "--out", str(tmp_path / name)]
        found = CliRunner().invoke(app, [*command, "--layers", "1,-1"])
        assert found.stdout.strip() == str(tmp_path / name)
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["text"].to_pylist() == texts
    assert np.array_equal(np.array(table["vector"].to_pylist(), dtype=np.float32), expected)
    bertsmith.extract_features(model, texts, tmp_path / "t.parquet", pooling="tokens")
    row = pq.read_table(tmp_path / "t.parquet").to_pylist()[0]
    assert (row["tokens"][0], row["tokens"][-1]) == ("[CLS]", "[SEP]")
    assert len(row["vectors"]) == len(row["tokens"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.parquet", "model", "t.parquet", "texts.txt"]


@pytest.mark.parametrize(
    ("settings", "out", "message"),
    [
        ({"layers": (3,)}, None, r"no layer 3; .* has 0 \(embeddings\) to 2, or -1 to -3"),
        ({"layers": ()}, None, "name at least one layer"),
        ({"pooling": "pooler", "layers": (0,)}, None, "for the pooler only the highest"),
        ({"pooling": "max"}, None, "pooling = 'max'; use one of: cls, mean, pooler, tokens"),
        ({"pooling": "tokens"}, "a.npy", "texts have unequal numbers of tokens; use .parquet"),
        ({}, "nowhere/a.npy", "there is no folder"),
        ({}, "a.csv", r"cannot write .csv; use .parquet or .npy"),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path: Path, settings, out, message):
    model = write_tiny_model(tmp_path / "model")
    with pytest.raises(UsageError, match=message):
        bertsmith.extract_features(model, ["a"], None if out is None else tmp_path / out, **settings)
