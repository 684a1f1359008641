"""`bertsmith export onnx`: a directory with `model.onnx` in the place of the weights, read by the one predictor."""

from dataclasses import replace as replace_fields
from pathlib import Path

from bertsmith.artifact import write_json
from bertsmith.export.check import Checked, check_outputs, check_predictors
from bertsmith.export.folder import written_folder
from bertsmith.export.graph import OPSET, Graph, export_graph
from bertsmith.export.source import Exported, Source, open_source
from bertsmith.model.heads import BertForMultipleChoice
from bertsmith.model.onnx_network import ONNX_FILE, OnnxNetwork
from bertsmith.model.pooling import Pooling
from bertsmith.model.weights import write_card
from bertsmith.runtime import detect
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.own_rows import MADE_FROM
from bertsmith.tasks.predict import PRECISION, Predictor


def export_onnx(
    model: str | Path, directory: str | Path, *, task: str | None = None, portable: bool = False, replace: bool = False
) -> Exported:
    """Write a model as an ONNX graph of opset `OPSET`, open in batch and length, and compare it with the model.

    Args:
        model: a run, a model directory or a hub name; any head.
        task: by default what the model says.
        portable: standard operators alone, for runtimes other than ONNX Runtime.
        replace: write over a directory that is there.

    Raises `BertsmithError`, and leaves nothing, where its outputs differ by more than 1e-4.
    """
    source, target = open_source(model, task=task), Path(directory)
    network, predictor = source.network, source.predictor
    task_of = None if predictor is None else predictor.task
    pooling: Pooling = task_of.pooling if isinstance(task_of, Embed) else "mean"
    with written_folder(target, replace=replace) as draft:
        export_graph(network, draft / ONNX_FILE, pooling=pooling, portable=portable)
        write_json(draft / "config.json", network.config.to_dict() | {"architectures": [network.architecture]})
        source.tokenizer.save(draft)
        card = {key: value for key, value in source.card.items() if key != PRECISION} | {
            MADE_FROM: str(source.directory.resolve())
        }
        write_card(draft, card)
        checked = _checked(source, draft, pooling)
        checked.require(target)
        write_card(draft, card | {"onnx": {"opset": OPSET, "portable": portable, "checked": checked.to_card()}})
    return Exported(target, checked, (target / ONNX_FILE).stat().st_size / 1e6)


def _checked(source: Source, draft: Path, pooling: Pooling) -> Checked:
    """By all that the graph gives, and by the answers of the task."""
    network = source.network
    theirs = OnnxNetwork.load(draft, threads=detect(device="cpu").threads)
    ours, has_choices = Graph(network, pooling), isinstance(network, BertForMultipleChoice)
    raw = check_outputs(network.config, ours, theirs.outputs, has_choices=has_choices)
    if source.predictor is None:
        return raw
    found = check_predictors(source.predictor, Predictor.load(draft, runtime=source.predictor.runtime))
    return replace_fields(found, difference=max(found.difference, raw.difference))
