"""Checkpoints in other forms become Hugging Face directories: heads of TensorFlow 1, and pickles when allowed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.export.bring_in import import_bin, import_tf1
from bertsmith.model.language import BertForPreTraining
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_tensors
from bertsmith.tokenizer.encode import Tokenizer
from bundle_case import write_bundle
from finetune_case import write_tiny_model
from tf1_case import FIXTURE, HIDDEN, weights, write_around

RANDOM = np.random.default_rng(0).random((3, HIDDEN), dtype=np.float32)


def checkpoint(
    folder: Path, changes: dict[str, Any], *, without: str = "nothing", name: str = "bert_model.ckpt"
) -> Path:
    write_around(folder)
    kept = {name: value for name, value in weights().items() if not name.startswith(without)}
    write_bundle(folder / name, kept | changes)
    return folder


@pytest.mark.parametrize(
    ("without", "changes", "head"),
    [
        ("cls", {}, "BertModel"),
        ("cls/seq", {}, "BertForMaskedLM"),
        ("cls/pre", {}, "BertForNextSentencePrediction"),
        ("cls", {"output_weights": RANDOM, "output_bias": RANDOM[:, 0]}, "BertForSequenceClassification"),
        ("cls", {"cls/squad/output_weights": RANDOM[:2], "cls/squad/output_bias": RANDOM[:2, 0]},
         "BertForQuestionAnswering"),
    ],
)  # fmt: skip
def test_heads(tmp_path: Path, without: str, changes: dict[str, Any], head: str) -> None:
    found = import_tf1(checkpoint(tmp_path / "tf", changes, without=without), tmp_path / "out")
    assert found.architecture == head
    tensors = read_tensors(tmp_path / "out")
    kernel = weights()["bert/encoder/layer_1/attention/self/key/kernel"]
    (ours,) = [value for name, value in tensors.items() if name.endswith("layer.1.attention.self.key.weight")]
    assert np.array_equal(ours.numpy(), kernel.T)
    if head == "BertForSequenceClassification":
        assert np.array_equal(tensors["classifier.weight"].numpy(), RANDOM)
        assert len(json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]) == 3


def test_half_precision_and_strangers(tmp_path: Path) -> None:
    halves = {name: value.astype(np.float16) for name, value in weights().items()}
    found = import_tf1(checkpoint(tmp_path / "tf", halves | {"extra/kernel": RANDOM}), tmp_path / "out")
    assert found.unexpected == ("extra/kernel",)
    tensors = read_tensors(tmp_path / "out")
    assert tensors["cls.predictions.bias"].dtype == torch.float32
    assert np.array_equal(tensors["cls.predictions.bias"].numpy(), halves["cls/predictions/output_bias"])


def test_what_is_no_whole_bert(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tf", {}, without="bert/encoder/layer_1/output")
    with pytest.raises(CheckpointError, match=r"bert_model\.ckpt\.index: 4 of the encoder's weights are missing"):
        import_tf1(folder, tmp_path / "out")
    folder = checkpoint(tmp_path / "tf", {"bert/pooler/dense/kernel": RANDOM})
    with pytest.raises(CheckpointError, match=r"lacks pooler\.dense\.weight of a BertForPreTraining"):
        import_tf1(folder, tmp_path / "out")
    folder = checkpoint(tmp_path / "tf", {"bert/pooler/dense/kernel": RANDOM[0]})
    with pytest.raises(CheckpointError, match=r"bert/pooler/dense/kernel has shape \(8,\); expected a matrix"):
        import_tf1(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_which_checkpoint_is_meant(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tf", {}, name="model.ckpt-10")
    checkpoint(folder, {}, name="model.ckpt-20", without="cls")
    with pytest.raises(UsageError, match=r"holds 2 checkpoints; give one: .*model\.ckpt-20"):
        import_tf1(folder, tmp_path / "out")
    assert import_tf1(folder / "model.ckpt-20", tmp_path / "out").architecture == "BertModel"
    found = import_tf1(folder / "model.ckpt-10.index", tmp_path / "out", replace=True)
    assert found.architecture == "BertForPreTraining"


def test_capitals(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURE, tmp_path / "tf")
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("mean", "Mean"))
    assert import_tf1(folder, tmp_path / "cased").lowercase is False
    assert Tokenizer.load(tmp_path / "cased").encode_ids(["Mean"]) == [[10]]
    assert import_tf1(folder, tmp_path / "lower", lowercase=True).lowercase is True


def pickled(folder: Path) -> Path:
    base = write_tiny_model(folder)
    torch.save(read_tensors(base), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    return base


def test_a_pickle_is_read_when_it_is_allowed(tmp_path: Path) -> None:
    base = pickled(tmp_path / "old")
    with pytest.raises(CheckpointError, match=r"only as a pickle .*can carry code; .*--allow-pickle"):
        import_bin(base, tmp_path / "out")
    found = import_bin(base, tmp_path / "out", allow_pickle=True)
    assert (found.architecture, found.checked.difference) == ("BertForPreTraining", 0)
    ours: Pretrained = BertForPreTraining.from_pretrained(tmp_path / "out")
    theirs = BertForPreTraining.from_pretrained(base, allow_pickle=True).state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in ours.state_dict().items())
    with pytest.raises(UsageError, match="has safetensors weights already; nothing is to be done"):
        import_bin(tmp_path / "out", tmp_path / "again")


def test_a_pickle_with_code_is_never_run(tmp_path: Path) -> None:
    base = pickled(tmp_path / "old")

    class Bad:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (Path(str(tmp_path / "ran")),))  # type: ignore[return-value]

    torch.save({"weight": Bad()}, base / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is damaged or no plain table of tensors"):
        import_bin(base, tmp_path / "out", allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["import", "tf1", str(FIXTURE), "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "BertForPreTraining, 1,480 parameters; text is read lower-case" in said.output
    assert "left out: 5 variables of an optimizer" in said.output
    command = [
        "import",
        "bin",
        str(pickled(tmp_path / "old")),
        "--allow-pickle",
        "--out",
        str(tmp_path / "new"),
        "--json",
    ]
    said = CliRunner().invoke(app, command)
    assert json.loads(said.stdout)["architecture"] == "BertForPreTraining"
