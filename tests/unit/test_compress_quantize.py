"""Quantizing: sensitive layers are left as they are, what loses too much is refused, what is kept answers."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.compress.int8_torch import TorchQuantizer
from bertsmith.compress.outcome import Outcome
from bertsmith.compress.quantize import quantize
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.model.weights import read_tensors
from bertsmith.tasks.predict import Predictor
from finetune_case import CPU, quiet, write_run

TEXTS = ["the day was lovely", "so awful and very mean today", "kind"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def made(run: Path, folder: Path, **asked: Any) -> Outcome:
    return quantize(run, folder, console=quiet(), runtime=CPU, **asked)


@pytest.mark.parametrize(
    "asked",
    [{"engine": "torch"}, {"engine": "onnx"}, {"engine": "onnx", "static": True}, {"to": "bf16"}],
    ids=["torch", "onnx", "onnx static", "bf16"],
)
def test_it_is_smaller_and_answers_as_before(run: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    found = made(run, tmp_path / "small", **asked, max_drop=5)
    smaller, whole = Predictor.load(tmp_path / "small"), Predictor.load(run)
    labels = [[answer.label for answer in one.predict(TEXTS)] for one in (whole, smaller)]
    assert labels[0] == labels[1]
    assert found.before.score == pytest.approx(found.after.score, abs=0.05)
    record = json.loads((tmp_path / "small" / "compression.json").read_text())
    assert record["accepted"] is True
    assert record["to"] == asked.get("to", "int8")
    layers = [one["layer"] for one in record["sensitivity"]]
    assert layers == ([] if "to" in asked else [0, 1])
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["compression.json", "model"]


def test_bfloat16_is_half_the_size(run: Path, tmp_path: Path) -> None:
    made(run, tmp_path / "small", to="bf16", max_drop=5)
    assert {str(tensor.dtype) for tensor in read_tensors(tmp_path / "small" / "model").values()} == {"torch.bfloat16"}


def test_the_layer_that_costs_most_is_left_alone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = TorchQuantizer.write

    def spoilt(self: TorchQuantizer, directory: Path, layers: frozenset[int]) -> None:
        network = copy.deepcopy(self.whole.model)
        if 1 in layers:
            with torch.no_grad():
                network.get_parameter("classifier.weight").neg_()
        write(replace(self, whole=replace(self.whole, model=network)), directory, layers)

    monkeypatch.setattr(TorchQuantizer, "write", spoilt)
    made(run, tmp_path / "small", engine="torch", max_drop=2)
    record = json.loads((tmp_path / "small" / "compression.json").read_text())
    first, second = record["sensitivity"]
    assert second["loss_change"] > first["loss_change"] + 0.1
    assert record["left_in_float32"] == [1]


def test_what_a_killed_call_left_goes(run: Path, tmp_path: Path) -> None:
    left = tmp_path / "small" / ".quantize.draft-999999999"
    (left / "made").mkdir(parents=True)
    made(run, tmp_path / "small", to="bf16", max_drop=5)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["compression.json", "model"]


def test_what_loses_too_much_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BertsmithError, match=r"lost .* more than --max-drop -50, and is not kept"):
        made(run, tmp_path / "small", engine="torch", max_drop=-50)
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["compression.json"]


def test_what_cannot_be_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bf16 is for PyTorch"):
        made(run, tmp_path / "small", to="bf16", static=True)
    made(run, tmp_path / "small", engine="torch", max_drop=5)
    with pytest.raises(UsageError, match="is quantized or exported already"):
        made(tmp_path / "small", tmp_path / "again")
    with pytest.raises(UsageError, match="max_drop is no number"):
        made(run, tmp_path / "again", max_drop=float("nan"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file; give a folder"):
        made(run, tmp_path / "file")
