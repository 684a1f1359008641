"""Pre-training: examples and a recipe in, a language model with held-out scores out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from bertsmith.artifact import open_artifact
from bertsmith.config import ModelConfig, PretrainConfig, Recipe, recipe_toml
from bertsmith.errors import UsageError
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.shards import KIND as EXAMPLES
from bertsmith.model.config import BertConfig
from bertsmith.model.language import BertForMaskedLM, BertForPreTraining, LanguageModel
from bertsmith.model.positions import start_positions
from bertsmith.model.presets import preset
from bertsmith.model.vocabulary import check_tokenizer_fits
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime, derive_seed, environment
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.checkpoint import Checkpoints
from bertsmith.training.compiling import COMPILED, compiled
from bertsmith.training.heldout import HeldOut
from bertsmith.training.loop import Callback, LossSums, train
from bertsmith.training.losses import masked_token_loss_sum, next_sentence_loss_sum
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Plan
from bertsmith.training.run_dir import RunDir, model_digest
from bertsmith.training.schedule import make_schedule
from bertsmith.training.track import Track, clock_text, read_metrics

_NOT_OF_THE_WEIGHTS = {"compile", "checkpoint_every_seconds", "keep_checkpoints", "log_every_steps", "init"}
_COMPILE_PAYS_FROM_MINUTES = 15
_COMPILE_PAYS_FROM_STEPS = 5_000


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
    on_evaluation: Callback | None = None,
    console: Console | None = None,
) -> PretrainResult:
    """Pre-train as `recipe.pretrain` says, into `run_dir`; go on where an earlier call with the same input stopped.

    Args:
        examples: artifact of the examples stage, made with `tokenizer`.
        tokenizer: tokenizer directory, copied beside the model.
        on_evaluation: called as on_evaluation(step, evaluation) once an evaluation is in metrics.jsonl.

    Raises `UsageError`, `CheckpointError`; `Stopped` after Ctrl-C, state saved.
    """
    config = recipe.pretrain
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [pretrain] section")
    run = _Run(recipe, config, run_dir, examples, Tokenizer.load(tokenizer), runtime, console or Console())
    folder = run.folder()
    if folder.is_finished():
        result = run.result()
        run.say(f"done before: {_one_line(result)}")
        return result
    run.train(folder, on_evaluation)
    folder.finish()
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
    console: Console

    @property
    def seed(self) -> int:
        return self.recipe.seed if self.config.seed is None else self.config.seed

    @property
    def shape(self) -> ModelConfig:
        return self.recipe.model or ModelConfig()

    def folder(self) -> RunDir:
        """The run's folder, with everything that the weights depend on."""
        init = None if self.config.init is None else model_digest(self._init_dir(self.config.init))
        made_from = {
            "config": self.config.model_dump(mode="json", exclude=_NOT_OF_THE_WEIGHTS),
            "model": self.shape.model_dump(mode="json"),
            "init": init,
            "seed": self.seed,
            "examples": open_artifact(self.examples, EXAMPLES, verify=False).digest,
        }
        return RunDir(self.dir, "pre-training", made_from)

    def train(self, folder: RunDir, on_evaluation: Callback | None) -> None:
        """Train from the newest checkpoint, or from the start, to the end; then write `model/`.

        The model is made before the folder is touched, so that wrong input leaves nothing behind.
        """
        config = self.config
        model = self._make_model()
        folder.begin(recipe_toml(self.recipe), console=self.console)
        forward, note = compiled(
            model.masked_hidden, config.compile, long_enough=_pays_for_compiling(config), say=self.say
        )
        data = self._data("train", static_shapes=note == COMPILED)
        heldout = HeldOut(
            model,
            self._data("validation", static_shapes=False),
            num_examples=config.evaluation_examples,
            tokenizer=self.tokenizer,
            runtime=self.runtime,
        )
        plan = self._plan(data.num_examples)
        train(
            model=model,
            optimizer=make_optimizer(model, config),
            schedule=make_schedule(config.schedule, warmup_share=config.warmup_share),
            next_batches=lambda step: data.batch(step, plan.batch_size, plan.micro_batch_size),
            loss_sums=loss_sums_of(model, forward, skips_mask=note != COMPILED),
            plan=plan,
            checkpoints=Checkpoints(folder.checkpoints, keep=config.keep_checkpoints),
            track=Track(folder.metrics, about=self._about(note), console=self.console),
            runtime=self.runtime,
            evaluate=heldout.evaluate,
            callbacks=[] if on_evaluation is None else [on_evaluation],
        )
        folder.save_model("model", model, self.tokenizer, self._card())

    def result(self) -> PretrainResult:
        """Read what is in the folder of a finished run."""
        return PretrainResult(model=self.dir / "model", **_last_facts(self.dir / "metrics.jsonl"))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _make_model(self) -> LanguageModel:
        """Fresh or initial weights; seeded, so that a run begun again is the same again."""
        head = BertForPreTraining if {"nsp", "sop"} & set(self.config.objectives) else BertForMaskedLM
        overrides = self.shape.overrides
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("weights", self.seed))
            if self.config.init is None:
                self._check_fits(model_config := preset(self.shape.preset, self._sizes()))
                model = head(model_config)
                start_positions(model, self.shape.position_init)
                return model.to(self.runtime.device)
            directory = self._init_dir(self.config.init)
            self._check_fits(read_config(directory))
            allow_pickle = self.recipe.runtime.allow_pickle
            model = head.from_pretrained(directory, overrides=overrides, allow_pickle=allow_pickle)
            return model.to(self.runtime.device)

    def _init_dir(self, name: str) -> Path:
        return resolve_model_dir(name, allow_pickle=self.recipe.runtime.allow_pickle)

    def _sizes(self) -> dict[str, Any]:
        own = {"vocab_size": self.tokenizer.vocab_size, "pad_token_id": self.tokenizer.pad_id}
        return own | self.shape.overrides

    def _check_fits(self, config: BertConfig) -> None:
        check_tokenizer_fits(self.tokenizer.vocab_size, config)
        max_length = self._max_length()
        if max_length > config.max_position_embeddings:
            raise UsageError(
                f"examples.max_length = {max_length}, but the model has {config.max_position_embeddings} positions; "
                "lower the one or raise model.overrides.max_position_embeddings"
            )

    def _data(self, split: str, *, static_shapes: bool) -> PretrainData:
        return PretrainData(
            self.examples,
            split=split,
            tokenizer=self.tokenizer,
            objectives=self.config.objectives,
            mask_share=self.config.mask_share,
            mask_by=self.config.mask_by,
            window_tokens=self.config.window_tokens,
            seed=self.seed,
            static_shapes=static_shapes,
        )

    def _plan(self, num_examples: int) -> Plan:
        config = self.config
        return Plan(
            batch_size=config.batch_size,
            micro_batch_size=min(config.micro_batch_size or config.batch_size, config.batch_size),
            num_examples=num_examples,
            total_steps=config.max_steps,
            budget_seconds=None if config.budget_minutes is None else 60 * config.budget_minutes,
            learning_rate=config.learning_rate,
            clip=config.clip,
            seed=self.seed,
            log_every=config.log_every_steps,
            evaluate_every=config.evaluate_every_steps,
            checkpoint_every_seconds=config.checkpoint_every_seconds,
        )

    def _about(self, note: str) -> dict[str, Any]:
        counts = open_artifact(self.examples, EXAMPLES, verify=False).counts
        return {
            "run": self.recipe.name,
            "kind": "pretrain",
            "task": None,
            "environment": environment(self.runtime) | {"step": note},
            "data": {
                "train_rows": counts["train"]["spans"],
                "validation_rows": counts["validation"]["spans"],
                "test_rows": 0,
                "train_tokens": counts["train"]["tokens"],
                "label_counts": {},
            },
        }

    def _card(self) -> dict[str, Any]:
        facts = _last_facts(self.dir / "metrics.jsonl")
        return {
            "format": 1,
            "task": "pretrain",
            "objectives": self.config.objectives,
            "max_length": self._max_length(),
            "step": facts["steps"],
            "tokens": facts["tokens"],
            "scores": {"validation": facts["scores"]},
        }

    def _max_length(self) -> int:
        return int(open_artifact(self.examples, EXAMPLES, verify=False).config["max_length"])


