"""Pre-training: examples and a recipe in, a language model with held-out scores out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bertsmith.config import NOT_OF_THE_WEIGHTS, ModelConfig, PretrainConfig, Recipe, recipe_toml
from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import encoder_of
from bertsmith.model.language import LanguageModel, MaskedStates
from bertsmith.model.positions import start_positions
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.vocabulary import check_tokenizer_fits
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime, derive_seed, environment
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.batch_flops import flops_of
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.compiling import COMPILED, compiled
from bertsmith.training.distributed import Ranks, alone
from bertsmith.training.freeze import freeze
from bertsmith.training.labelled import LabelledText, WithClassifier
from bertsmith.training.loop import train
from bertsmith.training.matmul_peak import matmul_peak
from bertsmith.training.memory_fit import MicroBatchFit
from bertsmith.training.objectives import loss_sums_of, with_labels
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.phases import Phase, phases_of
from bertsmith.training.plan import Callback, Due, LossSums
from bertsmith.training.run_dir import RunDir, model_digest
from bertsmith.training.schedule import make_schedule
from bertsmith.training.shape import config_of, head_of, objectives_of
from bertsmith.training.sharding import full, is_sharded, shard
from bertsmith.training.track import Track, read_metrics
from bertsmith.training.view import clock_text

_NOT_OF_THE_WEIGHTS = NOT_OF_THE_WEIGHTS | {"init", "name"}
"""Keys of `PretrainConfig` that the trained weights do not depend on; the files of `init` are hashed instead."""


@dataclass(frozen=True)
class PretrainResult:
    """A finished pre-training; loss and scores are held-out ones after the last step."""

    model: Path
    steps: int
    tokens: int
    elapsed_seconds: float
    parameters: int
    loss: float
    losses: dict[str, float]
    scores: dict[str, float]


def pretrain(
    recipe: Recipe,
    run_dir: Path,
    *,
    examples: Path,
    tokenizer: Path,
    runtime: Runtime,
    labelled: LabelledText | None = None,
    on_evaluation: Callback | None = None,
    console: Console | None = None,
    ranks: Ranks | None = None,
) -> PretrainResult:
    """Pre-train as `recipe.pretrain` says, into `run_dir`; go on where an earlier call with the same input stopped.

    Args:
        examples: artifact of the examples stage, made with `tokenizer`; those of phases with examples of another
            length stand beside it (`examples-512`).
        tokenizer: tokenizer directory, copied beside the model.
        labelled: rows for the objective label, as `tasks.labelled` reads them.
        on_evaluation: called as on_evaluation(step, evaluation) once an evaluation is in metrics.jsonl.
        ranks: all processes, where there are several; they share the folder.

    Raises `UsageError`, `CheckpointError`; `Stopped` after Ctrl-C, state saved.
    """
    config = recipe.pretrain
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [pretrain] section")
    ranks = ranks or alone(runtime)
    words, console = Tokenizer.load(tokenizer), console or Console()
    run = _Run(recipe, config, run_dir, examples, words, runtime, ranks, labelled, console)
    folder = run.folder()
    if ranks.on_first(folder.is_finished):
        result = run.result()
        run.say(f"done before: {_one_line(result)}")
        return result
    run.train(folder, on_evaluation)
    ranks.on_first(folder.finish)
    result = run.result()
    run.say(_closing_table(result))
    return result


@dataclass(frozen=True)
class _Run:
    recipe: Recipe
    config: PretrainConfig
    dir: Path
    examples: Path
    tokenizer: Tokenizer
    runtime: Runtime
    ranks: Ranks
    labelled: LabelledText | None
    console: Console

    @property
    def seed(self) -> int:
        return self.recipe.seed if self.config.seed is None else self.config.seed

    @property
    def shape(self) -> ModelConfig:
        return self.recipe.model or ModelConfig()

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        return phases_of(self.config, self.examples, tokenizer=self.tokenizer, seed=self.seed)

    def folder(self) -> RunDir:
        """The run's folder, with everything that the weights depend on."""
        init = None if self.config.init is None else model_digest(self._init_dir(self.config.init))
        made_from = {
            "phases": [
                {"config": phase.config.model_dump(mode="json", exclude=_NOT_OF_THE_WEIGHTS), "examples": phase.digest}
                for phase in self.phases
            ],
            "model": self.shape.model_dump(mode="json"),
            "init": init,
            "seed": self.seed,
            "labelled": None if self.labelled is None else self.labelled.digest,
        }
        return RunDir(self.dir, "pre-training", made_from)

    def train(self, folder: RunDir, on_evaluation: Callback | None) -> None:
        """Train from the newest checkpoint, or from the start, to the end; then write `model/`, and `classifier/`.

        The model is made before the folder is touched, so that wrong input leaves nothing behind.
        """
        model = self._make_model()
        classifier = None if self.labelled is None else self.labelled.classifier(model)
        for phase in self.phases:
            freeze([model, classifier], phase.config.freeze)
        self._spread(model)
        self.ranks.on_first(lambda: folder.begin(recipe_toml(self.recipe), console=self.console))
        checkpoints = Checkpoints(folder.checkpoints, keep=self.config.keep_checkpoints)
        trackers = self.recipe.runtime.track
        track = Track(folder.metrics, about=self._about(), console=self.console, trackers=trackers)
        for phase in self.phases:
            self._train_phase(phase, model, classifier, checkpoints, track, on_evaluation)
        trained = self._put_together(model)
        self.ranks.on_first(lambda: self._save(folder, trained, classifier))

    def _spread(self, model: LanguageModel) -> None:
        """The same weights on all ranks; with FSDP2 a part of them on each. Raises `UsageError` where it cannot be."""
        self.ranks.same_weights(model)
        if self.runtime.parallel == "ddp" or self.ranks.is_alone:
            return
        if self.labelled is not None:
            raise UsageError("runtime.parallel = 'fsdp' knows no labelled rows; use 'ddp'")
        for phase in self.phases:
            if phase.config.fits_micro_batch:
                raise UsageError("runtime.parallel = 'fsdp' needs a micro_batch_size that is a number; or use 'ddp'")
            ramp_up = phase.config.batch_size_rampup
            for size in [phase.config.batch_size, *([] if ramp_up is None else ramp_up[:1])]:
                if size == "auto" or size % self.ranks.size:
                    raise UsageError(
                        f"runtime.parallel = 'fsdp' needs as many examples on each of the {self.ranks.size} processes, "
                        f"but batch_size is {size!r}; give a multiple, or use 'ddp'"
                    )
        shard(model, encoder_of(model).layer, self.ranks, methods=["masked_states"])

    def _put_together(self, model: LanguageModel) -> LanguageModel:
        """The model itself, or of a sharded one a whole copy on each rank."""
        if not is_sharded(model):
            return model
        tensors = {name: full(tensor).cpu() for name, tensor in model.state_dict().items()}
        copy = self._head(model.config)
        copy.load_state_dict(tensors)
        return copy

    def _save(self, folder: RunDir, model: LanguageModel, classifier: Pretrained | None) -> None:
        if self.labelled is not None and classifier is not None:
            facts = _last_facts(folder.metrics)
            card = self.labelled.card(step=facts["steps"], scores=facts["scores"])
            folder.save_model("classifier", classifier, self.tokenizer, card)
        folder.save_model("model", model, self.tokenizer, self._card())

    def _train_phase(
        self,
        phase: Phase,
        model: LanguageModel,
        classifier: Pretrained | None,
        checkpoints: Checkpoints,
        track: Track,
        on_evaluation: Callback | None,
    ) -> None:
        config, labelled = phase.config, self.labelled if phase.reads_labels else None
        freeze([model, classifier], config.freeze)
        encoder_of(model).recomputes = config.activation_checkpointing
        forward, note = self._forward(phase, model)
        data = phase.data("train", static_shapes=note == COMPILED) if phase.reads_text else None

        def next_batches(due: Due) -> list[Any]:
            share = {"rank": self.ranks.rank, "world_size": self.ranks.size}
            text = () if data is None else phase.batches(data, due, **share)
            return [*text, *(() if labelled is None else labelled.batches(due))]

        loss_sums: LossSums = loss_sums_of(model, forward, skips_mask=note != COMPILED)
        if labelled is not None and classifier is not None:
            loss_sums = with_labels(loss_sums, labelled, classifier)
        trained = model if classifier is None else WithClassifier(model, classifier)
        optimizer = make_optimizer(trained, config)
        parameters = sum(parameter.numel() for parameter in trained.parameters())
        train(
            model=trained,
            optimizer=optimizer,
            schedule=make_schedule(config),
            next_batches=next_batches,
            loss_sums=loss_sums,
            plan=replace(
                phase.plan(data, labelled, parameters=parameters), step_note=note, flops=flops_of(model.config)
            ),
            checkpoints=checkpoints,
            track=track,
            runtime=self.runtime,
            evaluate=phase.evaluator(model, classifier, labelled, self.runtime),
            fit_micro_batch=self._fit(phase, model, classifier, optimizer) if config.fits_micro_batch else None,
            callbacks=[] if on_evaluation is None else [on_evaluation],
            ranks=self.ranks,
        )

    def _forward(self, phase: Phase, model: LanguageModel) -> tuple[Callable[..., MaskedStates], str]:
        """The forward pass, compiled or not, and a note that says which."""
        if self.runtime.parallel == "fsdp" and not self.ranks.is_alone:
            return model.masked_states, "eager: FSDP2"
        if phase.config.activation_checkpointing:
            return model.masked_states, "eager: activation_checkpointing"
        return compiled(model.masked_states, phase.config.compile, long_enough=phase.is_long, say=self.say)

    def _fit(
        self, phase: Phase, model: LanguageModel, classifier: Pretrained | None, optimizer: torch.optim.Optimizer
    ) -> MicroBatchFit:
        """By steps on the longest examples there may be, not compiled; beside text, labelled rows are not counted."""
        loss_sums: LossSums = loss_sums_of(model, model.masked_states, skips_mask=True)
        if phase.reads_text:
            data = phase.data("train", static_shapes=True)
            return MicroBatchFit(optimizer, lambda size: data.batch(0, size, size)[0], loss_sums, self.runtime)
        assert self.labelled is not None, "a phase has objectives"
        assert classifier is not None, "made where there are labelled rows"
        loss_sums = with_labels(loss_sums, self.labelled, classifier)
        return MicroBatchFit(optimizer, self.labelled.longest, loss_sums, self.runtime)

    def result(self) -> PretrainResult:
        """Read what is in the folder of a finished run."""
        return PretrainResult(model=self.dir / "model", **_last_facts(self.dir / "metrics.jsonl"))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _make_model(self) -> LanguageModel:
        """Fresh or initial weights; seeded, so that a run begun again is the same again."""
        head = self._head
        overrides = self.shape.overrides
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("weights", self.seed))
            if self.config.init is None:
                vocabulary = {"vocab_size": self.tokenizer.vocab_size, "pad_token_id": self.tokenizer.pad_id}
                self._check_fits(model_config := config_of(self.recipe, self.config, vocabulary=vocabulary))
                model = head(model_config)
                start_positions(model, self.shape.position_init)
                return model.to(self.runtime.device)
            directory = self._init_dir(self.config.init)
            self._check_fits(read_config(directory))
            allow_pickle = self.recipe.runtime.allow_pickle
            model = head.from_pretrained(directory, overrides=overrides, allow_pickle=allow_pickle)
            return model.to(self.runtime.device)

    @property
    def _head(self) -> type[LanguageModel]:
        return head_of(self._objectives())

    def _objectives(self) -> list[str]:
        """Of all phases, each once."""
        return objectives_of(self.config)

    def _init_dir(self, name: str) -> Path:
        return resolve_model_dir(name, allow_pickle=self.recipe.runtime.allow_pickle)

    def _check_fits(self, config: BertConfig) -> None:
        check_tokenizer_fits(self.tokenizer.vocab_size, config)
        for phase in self.phases:
            phase.check_fits(config)

    def _about(self) -> dict[str, Any]:
        peak = self.ranks.size * self.ranks.on_first(lambda: matmul_peak(self.runtime))
        return {
            "run": self.recipe.name,
            "kind": "pretrain",
            "task": None,
            "environment": environment(self.runtime) | {"matmul_flops_per_second": peak},
            "data": self.phases[0].facts(),
        }

    def _card(self) -> dict[str, Any]:
        facts = _last_facts(self.dir / "metrics.jsonl")
        return {
            "format": 1,
            "task": "pretrain",
            "objectives": self._objectives(),
            "max_length": max(phase.max_length for phase in self.phases),
            "step": facts["steps"],
            "tokens": facts["tokens"],
            "scores": {"validation": facts["scores"]},
        }


def _last_facts(metrics: Path) -> dict[str, Any]:
    """How a run ended, as its metrics.jsonl tells it."""
    last = {event["event"]: event for event in read_metrics(metrics)}
    evaluation, stop = last["evaluation"], last["stop"]
    return {
        "steps": stop["step"],
        "tokens": stop["tokens"],
        "elapsed_seconds": stop["elapsed_seconds"],
        "parameters": last["start"]["plan"]["parameters"],
        "loss": evaluation["loss"],
        "losses": evaluation["losses"],
        "scores": evaluation["scores"],
    }


def _one_line(result: PretrainResult) -> str:
    return f"{result.steps:,} steps, {result.tokens:,} tokens, held-out loss {result.loss:.4f}"


def _closing_table(result: PretrainResult) -> str:
    rows = {
        "steps": f"{result.steps:,}",
        "tokens": f"{result.tokens:,}",
        "time": clock_text(result.elapsed_seconds),
        "parameters": f"{result.parameters:,}",
        **{f"held-out {name} loss": f"{value:.4f}" for name, value in result.losses.items()},
        **{f"held-out {name.replace('_', ' ')}": f"{value:.4f}" for name, value in result.scores.items()},
        "model": str(result.model),
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
