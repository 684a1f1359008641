"""Recipes: what each section may say (section, text, optimizer, training), and how a file becomes a recipe (recipe)."""

from bertsmith.config.optimizer import OptimizerConfig, ScheduleConfig
from bertsmith.config.recipe import STAGES, Recipe, RuntimeConfig, load_recipe, parse_recipe, recipe_toml
from bertsmith.config.section import Column
from bertsmith.config.text import (
    CleanConfig,
    CorpusConfig,
    DedupConfig,
    Download,
    EvaluationFiles,
    ExamplesConfig,
    Script,
    Source,
    TokenizerConfig,
)
from bertsmith.config.training import (
    CodeWords,
    FinetuneConfig,
    LabelledConfig,
    LoopConfig,
    ModelConfig,
    PretrainConfig,
)

__all__ = [
    "STAGES",
    "CleanConfig",
    "CodeWords",
    "Column",
    "CorpusConfig",
    "DedupConfig",
    "Download",
    "EvaluationFiles",
    "ExamplesConfig",
    "FinetuneConfig",
    "LabelledConfig",
    "LoopConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Recipe",
    "RuntimeConfig",
    "ScheduleConfig",
    "Script",
    "Source",
    "TokenizerConfig",
    "load_recipe",
    "parse_recipe",
    "recipe_toml",
]
