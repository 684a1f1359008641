"""`bertsmith export onnx`: a directory with `model.onnx` in the place of the weights, read by the one predictor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_json
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.export.check import Checked, check_networks, check_predictors
from bertsmith.export.folder import written_folder
from bertsmith.export.graph import OPSET, export_graph
from bertsmith.model.encoder import BertModel
from bertsmith.model.language import BertForPreTraining
from bertsmith.model.onnx_network import ONNX_FILE, OnnxNetwork
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_card, read_config, resolve_model_dir, write_card
from bertsmith.runtime import detect
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.own_rows import MADE_FROM
from bertsmith.tasks.predict import Predictor, check_tokenizer, check_trained, own_card
from bertsmith.tokenizer.encode import Tokenizer

_WITHOUT_TASK: dict[str, type[Pretrained]] = {"BertForPreTraining": BertForPreTraining, "BertModel": BertModel}
"""Classes of directories that no task of ours answers with."""


@dataclass(frozen=True)
class Exported:
    """A directory that was written and checked."""

    directory: Path
    checked: Checked
    megabytes: float


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
    source, target = resolve_model_dir(model), Path(directory)
    if task is None and "task" not in own_card(source):
        for name in _architectures(source):
            if name in _WITHOUT_TASK:
                return _export_network(source, target, _WITHOUT_TASK[name], portable=portable, replace=replace)
    ours = Predictor.load(source, task=task, runtime=detect(device="cpu", dtype="float32"))
    if isinstance(ours.model, OnnxNetwork):
        raise UsageError(f"{source} is an ONNX graph already; give the model that it came from")
    pooling = ours.task.pooling if isinstance(ours.task, Embed) else "mean"
    with written_folder(target, replace=replace) as draft:
        export_graph(ours.model, draft / ONNX_FILE, pooling=pooling, portable=portable)
        _write_beside(draft, ours.model, ours.tokenizer)
        card = read_card(source) | {
            "task": ours.task.name,
            "options": ours.task.options,
            MADE_FROM: str(source.resolve()),
        }
        write_card(draft, card)
        theirs = Predictor.load(draft, runtime=ours.runtime)
        checked = check_predictors(ours, theirs)
        checked.require(target)
        write_card(draft, card | {"onnx": _facts(checked, portable)})
    return Exported(target, checked, _megabytes(target))


def _export_network(source: Path, target: Path, head: type[Pretrained], *, portable: bool, replace: bool) -> Exported:
    """Of a model that is pre-trained and no more."""
    network, tokenizer = head.from_pretrained(source), Tokenizer.load(source)
    check_trained(network, source, "head", "give a whole model")
    check_tokenizer(tokenizer, network.config, source)
    with written_folder(target, replace=replace) as draft:
        export_graph(network, draft / ONNX_FILE, portable=portable)
        _write_beside(draft, network, tokenizer)
        theirs = OnnxNetwork.load(draft, threads=detect(device="cpu").threads)
        checked = check_networks(network, theirs)
        checked.require(target)
        write_card(draft, read_card(source) | {MADE_FROM: str(source.resolve()), "onnx": _facts(checked, portable)})
    return Exported(target, checked, _megabytes(target))


def _write_beside(directory: Path, network: Pretrained, tokenizer: Tokenizer) -> None:
    write_json(directory / "config.json", network.config.to_dict() | {"architectures": [network.architecture]})
    tokenizer.save(directory)


def _facts(checked: Checked, portable: bool) -> dict[str, Any]:
    return {"opset": OPSET, "portable": portable, "checked": checked.to_card()}


def _megabytes(directory: Path) -> float:
    return (directory / ONNX_FILE).stat().st_size / 1e6


def _architectures(directory: Path) -> list[str]:
    found = read_config(directory).extra.get("architectures") or []
    if not isinstance(found, list):
        raise CheckpointError(f"{directory / 'config.json'}: architectures is no list")
    return found
