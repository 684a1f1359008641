"""Cross-validation: every row is answered by a model that has not seen it.

The rows are dealt into k folds (`partition.folds_of`). For each, a model is fine-tuned on the other folds, of which a
share chooses its best checkpoint, and answers the rows of its own fold. The scores of the folds tell how much a score
hangs on the rows; the pooled one is over all answers together, and so has as many rows as there are.

FOLDER/
    fold-1/ fold-2/ ...     runs, each with its model; one that is done is not run again
    predictions.jsonl       the answer to every row, in their order, with its fold
    folds.json              scores of each fold, their mean and deviation, and the pooled ones, where there are any
"""

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.artifact import write_json
from bertsmith.config import FinetuneConfig, Recipe
from bertsmith.errors import UsageError
from bertsmith.runtime import Runtime
from bertsmith.tasks.evaluate import ScoreRow, score_rows, score_table
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.partition import folds_of
from bertsmith.tasks.predict import TASKS, Predictor, write_predictions
from bertsmith.tasks.splits import read_all

_ONLY_TO_GO_ON = ("checkpoints", "last")


@dataclass(frozen=True)
class Fold:
    """One fold and the model that answered it."""

    number: int
    """From 1."""
    rows: int
    scores: dict[str, float]
    """Of the fold's rows, by metric."""


@dataclass(frozen=True)
class FoldScore:
    """One metric over the folds."""

    metric: str
    mean: float
    deviation: float
    """Of the folds' scores (n - 1)."""
    pooled: float | None
    """Of all answers together; None where answers of several models cannot be scored together (ranks of vectors)."""
    low: float | None
    high: float | None
    """Bounds of the pooled score's 95 % bootstrap interval."""


@dataclass(frozen=True)
class CrossValidation:
    """What `cross_validate` found."""

    folder: Path
    metric: str
    folds: tuple[Fold, ...]
    scores: tuple[FoldScore, ...]
    """A line a metric."""


def cross_validate(
    recipe: Recipe,
    folder: str | Path,
    *,
    folds: int,
    model: str | Path | None = None,
    train: object = None,
    console: Console | None = None,
    runtime: Runtime | None = None,
) -> CrossValidation:
    """Fine-tune `folds` models, each without the rows of a fold, and score their answers to these rows.

    Folds are stratified, and groups (`group_column`; of questions, their article or text) never parted. They follow
    from the seed and the rows. Each fold's run has the recipe's seed. Test files, `slice_columns` and baselines are
    left alone. A call that was stopped goes on with the fold, and the checkpoint, at which it was.

    Args:
        model, train: go before the recipe's, as in `finetune`.

    Raises `UsageError` for more folds than rows or groups, and what `finetune` raises.
    """
    config, folder = recipe.finetune, Path(folder)
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [finetune] section")
    if model is None and config.model is None:
        raise UsageError("no model to fine-tune; set finetune.model to a directory, a run or a hub name")
    console = console or Console(soft_wrap=True)
    task = TASKS[config.task].with_options(**config.task_options)
    seed = recipe.seed if config.seed is None else config.seed
    all_rows = read_all(config, task, train=train)
    places = folds_of(all_rows.rows, folds, seed, groups=all_rows.groups)
    bare = _without_tests(recipe, config)
    answers: list[Any] = [None] * len(all_rows.rows)
    found: list[Fold] = []
    for number in range(folds):
        splits = all_rows.fold(number, places, config, task, seed=seed)
        run_dir = folder / f"fold-{number + 1}"
        told = f"{len(splits.train):,} rows to train on, {len(splits.validation):,} to choose by"
        _say(console, f"fold {number + 1}/{folds}  {told}, {len(splits.test['test']):,} to answer")
        finetune(bare, run_dir, model=model, splits=splits, console=console, runtime=runtime)
        numbers = [index for index, place in enumerate(places.tolist()) if place == number]
        scored = score_rows(Predictor.load(run_dir, runtime=runtime), splits.test["test"])
        for index, answer in zip(numbers, scored.answers, strict=True):
            answers[index] = answer
        found.append(Fold(number + 1, len(numbers), dict(scored.scores)))
        for name in _ONLY_TO_GO_ON:
            shutil.rmtree(run_dir / name, ignore_errors=True)
    pooled: Sequence[ScoreRow] = ()
    if task.scores_parts(all_rows.rows):
        pooled = score_table(
            task, all_rows.rows, answers, all_rows.labels, name=recipe.name, split="all", seconds=0.0, seed=seed
        )
    metric = config.metric or task.metric_of(all_rows.rows, all_rows.labels)
    result = CrossValidation(folder, metric, tuple(found), _summary(found, pooled))
    records = enumerate(zip(all_rows.rows, answers, places.tolist(), strict=True))
    write_predictions(
        folder / "predictions.jsonl",
        ({"fold": place + 1, **task.record(number, row, answer)} for number, (row, answer, place) in records),
    )
    write_json(folder / "folds.json", {key: value for key, value in asdict(result).items() if key != "folder"})
    return result


def _summary(folds: Sequence[Fold], pooled: Sequence[ScoreRow]) -> tuple[FoldScore, ...]:
    lines, of_all = [], {row.metric: row for row in pooled}
    for metric in folds[0].scores:
        own = [fold.scores[metric] for fold in folds]
        row = of_all.get(metric)
        together = (None, None, None) if row is None else (row.score, row.low, row.high)
        lines.append(FoldScore(metric, statistics.fmean(own), statistics.stdev(own), *together))
    return tuple(lines)


def _without_tests(recipe: Recipe, config: FinetuneConfig) -> Recipe:
    update = {"test": {}, "test_share": 0.0, "slice_columns": (), "baselines": ()}
    return recipe.model_copy(update={"finetune": config.model_copy(update=update)})


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
