"""Recipes: what each section may say (a file a section), and how a file becomes a recipe (recipe)."""

from bertsmith.config.augment import AugmentConfig
from bertsmith.config.continual import LearnOnConfig
from bertsmith.config.finetune import CodeWords, FinetuneConfig
from bertsmith.config.optimizer import OptimizerConfig, ScheduleConfig
from bertsmith.config.recipe import STAGES, Recipe, RuntimeConfig, load_recipe, parse_recipe, recipe_toml
from bertsmith.config.section import Column
from bertsmith.config.table import LabelledConfig, Rows, RowSource, TableConfig
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
from bertsmith.config.training import NOT_OF_THE_WEIGHTS, LoopConfig, ModelConfig, PretrainConfig

__all__ = [
    "NOT_OF_THE_WEIGHTS",
    "STAGES",
    "AugmentConfig",
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
    "LearnOnConfig",
    "LoopConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Recipe",
    "RowSource",
    "Rows",
    "RuntimeConfig",
    "ScheduleConfig",
    "Script",
    "Source",
    "TableConfig",
    "TokenizerConfig",
    "load_recipe",
    "parse_recipe",
    "recipe_toml",
]
