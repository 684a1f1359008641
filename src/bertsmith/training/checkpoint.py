"""A checkpoint: what is in it, how it is written and verified, how a run takes it up again.

checkpoints/step-00001000/
    model.safetensors        parameters and buffers, a tied one once
    optimizer.safetensors    PARAMETER.KEY, such as bert.pooler.dense.weight.exp_avg
    index.json               where each tensor lies (tensor_files); ranks write a file each, model-00001-of-00004...
    state.json               what the loop remembers: step, decisions, best score, ...
    manifest.json            format, step, size and sha256 of each other file

Everything is written into a draft beside it, flushed to the disk, and renamed when it is whole. Size and hash of each
file are verified before anything is read from it. However many ranks wrote it, any number may take it up.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.artifact import file_sha256, replace_directory, write_json
from bertsmith.errors import CheckpointError
from bertsmith.training.sharding import block, is_part, local, of_part
from bertsmith.training.tensor_files import Piece, TensorFiles, file_name, merged, write_pieces

FORMAT_VERSION = 2
_KINDS = ("model", "optimizer")
_JSON_FILES = ("index.json", "state.json")


class OtherFormatError(CheckpointError):
    """A checkpoint that another version of bertsmith wrote."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found whole."""

    path: Path
    step: int
    state: Mapping[str, Any]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Put its tensors into `model` and `optimizer`; raises `CheckpointError` where they do not fit."""
        index = json.loads((self.path / "index.json").read_bytes())
        with TensorFiles(self.path, index["model"]) as tensors:
            _restore_model(model, tensors, where=self.path)
        if optimizer is not None:
            with TensorFiles(self.path, index["optimizer"]) as tensors:
                _restore_optimizer(model, optimizer, tensors, where=self.path)


def pieces_of(model: nn.Module, optimizer: torch.optim.Optimizer, *, rank: int = 0) -> dict[str, dict[str, Piece]]:
    """What a rank writes: kind ("model", "optimizer") -> name -> its part of a sharded tensor. What all ranks have
    alike, the first writes.
    """
    tensors = {"model": _model_tensors(model), "optimizer": _optimizer_tensors(model, optimizer)}
    return {
        kind: {
            name: Piece(local(tensor), block(tensor)[0], tuple(tensor.shape))
            for name, tensor in named.items()
            if rank == 0 or is_part(tensor)
        }
        for kind, named in tensors.items()
    }


def write_part(
    draft: Path, pieces: Mapping[str, Mapping[str, Piece]], *, rank: int = 0, world_size: int = 1
) -> dict[str, Any]:
    """Write one rank's tensors, kind -> name -> piece, into `draft`; JSON that tells what it wrote, for `finish`."""
    part: dict[str, Any] = {"index": {}, "files": {}}
    for kind in _KINDS:
        path = draft / file_name(kind, rank, world_size)
        part["index"][kind] = write_pieces(path, pieces[kind])
        part["files"][path.name] = _facts(path)
    return part


def finish(draft: Path, path: Path, *, step: int, parts: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
    """Make a checkpoint of the parts of all ranks in `draft`: flush it to the disk and give it its name."""
    write_json(draft / "index.json", {kind: merged([part["index"][kind] for part in parts]) for kind in _KINDS})
    write_json(draft / "state.json", state)
    files = {name: facts for part in parts for name, facts in part["files"].items()}
    files |= {name: _facts(draft / name) for name in _JSON_FILES}
    write_json(draft / "manifest.json", {"format": FORMAT_VERSION, "step": step, "files": files})
    replace_directory(draft, path)


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify size and hash of each file of a checkpoint; raises `CheckpointError` naming what is wrong."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT_VERSION:
            raise OtherFormatError(
                f"{path} is of format {manifest['format']}, this version reads {FORMAT_VERSION}; go on with the "
                "version of bertsmith that wrote it, or remove the folder to begin again"
            )
        for name, facts in manifest["files"].items():
            file = path / name
            if file.stat().st_size != facts["bytes"]:
                raise CheckpointError(f"{file} has {file.stat().st_size} bytes, not {facts['bytes']}")
            if file_sha256(file) != facts["sha256"]:
                raise CheckpointError(f"{file} was changed after it was written")
        if path.name != f"step-{manifest['step']:08d}":
            raise CheckpointError(f"{path} says that it is of step {manifest['step']}")
        if missing := _needed_files(path) - manifest["files"].keys():
            raise CheckpointError(f"{path} has no manifest for {', '.join(sorted(missing))}")
        return Checkpoint(path, manifest["step"], json.loads((path / "state.json").read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not whole ({type(error).__name__}: {error})") from error


def _needed_files(path: Path) -> set[str]:
    index = json.loads((path / "index.json").read_bytes())
    entries = [entry for kind in _KINDS for entry in index[kind].values()]
    return {piece["file"] for entry in entries for piece in entry["pieces"]} | set(_JSON_FILES)


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers under their first name, detached."""
    seen: set[int] = set()
    named = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor.detach()
    return named


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, parameter in model.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
    }


def _restore_model(model: nn.Module, tensors: TensorFiles, *, where: Path) -> None:
    """Copy `tensors` into the parameters and buffers of the same names, all of them and no others."""
    own, found = _model_tensors(model), set(tensors)
    unlike = sorted(own.keys() ^ found) or sorted(name for name in own if tuple(own[name].shape) != tensors.shape(name))
    if unlike:
        raise CheckpointError(
            f"{where} is of another model: {', '.join(unlike[:3])} differ{'' if len(unlike) > 1 else 's'}; "
            "train into another folder, or remove this one"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            local(tensor).copy_(tensors.read(name, block(tensor)))


def _restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: TensorFiles, *, where: Path
) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name in tensors:
        parameter_name, _, key = name.rpartition(".")
        if parameter_name not in parameters:
            raise CheckpointError(f"{where} is of another model: it has optimizer state for {parameter_name!r}")
        parameter = parameters[parameter_name]
        if tensors.shape(name) == parameter.shape:
            part = tensors.read(name, block(parameter)).to(parameter.device)
            optimizer.state[parameter][key] = of_part(part, parameter)
        else:  # such as AdamW's step, a scalar
            optimizer.state[parameter][key] = tensors.read(name).to(parameter.device)
