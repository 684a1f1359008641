"""A whole recipe, read from TOML; an unknown key is refused with the nearest known one.

`--set a.b=c` overrides one key. Fields that do not change a stage's result (threads, device) live in `[runtime]` and
never enter a manifest.
"""

import copy
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from bertsmith.config.finetune import FinetuneConfig
from bertsmith.config.section import Positive, Section
from bertsmith.config.text import CorpusConfig, Data, ExamplesConfig, TokenizerConfig
from bertsmith.config.training import ModelConfig, PretrainConfig
from bertsmith.errors import RecipeError

TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class RuntimeConfig(Section):
    """How to compute; nothing here changes what a stage's manifest says."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of matrix products. float16 is trained with a loss scale; auto takes it on GPUs without bfloat16."""
    threads: Positive | None = None
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: a whole model in every process, or a part of it in each (FSDP2), for models that fit no GPU."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Under torchrun: how long processes wait for one that does not answer, before they stop and say so."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare text; 0: one for each processor."""
    engine: Literal["local", "ray"] = "local"
    """Where text is prepared: in processes of this machine, or on a Ray cluster. The same bytes come out."""
    ray_address: str | None = None
    """Of a cluster that runs, such as `10.0.0.1:6379`; `auto`: the one this machine belongs to. Default: a cluster of
    this machine alone, for as long as the command runs."""
    allow_pickle: bool = False
    """Read a checkpoint's pytorch_model.bin where it has no safetensors file (weights only; no code is run)."""
    track: tuple[TrackerName, ...] = ()
    """Send steps and evaluations there too (`pip install "bertsmith[track]"`); metrics.jsonl is always written. One
    that fails is switched off, and training goes on."""


STAGES = ("corpus", "tokenizer", "examples", "pretrain", "finetune")
"""Sections of a recipe that are stages, in the order in which they run."""


class Recipe(Section):
    """A whole run: the stages whose sections are there are run, in this order."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: int = 42
    data: Data = Data()
    corpus: CorpusConfig | None = None
    tokenizer: TokenizerConfig | None = None
    examples: ExamplesConfig | None = None
    model: ModelConfig | None = None
    pretrain: PretrainConfig | None = None
    finetune: FinetuneConfig | None = None
    fill_mask: tuple[str, ...] = ()
    """Sentences with [MASK], answered by the pre-trained model at the end."""
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _stages_have_what_they_read(self) -> "Recipe":
        needs = {"tokenizer": "corpus", "examples": "tokenizer", "pretrain": "examples"}
        for stage, needed in needs.items():
            if stage == "tokenizer" and self.tokenizer is not None and self.tokenizer.path is not None:
                continue
            if getattr(self, stage) is not None and getattr(self, needed) is None:
                raise ValueError(f"[{stage}] needs a [{needed}] section")
        if self.examples is not None and self.corpus is None:
            raise ValueError("[examples] needs a [corpus] section")
        if self.finetune is not None:
            if self.finetune.model is None and self.pretrain is None:
                raise ValueError("[finetune] needs model = DIRECTORY or a [pretrain] section")
            if self.finetune.code_words is not None and self.corpus is None:
                raise ValueError("[finetune.code_words] needs a [corpus] section")
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from TOML and apply `a.b=value` overrides (value in TOML; bare words are strings).

    Raises `RecipeError` naming file and key, with what is allowed.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"recipe {path} does not exist; see recipes/ for examples") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path} is a folder; give a recipe file such as recipes/quickstart.toml") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    return parse_recipe(raw, where=str(path), overrides=overrides)


def parse_recipe(raw: Mapping[str, Any], *, where: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain dicts, such as those of a notebook, with overrides as above; errors name the key."""
    changed = copy.deepcopy(dict(raw))
    for override in overrides:
        _apply_override(changed, override)
    _refuse_unknown_keys(changed, Recipe, prefix="", where=where)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function", "tuple[", "rows:")))
        message = str(first["msg"]).removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r}"
        raise RecipeError(f"{where}: {key + ': ' if key else ''}{message}{given}") from error


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML: every default written out, so that a run explains itself."""
    return tomli_w.dumps(json.loads(recipe.model_dump_json(exclude_none=True)))


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r}: expected KEY=VALUE, such as finetune.epochs=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} is not a section")
    node[last] = value


def _refuse_unknown_keys(raw: Mapping[str, Any], section: type[BaseModel], *, prefix: str, where: str) -> None:
    for key, value in raw.items():
        if key not in section.model_fields:
            near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"known keys: {', '.join(section.model_fields)}"
            raise RecipeError(f"{where}: unknown key {prefix + key!r}; {hint}")
        annotation = section.model_fields[key].annotation
        inner = _section_of(annotation)
        if inner is None:
            continue
        listed = {f"{key}[{number}]": item for number, item in enumerate(value)} if isinstance(value, list) else {}
        if typing.get_origin(annotation) is dict and isinstance(value, Mapping):
            listed = {f"{key}.{name}": item for name, item in value.items()}
        for place, item in (listed or {key: value}).items():
            if isinstance(item, Mapping):
                _refuse_unknown_keys(item, inner, prefix=f"{prefix}{place}.", where=where)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The `Section` inside an annotation such as `Section`, `Section | None` or `tuple[Section, ...]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for inner in typing.get_args(annotation):
        found = _section_of(inner)
        if found is not None:
            return found
    return None
