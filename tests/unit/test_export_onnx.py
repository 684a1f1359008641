"""An exported directory is read by the one predictor; one that answers otherwise, or is damaged, is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from bertsmith.errors import BertsmithError, CheckpointError, UsageError
from bertsmith.export import onnx as export_module
from bertsmith.export.graph import export_graph
from bertsmith.export.onnx import export_onnx
from bertsmith.model.onnx_network import OnnxNetwork
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.predict import Predictor
from finetune_case import write_run, write_tiny_model

TEXTS = ["the day was lovely", "so awful and very mean today", "kind"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), train=80, epochs=4)


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    export_onnx(run, run.parent / "exported")
    return run.parent / "exported"


def test_it_predicts_and_is_scored_as_the_run(run: Path, exported: Path) -> None:
    ours, theirs = Predictor.load(run), Predictor.load(exported)
    assert isinstance(theirs.model, OnnxNetwork)
    for one, other in zip(ours.predict(TEXTS), theirs.predict(TEXTS), strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    tables = [evaluate(model, run.parent / "validation.tsv").table for model in (run, exported)]
    assert [line.score for line in tables[0]] == [line.score for line in tables[1]]


def test_what_was_checked_is_told(exported: Path) -> None:
    facts = json.loads((exported / "bertsmith.json").read_text())["onnx"]
    assert facts["opset"] == 20
    assert facts["checked"]["difference"] < 1e-5
    assert facts["checked"]["rows"] == 40
    assert facts["checked"]["before"] == facts["checked"]["after"]
    assert not (exported / "model.safetensors").exists()


def test_one_that_answers_otherwise_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: Any, path: Path, **kwargs: Any) -> None:
        other = type(network)(network.config).eval()
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            other.classifier.bias += 0.001
        export_graph(other, path, **kwargs)

    monkeypatch.setattr(export_module, "export_graph", wrong)
    with pytest.raises(BertsmithError, match=r"differ by 0\.001, more than 0\.0001; it is not kept"):
        export_onnx(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_output_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an embedding model the vectors too, which our own predictor makes of the states itself."""
    base = write_tiny_model(tmp_path / "base")
    found = export_onnx(base, tmp_path / "right", task="embed")
    assert found.checked.difference < 1e-5
    monkeypatch.setattr(
        export_module, "export_graph", lambda *given, **more: export_graph(*given, **more | {"pooling": "cls"})
    )
    with pytest.raises(BertsmithError, match="is not kept"):
        export_onnx(base, tmp_path / "wrong", task="embed")
    assert not (tmp_path / "wrong").exists()


def test_a_folder_that_is_there_is_not_written_over(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already, and not empty; give another folder, or --replace"):
        export_onnx(run, exported)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        export_onnx(run, tmp_path / "file")
    with pytest.raises(UsageError, match="is an ONNX graph already"):
        export_onnx(exported, tmp_path / "again")


def test_a_pretrained_model_without_a_task(tmp_path: Path) -> None:
    found = export_onnx(write_tiny_model(tmp_path / "base"), tmp_path / "out")
    assert found.checked.difference < 1e-5
    names = [one.name for one in onnx.load(tmp_path / "out" / "model.onnx").graph.output]
    assert names == ["prediction_logits", "seq_relationship_logits"]


def spoilt(exported: Path, folder: Path) -> Path:
    shutil.copytree(exported, folder)
    return folder / "model.onnx"


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a graph", b"\x08\xff\xff\xff\xff\x7f"])
def test_damaged_files_are_refused(exported: Path, tmp_path: Path, content: bytes) -> None:
    path = spoilt(exported, tmp_path / "bad")
    path.write_bytes(content or path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"model\.onnx is damaged or no ONNX model"):
        Predictor.load(path.parent)


def test_weights_outside_the_folder_are_refused(exported: Path, tmp_path: Path) -> None:
    path = spoilt(exported, tmp_path / "bad")
    graph = onnx.load(path)
    (tmp_path / "secret").write_bytes(bytes(4096))
    weight = next(one for one in graph.graph.initializer if len(one.dims) == 2)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", "../secret"),
        ("offset", "0"),
        ("length", str(4 * weight.dims[0] * weight.dims[1])),
    ):
        weight.external_data.add(key=key, value=value)
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(CheckpointError, match="is damaged or no ONNX model"):
        Predictor.load(path.parent)


def test_a_graph_of_something_else_is_refused(exported: Path, tmp_path: Path) -> None:
    path = spoilt(exported, tmp_path / "bad")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["label"])],
        "other",
        [value("image", TensorProto.FLOAT, [1])],
        [value("label", TensorProto.FLOAT, [1])],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    with pytest.raises(CheckpointError, match="takes image and gives label; that is no graph as"):
        Predictor.load(path.parent)
    card = json.loads((path.parent / "config.json").read_text()) | {"id2label": {str(n): f"l{n}" for n in range(7)}}
    shutil.copyfile(exported / "model.onnx", path)
    (path.parent / "config.json").write_text(json.dumps(card | {"vocab_size": 99}))
    with pytest.raises(CheckpointError, match=r"gives 2 scores, but by config\.json there are 7"):
        Predictor.load(path.parent)
