"""What a recipe can be asked for from Python, and by the command line: `run`, `pretrain`, `finetune`, `load`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from bertsmith.chain import Chain, RunResult, Tables
from bertsmith.config import STAGES, Recipe, load_recipe, parse_recipe
from bertsmith.errors import Stopped, UsageError
from bertsmith.model.weights import read_card, resolve_model_dir
from bertsmith.runtime import Runtime
from bertsmith.tasks.fill import MaskFiller, is_language_model
from bertsmith.tasks.predict import TASKS, Predictor

AnyRecipe = Recipe | str | Path | Mapping[str, Any]


def run(
    recipe: AnyRecipe,
    *,
    runs: str | Path = "runs",
    until: str | None = None,
    keep_rejects: bool = False,
    console: Console | None = None,
    command: str | None = None,
) -> RunResult:
    """Run every stage of `recipe` (a `Recipe`, the path of a TOML file, or plain dicts), skipping what is done.

    until: stop after this stage of `STAGES`. keep_rejects: write every document that the corpus leaves out, with the
    reason, to runs/NAME/rejects.jsonl. command: what a person types to go on after Ctrl-C.

    Raises `Stopped` after a signal (state saved); errors of `bertsmith.errors` name what to do.
    """
    if until is not None and until not in STAGES:
        raise UsageError(f"there is no stage {until!r}; use one of {', '.join(STAGES)}")
    stages = STAGES[: STAGES.index(until or STAGES[-1]) + 1]
    return _run(
        as_recipe(recipe), runs=runs, stages=stages, keep_rejects=keep_rejects, console=console, command=command
    )


def pretrain(
    recipe: AnyRecipe, *, runs: str | Path = "runs", console: Console | None = None, command: str | None = None
) -> RunResult:
    """Run `recipe` up to its pre-trained model, in runs/NAME/pretrain/model.

    >>> bertsmith.pretrain("recipes/english.toml")                              # doctest: +SKIP
    """
    chosen = as_recipe(recipe)
    if chosen.pretrain is None:
        raise UsageError(f"recipe {chosen.name!r} has no [pretrain] section")
    return run(chosen, runs=runs, until="pretrain", console=console, command=command)


def finetune(
    recipe: AnyRecipe,
    *,
    train: object = None,
    validation: object = None,
    test: Mapping[str, object] | None = None,
    head: type[nn.Module] | None = None,
    runs: str | Path = "runs",
    console: Console | None = None,
    command: str | None = None,
) -> RunResult:
    """Run `recipe` up to its fine-tuned model, in runs/NAME/finetune/model, with its scores.

    Stages before it run only where it needs them: not where `finetune.model` names the model and files the rows.

    train, validation, test: tables (DataFrame, Arrow table, list of dicts or tuples) that go before the recipe's files.
    head: class of a head of one's own: `head(config)` has forward(hidden, attention_mask), states (batch, seq, hidden)
    and 1 for each token that is no padding to scores (batch, labels); for classify, multilabel and regress.

    >>> bertsmith.finetune("recipes/cola.toml").table                           # doctest: +SKIP
    """
    chosen = as_recipe(recipe)
    if chosen.finetune is None:
        raise UsageError(f"recipe {chosen.name!r} has no [finetune] section")
    needs_stages = chosen.finetune.model is None or chosen.finetune.code_words is not None
    stages = STAGES if needs_stages else STAGES[-1:]
    tables = Tables(train, validation, test, head)
    return _run(chosen, runs=runs, stages=stages, console=console, command=command, tables=tables)


def load(
    name: str | Path, *, head: type[nn.Module] | None = None, runtime: Runtime | None = None
) -> Predictor | MaskFiller:
    """A run, model directory or hub name, ready to `predict`: what its task answers; words for a [MASK] if only
    pre-trained.

    head: the class that it was fine-tuned with, where it has a head of its own.

    >>> bertsmith.load("runs/cola/finetune").predict(["They drank the pub."])   # doctest: +SKIP
    """
    directory = resolve_model_dir(name)
    if read_card(directory).get("task") not in TASKS and is_language_model(directory):
        return MaskFiller.load(name, runtime=runtime)
    return Predictor.load(name, head=head, runtime=runtime)


def as_recipe(recipe: AnyRecipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return parse_recipe(recipe) if isinstance(recipe, Mapping) else load_recipe(recipe)


def _run(
    recipe: Recipe,
    *,
    runs: str | Path,
    stages: tuple[str, ...],
    console: Console | None,
    command: str | None,
    keep_rejects: bool = False,
    tables: Tables | None = None,
) -> RunResult:
    where = console or Console(soft_wrap=True)
    chain = Chain(recipe, Path(runs), where, tables=tables or Tables(), keep_rejects=keep_rejects)
    try:
        return chain.run(stages)
    except Stopped as stopped:
        raise Stopped(stopped.signal_number, command or stopped.resume_command) from None
