"""Which network a recipe asks for, before there are weights."""

from collections.abc import Sequence
from typing import Any

from bertsmith.config import ModelConfig, PretrainConfig, Recipe
from bertsmith.model.config import BertConfig, override
from bertsmith.model.language import BertForMaskedLM, BertForPreTraining
from bertsmith.model.presets import preset
from bertsmith.model.weights import read_config, resolve_model_dir

_NEED_A_POOLER = {"nsp", "sop", "label"}


def head_of(objectives: Sequence[str]) -> type[BertForPreTraining] | type[BertForMaskedLM]:
    """The class that has what these objectives read."""
    return BertForPreTraining if _NEED_A_POOLER & set(objectives) else BertForMaskedLM


def objectives_of(config: PretrainConfig) -> list[str]:
    """Of all phases, each once."""
    return list(dict.fromkeys(name for phase in config.each_phase() for name in phase.objectives))


def config_of(recipe: Recipe, config: PretrainConfig, *, vocabulary: dict[str, Any]) -> BertConfig:
    """The network's config; `vocabulary`, {"vocab_size": ..., "pad_token_id": ...}, is that of the tokenizer.

    Raises `UsageError` for a field that there is not, `CheckpointError` for an `init` that there is not.
    """
    shape = recipe.model or ModelConfig()
    if config.init is None:
        return preset(shape.preset, vocabulary | shape.overrides)
    directory = resolve_model_dir(config.init, allow_pickle=recipe.runtime.allow_pickle)
    return override(read_config(directory), shape.overrides)
