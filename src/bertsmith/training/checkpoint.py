"""Checkpoints of a run: written aside, hashed, renamed into place; a torn one is passed over for the one before.

checkpoints/step-00001000/
    model.safetensors        parameters and buffers, a tied one once
    optimizer.safetensors    PARAMETER.KEY, such as bert.pooler.dense.weight.exp_avg
    state.json               what the loop remembers: step, decisions, best score, ...
    manifest.json            format, step, size and sha256 of the three files
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bertsmith.artifact import file_sha256, remove_drafts, replace_directory, write_json
from bertsmith.errors import CheckpointError
from bertsmith.training.sharding import full, like

FORMAT_VERSION = 1
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found whole."""

    path: Path
    step: int
    state: Mapping[str, Any]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Put its tensors into `model` and `optimizer`; raises `CheckpointError` where they do not fit."""
        restore_model(model, load_file(self.path / "model.safetensors"), where=self.path)
        if optimizer is not None:
            _restore_optimizer(model, optimizer, load_file(self.path / "optimizer.safetensors"), where=self.path)


class Checkpoints:
    """The checkpoints of one run, of which the newest `keep` are kept."""

    def __init__(self, directory: Path, *, keep: int = 2):
        self.directory = directory
        self.keep = keep

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        *,
        writes: bool = True,
    ) -> None:
        """Write a checkpoint; what stood before goes only when this one is whole and on the disk.

        Of a sharded model all ranks call it, and one writes.

        Raises `CheckpointError` with the path and the bytes needed where the disk does not take it.
        """
        path = self.path(step)
        draft = self.directory / f".{path.name}.draft-{os.getpid()}"
        model_tensors = {name: full(tensor) for name, tensor in _named_tensors(model).items()}
        optimizer_tensors = {name: full(tensor) for name, tensor in _optimizer_tensors(model, optimizer).items()}
        if not writes:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._clean()
            draft.mkdir()
            for name, tensors in (("model", model_tensors), ("optimizer", optimizer_tensors)):
                save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, draft / f"{name}.safetensors")
            write_json(draft / "state.json", state)
            files = {
                name: {"bytes": (draft / name).stat().st_size, "sha256": file_sha256(draft / name)} for name in _FILES
            }
            write_json(draft / "manifest.json", {"format": FORMAT_VERSION, "step": step, "files": files})
            replace_directory(draft, path)
        except (OSError, SafetensorError) as error:
            every = [*model_tensors.values(), *optimizer_tensors.values()]
            raise _not_written(path, sum(tensor.nbytes for tensor in every), error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)

    def latest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest checkpoint whose files are whole, and a line on each newer one that is not."""
        skipped: list[str] = []
        for step in sorted(self.steps(), reverse=True):
            try:
                return open_checkpoint(self.path(step)), tuple(skipped)
            except CheckpointError as error:
                skipped.append(str(error))
        return None, tuple(skipped)

    def steps(self) -> list[int]:
        """Steps of which there is a directory, whole or not, in ascending order."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def remove_after(self, step: int) -> None:
        """Remove what is there from beyond `step`: torn ones, once the run goes on from that step."""
        for other in self.steps():
            if other > step:
                shutil.rmtree(self.path(other), ignore_errors=True)

    def _clean(self) -> None:
        """Remove what a killed run left half-written."""
        for left in self.directory.glob(".step-*"):
            name, _, ending = left.name[1:].partition(".")
            if ending == "old":
                shutil.rmtree(left, ignore_errors=True)
            else:
                remove_drafts(self.directory / name)


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify size and hash of each file of a checkpoint; raises `CheckpointError` naming what is wrong."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT_VERSION:
            raise CheckpointError(f"{path} is of format {manifest['format']}, this version reads {FORMAT_VERSION}")
        for name in _FILES:
            facts, file = manifest["files"][name], path / name
            if file.stat().st_size != facts["bytes"]:
                raise CheckpointError(f"{file} has {file.stat().st_size} bytes, not {facts['bytes']}")
            if file_sha256(file) != facts["sha256"]:
                raise CheckpointError(f"{file} was changed after it was written")
        if path.name != f"step-{manifest['step']:08d}":
            raise CheckpointError(f"{path} says that it is of step {manifest['step']}")
        return Checkpoint(path, manifest["step"], json.loads((path / "state.json").read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not whole ({type(error).__name__}: {error})") from error


def restore_model(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, where: Path) -> None:
    """Copy `tensors` into the parameters and buffers of the same names, all of them and no others."""
    own = _named_tensors(model)
    unlike = sorted(own.keys() ^ tensors.keys()) or sorted(n for n in own if own[n].shape != tensors[n].shape)
    if unlike:
        raise CheckpointError(
            f"{where} is of another model: {', '.join(unlike[:3])} differ{'' if len(unlike) > 1 else 's'}; "
            "train into another folder, or remove this one"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(like(tensor, tensors[name]))


def _named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers under their first name, detached."""
    seen: set[int] = set()
    named = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor.detach()
    return named


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, parameter in model.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], *, where: Path
) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, tensor in tensors.items():
        parameter_name, _, key = name.rpartition(".")
        if parameter_name not in parameters:
            raise CheckpointError(f"{where} is of another model: it has optimizer state for {parameter_name!r}")
        parameter = parameters[parameter_name]
        optimizer.state[parameter][key] = like(parameter, tensor)


def _not_written(path: Path, needed_bytes: int, error: Exception) -> CheckpointError:
    existing = next(parent for parent in path.parents if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    return CheckpointError(
        f"checkpoint {path} was not written ({error}): it needs about {needed_bytes:,} bytes, {free_bytes:,} are free; "
        "earlier checkpoints are intact, so make room and run the same command again"
    )
