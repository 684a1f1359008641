"""The rows that a model's own run learned from and was chosen by, for what is done to the model afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertsmith.config import Recipe, load_recipe
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.model.weights import read_card
from bertsmith.runtime import Runtime
from bertsmith.tasks.inputs import Inputs, read_inputs
from bertsmith.tasks.predict import Predictor

MADE_FROM = "made_from"
"""Key of bertsmith.json: the model directory that a smaller or exported one came from."""
_MOST_STEPS = 20


def own_recipe(model: Predictor, recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The fine-tuning that made the model, without what belongs to that run alone: tests, baselines, calibration.

    recipe: by default that of the run, or of the run that a smaller or exported model came from.

    Raises `UsageError` where there is none.
    """
    run = _run_of(model.directory)
    path = Path(recipe) if recipe is not None else run / "recipe.toml"
    if not path.is_file():
        raise UsageError(f"{model.directory} is of no run with a recipe ({path} is not there); name one with --recipe")
    found = load_recipe(path, overrides)
    if found.finetune is None or found.finetune.task != model.task.name:
        raise UsageError(f"{path} is no recipe of a fine-tuning of task {model.task.name!r}")
    changes: dict[str, Any] = {"baselines": (), "refit": False, "calibrate": False, "learn_on": None, "test": {}}
    changes |= {"test_share": 0.0, "slice_columns": ()}
    return found.model_copy(update={"finetune": found.finetune.model_copy(update=changes)})


def own_inputs(plan: Recipe, model: Predictor, runtime: Runtime) -> Inputs:
    """The rows of such a recipe, read for the model. Raises `UsageError` where they have other labels."""
    inputs = read_inputs(
        plan,
        runtime=runtime,
        model=model.directory,
        random_weights=False,
        labels_dir=_run_of(model.directory).parent / "labels",
        train=None,
        validation=None,
        test=None,
        head=None,
        splits=None,
    )
    if inputs.splits.labels != model.labels and model.task.outputs_are_classes:
        raise UsageError(f"{model.directory} knows other labels than the recipe's rows; name its own with --recipe")
    return inputs


def own_validation_rows(model: Predictor, runtime: Runtime) -> tuple[list[Any], str]:
    """Labelled rows that the model did not learn from, and its metric; none where they cannot be had any more."""
    try:
        inputs = own_inputs(own_recipe(model), model, runtime)
    except BertsmithError:
        return [], ""
    return list(inputs.splits.validation), inputs.metric


def _run_of(directory: Path) -> Path:
    """The run that a model directory is of, or that the model came from which it was made of."""
    for _ in range(_MOST_STEPS):
        if (directory.parent / "recipe.toml").is_file():
            break
        origin = read_card(directory).get(MADE_FROM)
        if not isinstance(origin, str) or not Path(origin).is_dir():
            break
        directory = Path(origin)
    return directory.parent