def loss_sums_of(
    model: LanguageModel, forward: Callable[..., tuple[Tensor, Tensor | None]], *, skips_mask: bool
) -> LossSums:
    """The step function: `forward` is `model.masked_hidden`, compiled or not; the vocabulary's part stays outside it.

    With `skips_mask`, a batch without padding gets no attention mask; compiled code rather sees one form of input.
    """

    def loss_sums(batch: PretrainBatch) -> dict[str, Tensor]:
        is_full = skips_mask and batch.num_tokens == batch.input_ids.numel()
        attention_mask = None if is_full else batch.attention_mask
        hidden, pair_logits = forward(batch.input_ids, batch.masked_positions, attention_mask, batch.token_type_ids)
        sums = {}
        if "mlm" in batch.counts:
            sums["mlm"] = masked_token_loss_sum(hidden, model.decoder_weight, model.decoder_bias, batch.masked_labels)
        for objective in {"nsp", "sop"} & batch.counts.keys():
            assert pair_logits is not None, "a model with a next-sentence head"
            sums[objective] = next_sentence_loss_sum(pair_logits, batch.next_sentence_label)
        return sums

    return loss_sums


def _pays_for_compiling(config: PretrainConfig) -> bool:
    enough_time = config.budget_minutes is None or config.budget_minutes >= _COMPILE_PAYS_FROM_MINUTES
    enough_steps = config.max_steps is None or config.max_steps >= _COMPILE_PAYS_FROM_STEPS
    return enough_time and enough_steps


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
