"""All that a fine-tuning is made from, read before its folder is touched, so that wrong input leaves nothing behind."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bertsmith.artifact import canonical
from bertsmith.config import NOT_OF_THE_WEIGHTS, FinetuneConfig, ModelConfig, Recipe
from bertsmith.errors import UsageError
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.baselines import BASELINES
from bertsmith.tasks.continual import OldTask
from bertsmith.tasks.features import Features
from bertsmith.tasks.predict import TASKS, check_max_length, check_tokenizer
from bertsmith.tasks.slices import read_slices
from bertsmith.tasks.splits import Splits, read_splits
from bertsmith.tasks.starting_model import StartingPoint, head_digest, with_own_head
from bertsmith.tasks.teacher import Teacher
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.batch_choice import finetuning_batch_size
from bertsmith.training.run_dir import model_digest

_NOT_OF_THE_WEIGHTS: dict[str, Any] = {
    **dict.fromkeys(NOT_OF_THE_WEIGHTS, True),
    **dict.fromkeys(("train", "validation", "test", "baselines", "slice_columns", "calibrate", "literature"), True),
    "model": True,  # its files are hashed instead, and so are the rows
    "augment": {"model"},
    "learn_on": {"old", "test"},
    "distill": {"teacher"},  # as with "model"
}
"""Keys of `FinetuneConfig` that the trained weights do not depend on."""


@dataclass(frozen=True)
class Inputs:
    """What was read."""

    config: FinetuneConfig
    task: Task[Any, Any]
    splits: Splits
    sliced: Mapping[str, Mapping[str, Sequence[str]]]
    """Split -> column -> value of each row, where scores are told by value."""
    start: StartingPoint
    old: OldTask | None
    """What the model knew, where it learns on."""
    teacher: Teacher | None
    """What it learns from beside the labels."""
    tokenizer: Tokenizer
    made_from: Mapping[str, Any]
    """All that the weights depend on."""
    chosen: str
    """The model as it was named."""

    @property
    def seed(self) -> int:
        return self.start.seed

    @property
    def metric(self) -> str:
        """By which the best checkpoint is chosen."""
        return self.config.metric or self.task.metric_of(self.splits.validation, self.splits.labels)

    @property
    def scored_on(self) -> dict[str, Any]:
        """What the scores depend on besides."""
        found: dict[str, Any] = {
            "test": self.splits.test_digests(),
            "baselines": self.config.baselines,
            "calibrate": self.config.calibrate,
            "slices": hashlib.sha256(canonical(self.sliced).encode()).hexdigest(),
        }
        return found if self.old is None else found | {"old_test": self.old.test_digests()}

    @property
    def card(self) -> dict[str, Any]:
        """What bertsmith.json says of the model, but for how good it is."""
        return {
            "format": 1,
            "task": self.task.name,
            "labels": self.splits.labels,
            "max_length": self.config.max_length,
            "pairs": getattr(self.splits.train[0], "pair", None) is not None,
            "options": self.task.options,
            "columns": self.splits.columns.to_card(),
            "metric": self.metric,
        }

    def batch_size(self) -> tuple[int, str]:
        """Examples in an update, and why where that was not given."""
        size = self.config.batch_size
        if size == "auto":
            return finetuning_batch_size(num_examples=len(self.splits.train), epochs=self.config.epochs)
        return size, ""

    def features(self, rows: Sequence[Any]) -> Features:
        labels, longest = self.splits.labels, self.config.max_length
        return self.task.encode(rows, self.tokenizer, labels=labels, max_length=longest)


def read_inputs(
    recipe: Recipe,
    *,
    runtime: Runtime,
    model: str | Path | None,
    random_weights: bool,
    labels_dir: Path | None,
    train: object,
    validation: object,
    test: Mapping[str, object] | None,
    head: type[nn.Module] | None,
    splits: Splits | None,
) -> Inputs:
    """See `finetune`, whose arguments these are."""
    config = recipe.finetune
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [finetune] section")
    chosen = model or config.model
    if chosen is None:
        raise UsageError("no model to fine-tune; set finetune.model to a directory, a run or a hub name")
    seed = recipe.seed if config.seed is None else config.seed
    task = TASKS[config.task].with_options(**config.task_options)
    if head is not None:
        task = with_own_head(task, head, config)
    _check_metric(config, task, task.metrics)
    _check_baselines(config)
    directory = resolve_model_dir(chosen, allow_pickle=recipe.runtime.allow_pickle)
    tokenizer = Tokenizer.load(directory)
    check_tokenizer(tokenizer, read_config(directory), directory)
    check_max_length(config.max_length, read_config(directory), directory)
    if config.head_activation is not None and not (config.head_layers or read_config(directory).head_layers):
        raise UsageError("finetune.head_activation follows hidden layers, and the model has none; set head_layers too")
    old = None
    if config.learn_on is not None:
        if head is not None or splits is not None:
            raise UsageError("[finetune.learn_on] goes with no head of one's own and with no folds; leave it out")
        if random_weights:
            raise UsageError("random weights know nothing that [finetune.learn_on] could keep; leave one of them out")
        old = OldTask.load(directory, config, config.learn_on, seed=seed, runtime=runtime)
    columns = None
    if train is None and config.code_words is not None:
        if labels_dir is None:
            raise UsageError("the recipe makes its labels from its corpus; run it with: bertsmith run RECIPE")
        columns, test = Columns(), {"test": labels_dir / "test.conll"}
        train, validation = labels_dir / "train.conll", labels_dir / "validation.conll"
    test = config.test if test is None else test
    if splits is None:
        splits = read_splits(
            config,
            task,
            seed=seed,
            train=train,
            validation=validation,
            test=test,
            test_share=config.test_share,
            columns=columns,
            known=() if old is None else old.known_labels,
        )
    if old is not None:
        share = config.validation_share if validation is None and config.validation is None else None
        splits = old.joined(splits, share, seed=seed)
    _check_metric(config, task, task.metrics_of(splits.validation, splits.labels))
    position_init = (recipe.model or ModelConfig()).position_init
    made_from = {
        "config": config.model_dump(mode="json", exclude=_NOT_OF_THE_WEIGHTS),
        "old_rows": None if old is None else old.digest(),
        "augment_model": augment_model_digest(config, allow_pickle=recipe.runtime.allow_pickle),
        "teacher": None if config.distill is None else model_digest(resolve_model_dir(config.distill.teacher)),
        "seed": seed,
        "rows": splits.training_digest(),
        "model": model_digest(directory),
        "random_weights": {"position_init": position_init} if random_weights else None,
    } | ({} if head is None else {"head": head_digest(head)})
    sliced = _sliced(config, task, splits, train=train, validation=validation, test=test)
    start = StartingPoint(directory, random_weights, position_init, seed, recipe.runtime.allow_pickle)
    if old is not None:
        start = replace(start, known=old.known_labels, fresh_head=old.is_separate)
    teacher = Teacher.load(config, labels=splits.labels, tokenizer=tokenizer, student=directory, runtime=runtime)
    return Inputs(config, task, splits, sliced, start, old, teacher, tokenizer, made_from, str(chosen))


def _check_metric(config: FinetuneConfig, task: Task[Any, Any], known: Sequence[str]) -> None:
    if config.metric is not None and config.metric not in known:
        raise UsageError(f"finetune.metric = {config.metric!r}; task {task.name!r} here has: {', '.join(known)}")


def _check_baselines(config: FinetuneConfig) -> None:
    known = (*BASELINES[config.task], "random-weights")
    if unknown := [name for name in config.baselines if name not in known]:
        raise UsageError(f"finetune.baselines has {unknown[0]!r}; task {config.task!r} has: {', '.join(known)}")


def augment_model_digest(config: FinetuneConfig, *, allow_pickle: bool) -> dict[str, str] | None:
    """Hashes of the model that proposes words."""
    if config.augment is None or config.augment.model is None:
        return None
    return model_digest(resolve_model_dir(config.augment.model, allow_pickle=allow_pickle))


def _sliced(
    config: FinetuneConfig,
    task: Task[Any, Any],
    splits: Splits,
    *,
    train: object,
    validation: object,
    test: Mapping[str, object] | None,
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Split -> column -> value of each row. Rows that were held out are looked for in the table that they are of."""
    if not config.slice_columns:
        return {}
    if not all(task.scores_parts(rows) for rows in splits.scored().values()):
        raise UsageError(f"slice_columns: scores of task {task.name!r} without numbers are of all rows; leave it out")
    learned = config.train if train is None else train
    held_out = config.validation if validation is None else validation
    others = {} if held_out is None else {"validation": held_out}
    sources = others | dict(test or {})
    return {
        split: read_slices(sources.get(split, learned), rows, config.slice_columns, header=config.header)
        for split, rows in splits.scored().items()
    }
