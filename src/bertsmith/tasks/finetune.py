"""Fine-tuning: a labelled table and a checkpoint in, a model with honest scores out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from bertsmith.config import Recipe, recipe_toml
from bertsmith.model.encoder import encoder_of
from bertsmith.model.pretrained import Pretrained
from bertsmith.progress import rows_shown
from bertsmith.runtime import Runtime, detect, environment
from bertsmith.tasks.augment import copies_of
from bertsmith.tasks.augment import told as augmentation_told
from bertsmith.tasks.batches import TaskBatch, TrainingBatches
from bertsmith.tasks.continual import Kept, OldTask, forgetting_record, measure
from bertsmith.tasks.continual import told as forgetting_told
from bertsmith.tasks.epoch_time import predict_epoch
from bertsmith.tasks.evaluate import ScoreRow, details, score_outputs
from bertsmith.tasks.evaluations import EvaluationRow, read_evaluations, totals_line, write_evaluations
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.followed import FILE as FOLLOWED
from bertsmith.tasks.followed import followed, followed_texts
from bertsmith.tasks.inputs import Inputs, read_inputs
from bertsmith.tasks.lazy_words import lazy_words
from bertsmith.tasks.lengths import histogram, row_lengths
from bertsmith.tasks.look_ahead import look_ahead
from bertsmith.tasks.memory import Memory
from bertsmith.tasks.predict import Predictor, compute_outputs, write_predictions
from bertsmith.tasks.refit import FOLDER as REFIT
from bertsmith.tasks.refit import Refit, seconds_of
from bertsmith.tasks.scoring import Scorer, Scores
from bertsmith.tasks.splits import Splits
from bertsmith.tasks.training_loss import TrainingLoss, shape_of
from bertsmith.tasks.whole_batch import WholeBatchLoss
from bertsmith.training.batch_flops import flops_of
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.compiling import compiled
from bertsmith.training.distributed import Ranks, alone
from bertsmith.training.freeze import freeze
from bertsmith.training.loop import train as train_loop
from bertsmith.training.matmul_peak import matmul_peak
from bertsmith.training.memory_fit import MicroBatchFit
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Due, Evaluation, Plan
from bertsmith.training.run_dir import RunDir
from bertsmith.training.schedule import make_schedule
from bertsmith.training.track import Track

OnEvaluation = Callable[[int, Evaluation], bool | None]


@dataclass(frozen=True)
class FinetuneResult:
    """A finished fine-tuning."""

    run_dir: Path
    scores: Mapping[str, Mapping[str, float]]
    """Split -> metric -> score of the model; "validation" only where there is no test split, and no refit."""
    best_step: int | None
    table: tuple[EvaluationRow, ...]
    """One line an evaluation."""
    score_table: tuple[ScoreRow, ...]
    """What scores.json holds: this model and the baselines, on each split, by each metric."""
    refit: Refit | None = None
    """How the model was trained again on validation rows too; its scores are then those of test rows alone."""


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
    head: type[nn.Module] | None = None,
    splits: Splits | None = None,
    name: str | None = None,
    on_evaluation: OnEvaluation | None = None,
    console: Console | None = None,
    runtime: Runtime | None = None,
    ranks: Ranks | None = None,
) -> FinetuneResult:
    """Fine-tune as `recipe.finetune` says, into `run_dir`; go on where an earlier call with the same input stopped.

    Args:
        model: goes before the recipe's: a model directory, a run or a hub name.
        random_weights: take only the shape and the tokenizer of that model, and start from fresh weights, as the
            recipe's pre-training did.
        labels_dir: artifact with the code-words tables, for recipes that make their own labels.
        train, validation, test: tables in memory (DataFrame, Arrow, list) that go before the recipe's files.
        head: class of a head of one's own (`BertForSequenceClassification.own_head`), for tasks of whole texts.
        splits: rows that are read and split already, in place of tables and of the recipe's files.
        name: what the score table calls this model.
        on_evaluation: called as on_evaluation(step, evaluation) once an evaluation is in metrics.jsonl; training ends
            there if it returns True.
        ranks: all processes, where there are several, each with a whole model.

    Raises `DataError` (file and line), `CheckpointError`, `UsageError`; `Stopped` after Ctrl-C, state saved.
    """
    runtime = runtime or detect()
    inputs = read_inputs(
        recipe,
        runtime=runtime,
        model=model,
        random_weights=random_weights,
        labels_dir=labels_dir,
        train=train,
        validation=validation,
        test=test,
        head=head,
        splits=splits,
    )
    folder = RunDir(Path(run_dir), "fine-tuning", inputs.made_from, inputs.scored_on, results=("model", "scores.json"))
    run = _Run(
        inputs=inputs,
        dir=folder,
        name=name or ("random weights" if random_weights else inputs.chosen),
        runtime=runtime,
        ranks=ranks or alone(runtime),
        console=console or Console(soft_wrap=True),
        on_evaluation=on_evaluation,
    )
    if run.ranks.on_first(run.dir.is_finished):
        run.say(f"done before: {totals_line(run.evaluations())}")
    else:
        run.train(recipe)
        again = run.again() if inputs.config.refit else None
        if again is not None:
            again.train(recipe)
        run.ranks.on_first(lambda: run.score(None if again is None else again.refit))
        run.ranks.on_first(run.dir.finish)
    return run.result()


@dataclass(frozen=True)
class _Run:
    inputs: Inputs
    dir: RunDir
    name: str
    runtime: Runtime
    ranks: Ranks
    console: Console
    on_evaluation: OnEvaluation | None
    refit: Refit | None = None
    """Set where this is the second training, on all rows."""

    def train(self, recipe: Recipe) -> None:
        """Train, keeping the best and the last weights; goes on from a checkpoint where there is one.

        All input is read before the folder is touched, so that wrong input leaves nothing behind.
        """
        task, config, splits = self.inputs.task, self.inputs.config, self.inputs.splits
        if self.inputs.old is not None:
            self.say(self.inputs.old.in_words(splits.labels))
        rows = self._training_rows()
        shape = shape_of(config, task, rows, splits.labels)
        for split, count in splits.repeated().items():
            self.say(f"repeated   {count:,} of the {split} rows are training rows too: their scores say little")
        train_features = self._encode(rows, "train")
        validation_features = None if self.refit else self._encode(splits.validation, "validation")
        model = self.inputs.start.model(task, splits.labels, config).to(self.runtime.device)
        if model.config.is_decoder and getattr(model.get_submodule("bert"), "pooler", None) is not None:
            self.say(
                "causal     the model reads from left to right (is_decoder): [CLS], where this head reads, sees itself"
            )
        freeze([model], config.freeze)
        encoder_of(model).recomputes = config.activation_checkpointing
        self.ranks.same_weights(model)
        self.ranks.on_first(lambda: self.dir.begin(recipe_toml(recipe), console=self.console))
        memory = self._memory(model)
        if task.outputs.is_of_whole_batch:
            loss: TrainingLoss = WholeBatchLoss(task, model, config, shape)
        else:
            loss = TrainingLoss(task, model, config, shape, memory, self.inputs.teacher)
        batches = TrainingBatches(
            train_features,
            objective=task.name,
            also=tuple(loss.weights),
            redraw=lambda batch, epoch: task.redraw(batch, train_features, seed=self.inputs.seed, epoch=epoch),
            pad_id=self.inputs.tokenizer.pad_id,
            batch_size=self.inputs.batch_size()[0],
            seed=self.inputs.seed,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
        )
        positions = model.config.max_position_embeddings
        for line in look_ahead(task, splits, train_features, max_length=config.max_length, positions=positions):
            self.say(line)
        if predicted := self.ranks.on_first(lambda: self._predict_epoch(batches, loss)):
            self.say(f"an epoch   {predicted}")
        peak = self.ranks.size * self.ranks.on_first(lambda: matmul_peak(self.runtime))
        # Bucketed batches come in dozens of lengths: compiling for them costs more than most runs gain.
        loss_sums, _ = compiled(loss, config.compile, long_enough=False, say=self.say)
        words = lazy_words(model, batches, config, ranks=self.ranks, runtime=self.runtime)
        optimizer = make_optimizer(model, config, head_learning_rate=config.head_learning_rate, lazy_rows=words)
        fit = MicroBatchFit(optimizer, batches.longest, loss, self.runtime)
        schedule = make_schedule(config)
        about = {
            "run": recipe.name,
            "kind": "finetune",
            "task": task.name,
            "environment": environment(self.runtime) | {"matmul_flops_per_second": peak},
            "data": splits.facts(task)
            | {"copied_rows": len(rows) - len(splits.train)}
            | {"token_lengths": {"train": histogram(row_lengths(train_features), max_length=config.max_length)}},
        }
        if validation_features is not None:
            self.ranks.on_first(
                lambda: write_predictions(self.dir.path / FOLLOWED, followed_texts(task, splits.validation))
            )
        train_loop(
            model=model,
            optimizer=optimizer,
            schedule=self.refit.schedule(schedule, batches.steps_per_epoch) if self.refit else schedule,
            next_batches=lambda due: _batches(batches, memory, due),
            loss_sums=loss_sums,
            plan=replace(self._plan(batches), flops=flops_of(model.config), weights=loss.weights),
            checkpoints=Checkpoints(self.dir.checkpoints, keep=config.keep_checkpoints),
            track=Track(self.dir.metrics, about=about, console=self.console, trackers=recipe.runtime.track),
            runtime=self.runtime,
            evaluate=None if validation_features is None else lambda _: self._evaluate(model, validation_features),
            fit_micro_batch=fit if config.fits_micro_batch else None,
            callbacks=[lambda step, evaluation: self._keep(model, step, evaluation)],
            ranks=self.ranks,
        )
        if self.refit:
            self.ranks.on_first(lambda: self._save_refit(model))
            return
        self.ranks.on_first(lambda: self._save_model("last", model, self.evaluations()[-1]))
        self.say(totals_line(self.evaluations()))

    def again(self) -> "_Run":
        """The second training, on training and validation rows; its model takes the place of this one's best."""
        best = self.ranks.on_first(lambda: [row.epoch for row in self.evaluations() if row.best][-1])
        every = (*self.inputs.splits.train, *self.inputs.splits.validation)
        refit = Refit(len(every), best, self.inputs.config.epochs)
        self.say(f"refit      {refit.note}")
        fits = self.inputs.config.fits_micro_batch
        settled = {
            "batch_size": self.inputs.batch_size()[0],
            "micro_batch_size": "auto" if fits else self.inputs.config.micro_batch_size,
            "metric": self.inputs.metric,
        }
        return replace(
            self,
            inputs=replace(
                self.inputs,
                config=self.inputs.config.model_copy(update=settled),
                splits=replace(self.inputs.splits, train=every, validation=()),
            ),
            dir=replace(self.dir, path=self.dir.path / REFIT, made_from={**self.dir.made_from, "refit": asdict(refit)}),
            refit=refit,
        )

    def score(self, refit: Refit | None) -> None:
        """Score the model, the best weights or those of a second training, and simple models, on every test split."""
        model = self.inputs.task.head.from_pretrained(self.dir.path / "model").to(self.runtime.device)
        scorer = Scorer(
            task=self.inputs.task,
            splits=self.inputs.splits,
            metric=self.inputs.metric,
            name=self.name,
            baselines=() if self.inputs.start.random_weights else self.inputs.config.baselines,
            seed=self.inputs.seed,
            encode=self._encode,
            tokenizer=self.inputs.tokenizer,
            features=self.inputs.features,
            outputs=self._outputs,
            refit=refit,
            validation=self.inputs.features(self.inputs.splits.validation),
            calibrate=self.inputs.config.calibrate,
            columns=self.inputs.sliced,
            say=self.say,
        )
        training_seconds = self.evaluations()[-1].elapsed_seconds
        if refit is not None:
            training_seconds += seconds_of(self.dir.path / REFIT / "metrics.jsonl")
            if not self.inputs.splits.test:
                self.say("refit      no test rows: nothing says how good this model is")
        scores = scorer.score(model, self.dir.path, training_seconds=training_seconds)
        if self.inputs.old is not None:
            forgotten = self._forgotten(self.inputs.old, model)
            replace(scores, learned_on=forgetting_record(forgotten)).write(self.dir.scores)
            for line in forgetting_told(forgotten):
                self.say(line)

    def result(self) -> FinetuneResult:
        """Read what is in the folder of a finished run."""
        scores = Scores.read(self.dir.scores).called(self.name)
        evaluations = self.evaluations()
        best = [row.step for row in evaluations if row.best]
        return FinetuneResult(
            run_dir=self.dir.path,
            scores=scores.of_model(),
            best_step=best[-1] if best else None,
            table=evaluations,
            score_table=scores.table,
            refit=scores.refit,
        )

    def evaluations(self) -> tuple[EvaluationRow, ...]:
        return read_evaluations(self.dir.metrics, self.inputs.metric)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def _training_rows(self) -> Sequence[Any]:
        """The table's, and copies of them."""
        rows = self.inputs.splits.train
        if self.inputs.config.augment is None:
            return rows
        with rows_shown("augment", self.console) as report:
            copies = list(
                copies_of(
                    rows, self.inputs.config.augment, seed=self.inputs.seed, runtime=self.runtime, progress=report
                )
            )
        for line in augmentation_told(rows, copies):
            self.say(line)
        return [*rows, *(copy.row for copy in copies)]

    def _memory(self, model: Pretrained) -> Memory | None:
        if self.inputs.old is None:
            return None
        if self.inputs.old.config.ewc:
            rows = min(self.inputs.old.config.fisher_rows, len(self.inputs.old.rows))
            self.say(f"fisher     which weights the old task hangs on, by {rows:,} of its rows, one by one")
        ranks, batch_size = self.ranks, self.inputs.batch_size()[0]
        return Memory(
            self.inputs.old, model, seed=self.inputs.seed, batch_size=batch_size, rank=ranks.rank, world_size=ranks.size
        )

    def _forgotten(self, old: OldTask, model: Pretrained) -> list[Kept]:
        """Scores of old and new rows before training and by the best weights."""
        names = (self.dir.path / "model", self.inputs.task, model, self.inputs.tokenizer, self.inputs.splits.labels)
        best = Predictor(*names, self.inputs.config.max_length, self.runtime)
        start = self.inputs.start.model(self.inputs.task, self.inputs.splits.labels, self.inputs.config).to(
            self.runtime.device
        )
        return measure(old, replace(best, model=start), best, self.inputs.splits.test, self.inputs.metric)

    def _plan(self, batches: TrainingBatches) -> Plan:
        config, steps_per_epoch = self.inputs.config, batches.steps_per_epoch
        every = steps_per_epoch if config.evaluate_every == "epoch" else config.evaluate_every
        batch_size, because = self.inputs.batch_size()
        micro_batch_size = config.micro_batch_size if isinstance(config.micro_batch_size, int) else batch_size
        return Plan(
            batch_size=batch_size,
            micro_batch_size=min(micro_batch_size, batch_size),
            batch_size_because=because,
            num_examples=len(batches.features),
            total_steps=self.refit.steps(steps_per_epoch) if self.refit else config.epochs * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            learning_rate=config.learning_rate,
            clip=config.clip,
            clip_by=config.clip_by,
            seed=self.inputs.seed,
            log_every=min(config.log_every_steps, every),
            evaluate_every=every,
            checkpoint_every_seconds=config.checkpoint_every_seconds,
            rollback_after=config.rollback_after_updates,
            max_rollbacks=config.max_rollbacks,
            spike_factor=config.spike_factor,
            keep_best=config.keep_best_checkpoint,
            stop_after=config.stop_after,
        )

    def _encode(self, rows: Sequence[Any], split: str) -> Features:
        longest = self.inputs.config.max_length
        features = self.inputs.features(rows)
        if features.are_windows and len(features.tokens) > len(rows):
            self.say(
                f"windows    {len(features.tokens):,} of {len(rows):,} {split} rows at max_length = {longest} tokens"
            )
        if cut := int((features.cut_tokens > 0).sum()):
            what = "rows" if len(features.tokens) == len(rows) else "sequences"
            unanswered = f", {features.lost_items:,} words without an answer" if features.lost_items else ""
            self.say(
                f"cut        {cut:,} of {len(features.tokens):,} {split} {what} at max_length = {longest} tokens "
                f"({features.truncation_share:.1%} of all tokens{unanswered})"
            )
        return features

    def _predict_epoch(self, batches: TrainingBatches, loss: TrainingLoss) -> str:
        """How long an epoch will take, in words; none where the run is too short to try."""
        config, size = self.inputs.config, self.inputs.config.micro_batch_size
        found = predict_epoch(
            loss,
            loss.model,
            loss.model.config,
            batches,
            total_steps=config.epochs * batches.steps_per_epoch,
            micro_batch_size=None if config.fits_micro_batch else int(size or self.inputs.batch_size()[0]),
            max_length=config.max_length,
            runtime=self.runtime,
            processes=self.ranks.size,
        )
        return "" if found is None else str(found)

    def _evaluate(self, model: Pretrained, features: Features) -> Evaluation:
        outputs = self._outputs(model, features, ranks=self.ranks)
        scored = score_outputs(
            self.inputs.task, self.inputs.splits.validation, features, outputs, self.inputs.splits.labels
        )
        of_rows = followed(self.inputs.task, self.inputs.splits.validation, scored.answers)
        return Evaluation(
            loss=scored.loss,
            losses={self.inputs.task.name: scored.loss},
            scores={
                self.inputs.metric: scored.scores[self.inputs.metric],
                **scored.scores,
            },  # the one that decides first
            metric=self.inputs.metric,
            smaller_is_better=self.inputs.metric in self.inputs.task.smaller_is_better,
            details=details(self.inputs.task, self.inputs.splits.validation, scored, self.inputs.splits.labels)
            | {"truncation_share": features.truncation_share, "unanswered_items": features.lost_items}
            | ({"followed": of_rows} if of_rows else {}),
        )

    def _outputs(self, model: Pretrained, features: Features, *, ranks: Ranks | None = None) -> Floats:
        pad_id, runtime = self.inputs.tokenizer.pad_id, self.runtime
        return compute_outputs(model, features, self.inputs.task, pad_id=pad_id, runtime=runtime, ranks=ranks)

    def _keep(self, model: Pretrained, step: int, evaluation: Evaluation) -> bool | None:
        """After each evaluation: the best weights so far, and the table; whether training is to end."""
        table = self.evaluations()
        if evaluation.best:
            self._save_model("model", model, table[-1])
        write_evaluations(self.dir.path / "evaluations.csv", table)
        return None if self.on_evaluation is None else self.on_evaluation(step, evaluation)

    def _save_model(self, name: str, model: Pretrained, evaluation: EvaluationRow) -> None:
        measured = {"step": evaluation.step, "scores": {"validation": {self.inputs.metric: evaluation.score}}}
        self._save(self.dir, name, model, measured)

    def _save_refit(self, model: Pretrained) -> None:
        """In the place of the model that the validation rows chose."""
        assert self.refit is not None
        chosen = replace(self.dir, path=self.dir.path.parent)
        self._save(chosen, "model", model, {"refit": asdict(self.refit), "scores": {}})

    def _save(self, folder: RunDir, name: str, model: Pretrained, measured: Mapping[str, Any]) -> None:
        others = self.inputs.task.other_files(width=model.config.hidden_size, max_length=self.inputs.config.max_length)
        folder.save_model(name, model, self.inputs.tokenizer, {**self.inputs.card, **measured}, others)


def _batches(new: TrainingBatches, memory: Memory | None, due: Due) -> Sequence[TaskBatch]:
    """Micro-batches of an update, of new rows and of old ones that another head reads."""
    found = new.batch(due.step, due.micro_batch_size)
    return found if memory is None else memory.batches(due, found, first_free_id=len(new.features))
