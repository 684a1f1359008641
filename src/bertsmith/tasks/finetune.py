"""Fine-tuning: a labelled table and a checkpoint in, a model with honest scores out.

RUN/
    recipe.toml               the recipe, every default written out
    metrics.jsonl             what happened, line by line (docs/metrics.md)
    checkpoints/              to go on from
    model/  last/             best and last weights: Hugging Face directories with bertsmith.json
    evaluations.csv           a line an evaluation: losses, score, times
    predictions-SPLIT.jsonl   answers of the best weights on each test split
    scores.json               their scores, with 95 % bootstrap intervals
    state.json                what the run was made from, and whether it is finished
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from bertsmith.artifact import canonical, file_sha256, replace_directory, write_json, write_text
from bertsmith.config import FinetuneConfig, Recipe, recipe_toml
from bertsmith.errors import ArtifactError, UsageError
from bertsmith.model.pretrained import Pretrained, init_weights
from bertsmith.model.weights import read_card, read_config, resolve_model_dir, write_card
from bertsmith.runtime import Runtime, derive_seed, detect, environment
from bertsmith.tasks.base import Features, Task, TaskBatch, TrainingBatches
from bertsmith.tasks.baselines import BASELINES
from bertsmith.tasks.evaluate import ScoreRow, details, score_outputs, score_table
from bertsmith.tasks.evaluations import EvaluationRow, print_evaluations, read_evaluations, write_evaluations
from bertsmith.tasks.predict import TASKS, check_max_length, check_tokenizer, compute_outputs, write_predictions
from bertsmith.tasks.splits import Splits, read_splits
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.checkpoint import Checkpoints
from bertsmith.training.compiling import compiled
from bertsmith.training.loop import train as train_loop
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Evaluation, Plan
from bertsmith.training.schedule import make_schedule
from bertsmith.training.track import Track

OnEvaluation = Callable[[int, Evaluation], None]

_RESULTS = (
    "model",
    "last",
    "checkpoints",
    "metrics.jsonl",
    "evaluations.csv",
    "scores.json",
    "recipe.toml",
    "state.json",
)
_NOT_OF_THE_RESULT = {
    "model",
    "compile",
    "checkpoint_every_seconds",
    "keep_checkpoints",
    "log_every_steps",
    "literature",
}
"""Keys of `FinetuneConfig` that a finished run does not depend on (the model's own files are hashed instead)."""


@dataclass(frozen=True)
class FinetuneResult:
    """A finished fine-tuning."""

    run_dir: Path
    scores: Mapping[str, Mapping[str, float]]
    """Split -> metric -> score of the best weights; "validation" only where there is no test split."""
    best_step: int | None
    table: tuple[EvaluationRow, ...]
    """One line an evaluation."""
    score_table: tuple[ScoreRow, ...]
    """What scores.json holds: this model and the baselines, on each split, by each metric."""


def finetune(
    recipe: Recipe,
    run_dir: str | Path,
    *,
    model: str | Path | None = None,
    random_weights: bool = False,
    labels_dir: Path | None = None,
    train: object = None,
    validation: object = None,
    test: Mapping[str, object] | None = None,
    name: str | None = None,
    on_evaluation: OnEvaluation | None = None,
    console: Console | None = None,
    runtime: Runtime | None = None,
) -> FinetuneResult:
    """Fine-tune as `recipe.finetune` says, into `run_dir`; go on where an earlier call with the same input stopped.

    Args:
        model: goes before the recipe's: a model directory, a run or a hub name.
        random_weights: take only the shape and the tokenizer of that model, and start from fresh weights.
        labels_dir: artifact with the code-words tables, for recipes that make their own labels.
        train, validation, test: tables in memory (DataFrame, Arrow, list) that go before the recipe's files.
        name: what the score table calls this model.
        on_evaluation: called as on_evaluation(step, evaluation) once an evaluation is in metrics.jsonl.

    Raises `DataError` (file and line), `CheckpointError`, `UsageError`; `Stopped` after Ctrl-C, state saved.
    """
    config = recipe.finetune
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [finetune] section")
    chosen = model or config.model
    if chosen is None:
        raise UsageError("no model to fine-tune; set finetune.model to a directory, a run or a hub name")
    run_dir, console, runtime = Path(run_dir), console or Console(), runtime or detect()
    seed = recipe.seed if config.seed is None else config.seed
    task = TASKS[config.task]
    if config.metric is not None and config.metric not in task.metrics:
        raise UsageError(f"finetune.metric = {config.metric!r}; task {task.name!r} has: {', '.join(task.metrics)}")
    splits = read_splits(config, task, seed=seed, labels_dir=labels_dir, train=train, validation=validation, test=test)
    directory = resolve_model_dir(chosen)
    tokenizer = Tokenizer.load(directory)
    check_tokenizer(tokenizer, read_config(directory), directory)
    check_max_length(config.max_length, read_config(directory), directory)
    run = _Run(
        recipe=recipe,
        config=config,
        run_dir=run_dir,
        task=task,
        splits=splits,
        base=directory,
        random_weights=random_weights,
        tokenizer=tokenizer,
        seed=seed,
        name=name or ("random weights" if random_weights else str(chosen)),
        runtime=runtime,
        console=console,
        on_evaluation=on_evaluation,
    )
    return run.result() if run.is_finished() else run.go()


@dataclass(frozen=True)
class _Run:
    recipe: Recipe
    config: FinetuneConfig
    run_dir: Path
    task: Task[Any, Any]
    splits: Splits
    base: Path
    random_weights: bool
    tokenizer: Tokenizer
    seed: int
    name: str
    runtime: Runtime
    console: Console
    on_evaluation: OnEvaluation | None

    @property
    def metric(self) -> str:
        return self.config.metric or self.task.default_metric

    def fingerprint(self) -> dict[str, Any]:
        """Everything the result depends on."""
        weights = sorted(path for path in self.base.iterdir() if path.suffix in (".safetensors", ".json", ".txt"))
        return {
            "config": self.config.model_dump(mode="json", exclude=_NOT_OF_THE_RESULT),
            "seed": self.seed,
            "rows": self.splits.digest,
            "model": {path.name: file_sha256(path) for path in weights if path.name != "bertsmith.json"},
            "random_weights": self.random_weights,
        }

    def is_finished(self) -> bool:
        """True where this very run was done before; what another left in the folder is removed."""
        try:
            state = json.loads((self.run_dir / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        fingerprint = json.loads(canonical(self.fingerprint()))
        if state.get("made_from") == fingerprint:
            return bool(state.get("finished")) and all(
                (self.run_dir / name).exists() for name in ("scores.json", "model")
            )
        if self.run_dir.exists():
            self._clear(known=bool(state))
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.run_dir / "recipe.toml", recipe_toml(self.recipe))
        write_json(self.run_dir / "state.json", {"made_from": fingerprint, "finished": False})
        return False

    def go(self) -> FinetuneResult:
        task, config, splits = self.task, self.config, self.splits
        train_features = self._encode(splits.train, "train")
        validation_features = self._encode(splits.validation, "validation")
        model = self._make_model().to(self.runtime.device)
        batches = TrainingBatches(
            train_features,
            objective=task.name,
            pad_id=self.tokenizer.pad_id,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size,
            seed=self.seed,
        )
        every = batches.steps_per_epoch if config.evaluate_every == "epoch" else config.evaluate_every
        about = {
            "run": self.recipe.name,
            "kind": "finetune",
            "task": task.name,
            "environment": environment(self.runtime),
            "data": splits.facts(task),
        }
        track = Track(self.run_dir / "metrics.jsonl", about=about, console=self.console)
        train_loop(
            model=model,
            optimizer=make_optimizer(model, config),
            schedule=make_schedule(config.schedule, warmup_share=config.warmup_share),
            next_batches=batches.batch,
            loss_sums=self._loss_sums(model),
            plan=Plan(
                batch_size=config.batch_size,
                micro_batch_size=min(config.micro_batch_size or config.batch_size, config.batch_size),
                num_examples=len(splits.train),
                total_steps=config.epochs * batches.steps_per_epoch,
                steps_per_epoch=batches.steps_per_epoch,
                learning_rate=config.learning_rate,
                clip=config.clip,
                seed=self.seed,
                log_every=min(config.log_every_steps, every),
                evaluate_every=every,
                checkpoint_every_seconds=config.checkpoint_every_seconds,
            ),
            checkpoints=Checkpoints(self.run_dir / "checkpoints", keep=config.keep_checkpoints),
            track=track,
            runtime=self.runtime,
            evaluate=lambda _: self._evaluate(model, validation_features),
            callbacks=[lambda step, evaluation: self._keep(model, step, evaluation)],
        )
        self._save_model("last", model, read_evaluations(self.run_dir / "metrics.jsonl", self.metric)[-1])
        self._score()
        write_json(
            self.run_dir / "state.json", {"made_from": json.loads(canonical(self.fingerprint())), "finished": True}
        )
        return self.result()

    def result(self) -> FinetuneResult:
        """Read what is in the folder of a finished run."""
        try:
            lines = json.loads((self.run_dir / "scores.json").read_text(encoding="utf-8"))["table"]
            score_rows = tuple(ScoreRow(**line) for line in lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self.run_dir / 'scores.json'} cannot be read ({error}); remove {self.run_dir}"
            ) from error
        table = read_evaluations(self.run_dir / "metrics.jsonl", self.metric)
        scores: dict[str, dict[str, float]] = {}
        for row in score_rows:
            if row.name == self.name:
                scores.setdefault(row.split, {})[row.metric] = row.score
        best = [row.step for row in table if row.best]
        return FinetuneResult(self.run_dir, scores, best[-1] if best else None, table, score_rows)

    def _clear(self, *, known: bool) -> None:
        """Remove an earlier, different run; a folder that holds anything else is left alone."""
        ours = [
            path for path in self.run_dir.iterdir() if path.name in _RESULTS or path.name.startswith("predictions-")
        ]
        if ours and not known:
            raise UsageError(f"{self.run_dir} holds {ours[0].name}, but no fine-tuning run; give another folder")
        if ours:
            self.console.print(f"{self.run_dir}: recipe, data or model changed; starting again", highlight=False)
        for path in ours:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _encode(self, rows: Sequence[Any], split: str) -> Features:
        features = self.task.encode(rows, self.tokenizer, labels=self.splits.labels, max_length=self.config.max_length)
        if cut := int((features.cut_tokens > 0).sum()):
            words = f", {features.lost_items:,} words without an answer" if features.lost_items else ""
            self.console.print(
                f"{split}: {cut:,} of {len(rows):,} rows are longer than max_length = {self.config.max_length} tokens "
                f"and were cut ({features.truncation_share:.1%} of all tokens{words})",
                highlight=False,
            )
        return features

    def _make_model(self) -> Pretrained:
        """The encoder of the base model with a head for these labels; seeded, so that a fresh head is the same again.

        A head that the base model already has is kept only if it was trained for just these labels in this order.
        """
        labels = self.splits.labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("head", self.seed))
            base_config = read_config(self.base)
            if self.random_weights:
                return self.task.head(base_config.with_labels(labels))
            model = self.task.head.from_pretrained(self.base, labels=labels)
            if base_config.labels != labels:
                init_weights(model, base_config.initializer_range, only=lambda module: module == "classifier")
            return model

    def _loss_sums(self, model: Pretrained) -> Callable[[TaskBatch], Mapping[str, Tensor]]:
        def loss_sums(batch: TaskBatch) -> Mapping[str, Tensor]:
            assert batch.targets is not None, "training rows have labels"
            return {self.task.name: self.task.item_losses(self.task.item_outputs(model, batch), batch.targets).sum()}

        # Bucketed batches come in dozens of lengths: compiling for them costs a minute, more than most runs gain.
        function, _ = compiled(loss_sums, self.config.compile, long_enough=False, say=self.console.print)
        return function

    def _evaluate(self, model: Pretrained, features: Features) -> Evaluation:
        outputs = self._outputs(model, features)
        scored = score_outputs(self.task, self.splits.validation, features, outputs, self.splits.labels)
        return Evaluation(
            loss=scored.loss,
            losses={self.task.name: scored.loss},
            scores=scored.scores,
            metric=self.metric,
            details=details(self.task, self.splits.validation, scored, self.splits.labels)
            | {"truncation_share": features.truncation_share},
        )

    def _outputs(self, model: Pretrained, features: Features) -> Any:
        return compute_outputs(model, features, self.task, pad_id=self.tokenizer.pad_id, runtime=self.runtime)

    def _keep(self, model: Pretrained, step: int, evaluation: Evaluation) -> None:
        """After each evaluation: the best weights so far, and the table."""
        table = read_evaluations(self.run_dir / "metrics.jsonl", self.metric)
        if evaluation.best:
            self._save_model("model", model, table[-1])
        write_evaluations(self.run_dir / "evaluations.csv", table)
        if self.on_evaluation is not None:
            self.on_evaluation(step, evaluation)

    def _save_model(self, name: str, model: Pretrained, evaluation: EvaluationRow) -> None:
        """Weights, tokenizer and card appear together or not at all."""
        draft = self.run_dir / f".{name}.draft-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            model.save_pretrained(draft)
            self.tokenizer.save(draft)
            write_card(draft, self._card(evaluation))
            replace_directory(draft, self.run_dir / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _card(self, evaluation: EvaluationRow) -> dict[str, Any]:
        return {
            "format": 1,
            "task": self.task.name,
            "labels": self.splits.labels,
            "max_length": self.config.max_length,
            "metric": self.metric,
            "base": "random weights" if self.random_weights else str(self.config.model or self.base.name),
            "step": evaluation.step,
            "scores": {"validation": {self.metric: evaluation.score}},
        }

    def _score(self) -> None:
        """Score the best weights, and the simple models of the recipe, on every test split."""
        splits, labels = self.splits, self.splits.labels
        table = read_evaluations(self.run_dir / "metrics.jsonl", self.metric)
        model = self.task.head.from_pretrained(self.run_dir / "model").to(self.runtime.device)
        lines: list[ScoreRow] = []
        for split, rows in (splits.test or {"validation": splits.validation}).items():
            lines += self._score_baselines(split, rows)
            started = time.monotonic()
            features = self._encode(rows, split)
            scored = score_outputs(self.task, rows, features, self._outputs(model, features), labels)
            predictions = [self.task.predictions_of(answer) for answer in scored.answers]
            seconds = table[-1].elapsed_seconds + time.monotonic() - started
            lines += score_table(
                self.task, rows, predictions, labels, name=self.name, split=split, seconds=seconds, seed=self.seed
            )
            records = (
                self.task.record(number, row, answer)
                for number, (row, answer) in enumerate(zip(rows, scored.answers, strict=True))
            )
            write_predictions(self.run_dir / f"predictions-{split}.jsonl", records)
        write_json(self.run_dir / "scores.json", {"metric": self.metric, "table": [asdict(line) for line in lines]})
        own: dict[str, dict[str, float]] = {line.split: {} for line in lines}
        for line in lines:
            if line.name == self.name:
                own[line.split][line.metric] = line.score
        card = read_card(self.run_dir / "model")
        write_card(self.run_dir / "model", card | {"scores": card["scores"] | own})
        print_evaluations(table, lines, self.metric, console=self.console)

    def _score_baselines(self, split: str, rows: Sequence[Any]) -> list[ScoreRow]:
        """The recipe's simple models; a model from random weights is a fine-tuning of its own."""
        lines: list[ScoreRow] = []
        for name, learn in BASELINES[self.task.name].items():
            if name in self.config.baselines and not self.random_weights:
                started = time.monotonic()
                answers = learn(self.splits.train, self.splits.validation, self.metric)(rows)
                predictions = [(answer,) if isinstance(answer, str) else answer for answer in answers]
                lines += score_table(
                    self.task,
                    rows,
                    predictions,
                    self.splits.labels,
                    name=name,
                    split=split,
                    seconds=time.monotonic() - started,
                    seed=self.seed,
                )
        return lines
