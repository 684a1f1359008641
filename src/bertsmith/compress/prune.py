"""From a fine-tuned model to a smaller one that is proven: cut, taught by the whole model, measured beside it.

FOLDER/
    cut/                what is left of the model, before it learns again
    recovery/           the fine-tuning that makes it good again (a run, with its own report)
    model/              the best weights of the recovery; only where it lost no more than it may
    compression.json    the cut, and both models side by side
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.compress.cut import Cut, choose_cut, pruned
from bertsmith.compress.importance import measure_importance
from bertsmith.compress.measure import measure
from bertsmith.compress.outcome import Outcome, check_request
from bertsmith.config import Recipe
from bertsmith.config.distill import DistillConfig
from bertsmith.model.weights import read_card, write_card
from bertsmith.runtime import Runtime, detect
from bertsmith.tasks.batches import TrainingBatches
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.inputs import Inputs
from bertsmith.tasks.own_rows import own_inputs, own_recipe
from bertsmith.tasks.predict import Predictor

IMPORTANCE_ROWS = 512
"""Training rows by which importance is measured, at most."""
_BATCH = 32


def prune(
    model: str | Path,
    folder: str | Path,
    *,
    layers: int | None = None,
    heads: float = 1.0,
    neurons: float = 1.0,
    max_drop: float = 1.0,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
    runtime: Runtime | None = None,
) -> Outcome:
    """Cut a fine-tuned model by measured importance, let it learn again, and compare both on the validation rows.

    The recovery is a fine-tuning by the model's own recipe, with the whole model as its teacher. A call that was
    stopped goes on. Scores, sizes and times are of the validation rows, which also chose the best weights, for both.

    Args:
        model: a run or its model directory.
        layers, heads, neurons: what to keep (`choose_cut`).
        max_drop: hundredths of the metric that may be lost; more, and no model is kept.
        recipe: of the recovery; default: that of the run.
        overrides: `finetune.epochs=2` and the like, for the recovery alone.

    Raises `UsageError` for a model without a recipe or rows, and `BertsmithError` where it lost more than `max_drop`.
    """
    console, runtime, folder = console or Console(soft_wrap=True), runtime or detect(), Path(folder)
    check_request(folder, max_drop)
    whole = Predictor.load(model, runtime=detect(dtype="float32", threads=runtime.threads))
    plan = _recovery(whole, recipe, overrides)
    inputs = own_inputs(plan, whole, runtime)
    _say(console, f"importance of each part, by the loss of {_some(inputs)} training rows")
    importance = measure_importance(whole.model, whole.task, _batches(inputs))
    cut = choose_cut(whole.model.config, importance, layers=layers, heads=heads, neurons=neurons)
    _say(console, _kept_in_words(whole, cut))
    _save_cut(folder / "cut", whole, cut)
    finetune(plan, folder / "recovery", model=folder / "cut", splits=inputs.splits, console=console, runtime=runtime)
    smaller = Predictor.load(folder / "recovery", runtime=whole.runtime)
    before, after = measure([whole, smaller], inputs.splits.validation, inputs.metric, seed=inputs.seed)
    found = Outcome.of(folder, inputs, before, after, {"cut": asdict(cut)})
    advice = "keep more, give it more --set finetune.epochs, or allow more"
    found.keep(folder / "recovery" / "model", whole, max_drop, advice)
    return found


def _recovery(whole: Predictor, recipe: str | Path | None, overrides: Sequence[str]) -> Recipe:
    found = own_recipe(whole, recipe, overrides)
    if found.finetune is not None and found.finetune.distill is None:
        config = found.finetune.model_copy(update={"distill": DistillConfig(teacher=str(whole.directory))})
        found = found.model_copy(update={"finetune": config})
    return found


def _some(inputs: Inputs) -> int:
    return min(IMPORTANCE_ROWS, len(inputs.splits.train))


def _batches(inputs: Inputs) -> Any:
    features, task = inputs.features(inputs.splits.train[: 4 * IMPORTANCE_ROWS]), inputs.task
    batches = TrainingBatches(
        features,
        objective=task.name,
        redraw=lambda batch, epoch: task.redraw(batch, features, seed=inputs.seed, epoch=epoch),
        pad_id=inputs.tokenizer.pad_id,
        batch_size=_BATCH,
        seed=inputs.seed,
    )
    steps = min(batches.steps_per_epoch, -(-_some(inputs) // _BATCH))
    return (batch for step in range(steps) for batch in batches.batch(step))


def _save_cut(directory: Path, whole: Predictor, cut: Cut) -> None:
    pruned(whole.model, cut).save_pretrained(directory)
    whole.tokenizer.save(directory)
    write_card(directory, read_card(whole.directory) | {"scores": {}})


def _kept_in_words(whole: Predictor, cut: Cut) -> str:
    old, new = whole.model.config, cut.config(whole.model.config)
    parts = [
        f"layers {', '.join(map(str, cut.layers))} of {old.num_hidden_layers}",
        f"{sum(new.heads)} of {sum(old.heads)} heads",
        f"{new.intermediate_size} of {old.intermediate_size} neurons a layer",
    ]
    return "kept       " + "; ".join(parts)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
