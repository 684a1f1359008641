"""Raw text in, a BERT of your own out: trained, understood, made small, and served.

    import bertsmith

    result = bertsmith.run("recipes/quickstart.toml")         # corpus to scores; also pretrain(), finetune()
    tagger = bertsmith.load(result.finetuned.run_dir)         # a run, a model directory or a hub name
    tagger.predict(["Call reshape before you pass the array to fit."])

Importing the package is cheap; PyTorch is imported with the first name that needs it.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bertsmith.analysis.compare import compare
    from bertsmith.analysis.diagnose.diagnose import diagnose
    from bertsmith.analysis.probe import neighbours, probe_layers
    from bertsmith.analysis.report import write_report
    from bertsmith.analysis.runs_compared import compare_runs
    from bertsmith.config import Recipe, load_recipe
    from bertsmith.pipeline import finetune, load, pretrain, run
    from bertsmith.tasks.continuation import generate
    from bertsmith.tasks.evaluate import evaluate
    from bertsmith.tasks.extract import FeatureExtractor, extract_features
    from bertsmith.tasks.fill import fill_mask
    from bertsmith.tasks.predict import Predictor, predict
    from bertsmith.tokenizer.bert import BertTokenizer

__all__ = [
    "BertTokenizer",
    "FeatureExtractor",
    "Predictor",
    "Recipe",
    "compare",
    "compare_runs",
    "diagnose",
    "evaluate",
    "extract_features",
    "fill_mask",
    "finetune",
    "generate",
    "load",
    "load_recipe",
    "neighbours",
    "predict",
    "pretrain",
    "probe_layers",
    "run",
    "write_report",
]

_ROOMS = {
    "BertTokenizer": "tokenizer.bert",
    "FeatureExtractor": "tasks.extract",
    "Predictor": "tasks.predict",
    "Recipe": "config",
    "compare": "analysis.compare",
    "compare_runs": "analysis.runs_compared",
    "diagnose": "analysis.diagnose.diagnose",
    "evaluate": "tasks.evaluate",
    "extract_features": "tasks.extract",
    "fill_mask": "tasks.fill",
    "finetune": "pipeline",
    "generate": "tasks.continuation",
    "load": "pipeline",
    "load_recipe": "config",
    "neighbours": "analysis.probe",
    "predict": "tasks.predict",
    "pretrain": "pipeline",
    "probe_layers": "analysis.probe",
    "run": "pipeline",
    "write_report": "analysis.report",
}


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'bertsmith' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bertsmith.{_ROOMS[name]}"), name)
