"""What a recipe's pre-training will take, before it is run: parameters, arithmetic, memory, time, money."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bertsmith.artifact import open_artifact
from bertsmith.config import PretrainConfig, Recipe
from bertsmith.errors import ArtifactError, UsageError
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.shards import KIND, beside
from bertsmith.model.config import BertConfig
from bertsmith.model.flops import FORMULA, forward_flops
from bertsmith.model.language import LanguageModel
from bertsmith.runtime import Runtime
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.batch_choice import pretraining_batch_size
from bertsmith.training.batch_flops import flops_of
from bertsmith.training.freeze import freeze
from bertsmith.training.gpus import GpuEstimate
from bertsmith.training.inventory import Entry, inventory, sizes
from bertsmith.training.memory import FORMULA as MEMORY_FORMULA
from bertsmith.training.memory import Memory, memory
from bertsmith.training.phases import Phase, is_long
from bertsmith.training.plan import Due
from bertsmith.training.shape import config_of, head_of, objectives_of
from bertsmith.training.trial import Batches, Trial, made_up_batches, measure

_EVALUATIONS_PER_RUN = 10
_SAMPLED_STEPS = 16
_EVALUATED = 64
"""Held-out examples that are timed; the time of all follows from it."""


@dataclass(frozen=True)
class PhaseEstimate:
    """One phase; None stands for what is not known without building examples, or without measuring."""

    name: str
    source: str
    """What the figures of a step come from."""
    batch_size: int
    micro_batch_size: int
    length: int
    tokens_per_step: float
    flops_per_token: float
    steps: int | None
    epochs: float | None
    tokens: float | None
    flops: float | None
    memory: Memory
    """On this machine, by formula."""
    gpu_memory_bytes: int
    trial: Trial | None
    evaluation_seconds: float | None
    """Of one."""
    evaluations: int | None
    seconds: float | None
    """Of the phase on this machine."""


@dataclass(frozen=True)
class Estimate:
    """The whole of it."""

    model: BertConfig
    entries: tuple[Entry, ...]
    """Every tensor; frozen is what is frozen in all phases."""
    sizes: Mapping[str, int]
    phases: tuple[PhaseEstimate, ...]
    notes: tuple[str, ...]
    """What had to be assumed."""

    @property
    def seconds(self) -> float | None:
        return _sum([phase.seconds for phase in self.phases])

    @property
    def flops(self) -> float | None:
        return _sum([phase.flops for phase in self.phases])

    def to_dict(self, gpus: Sequence[GpuEstimate]) -> dict[str, Any]:
        """For `--json`."""
        return {
            "parameters": dict(self.sizes),
            "flops_formula": FORMULA,
            "memory_formula": MEMORY_FORMULA,
            "phases": [
                {**asdict(one), "memory": asdict(one.memory) | {"total": one.memory.total}} for one in self.phases
            ],
            "seconds": self.seconds,
            "flops": self.flops,
            "gpus": [asdict(gpu) for gpu in gpus],
            "tensors": [asdict(entry) for entry in self.entries],
            "notes": list(self.notes),
        }


def estimate(
    recipe: Recipe, folder: Path, *, runtime: Runtime, seconds: float, say: Callable[[str], None] = lambda _: None
) -> Estimate:
    """What `recipe` will take; each of its phases is tried for about `seconds` (0: nothing is measured).

    `folder` is runs/NAME: a vocabulary and examples that are there already are used, else full examples are made up.
    Raises `UsageError` without a [pretrain] section.
    """
    config = recipe.pretrain
    if config is None:
        raise UsageError(f"recipe {recipe.name!r} has no [pretrain] section; there is nothing to plan")
    notes: list[str] = []
    tokenizer = _tokenizer(folder)
    vocabulary = _vocabulary(recipe, tokenizer, notes)
    shape = config_of(recipe, config, vocabulary=vocabulary)
    head = head_of(objectives_of(config))
    each = config.each_phase()
    found = []
    for number, phase in enumerate(each):
        with torch.device("meta"):
            planned = head(shape)
        freeze([planned], phase.freeze)
        size = sizes(inventory(planned))
        work = _Work(recipe, phase, number, len(each), folder, tokenizer, shape, runtime, size["all"])
        say(f"measuring {work.name} ...")
        model = head(shape).to(runtime.device) if seconds and work.reads_text else None
        found.append(work.estimate(model, size, seconds=seconds, notes=notes))
    with torch.device("meta"):
        whole = head(shape)
    freeze([whole], [name for name in each[0].freeze if all(name in phase.freeze for phase in each)])
    entries = tuple(inventory(whole))
    return Estimate(shape, entries, sizes(entries), tuple(found), tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class _Work:
    """One phase that is being estimated."""

    recipe: Recipe
    config: PretrainConfig
    number: int
    num_phases: int
    folder: Path
    tokenizer: Tokenizer | None
    shape: BertConfig
    runtime: Runtime
    parameters: int

    @property
    def name(self) -> str:
        return self.config.name or (f"phase {self.number + 1}" if self.num_phases > 1 else "training")

    @property
    def reads_text(self) -> bool:
        return any(name != "label" for name in self.config.objectives)

    @property
    def length(self) -> int:
        assert self.recipe.examples is not None, "[pretrain] needs [examples]"
        return self.config.max_length or self.recipe.examples.max_length

    @cached_property
    def batch_size(self) -> int:
        config, phase = self.config, self._phase()
        if config.batch_size != "auto":
            return config.batch_size
        return pretraining_batch_size(
            num_examples=None if phase is None else _spans(phase),
            parameters=self.parameters,
            max_steps=config.max_steps,
            budget_minutes=config.budget_minutes,
        )[0]

    @property
    def micro_batch_size(self) -> int:
        """The whole batch where the run is to find out what fits."""
        given = self.config.micro_batch_size
        return min(given, self.batch_size) if isinstance(given, int) else self.batch_size

    def estimate(
        self, model: LanguageModel | None, size: Mapping[str, int], *, seconds: float, notes: list[str]
    ) -> PhaseEstimate:
        phase = self._phase()
        if self.config.fits_micro_batch:
            notes.append(f"how many of {self.batch_size} examples fit at once is found when the run begins: here, all")
        if self.config.batch_size_rampup is not None or self.config.batch_size_growth != "off":
            notes.append(f"batches are reckoned at {self.batch_size} examples throughout, though they are to grow")
        if "label" in self.config.objectives:
            notes.append("labelled rows (objective label) are left out of all figures")
        if phase is None:
            notes.append(
                f"examples of {self.length} tokens are not built yet: full ones are made up, so tokens and time are "
                "upper bounds, and epochs are not known (bertsmith examples build RECIPE)"
            )
        tokens, flops, masks = self._step(phase)
        trial, evaluation_seconds = None, None
        if model is not None:
            freeze([model], self.config.freeze)
            trial, evaluation_seconds = self._try(model, phase, seconds)
            if evaluation_seconds is None:  # by the rate at which updates do arithmetic
                evaluation_seconds = self._evaluation_flops() * trial.step_seconds / flops
        steps, evaluations, duration = self._course(trial, evaluation_seconds)
        return PhaseEstimate(
            name=self.name,
            source="made-up full examples" if phase is None else f"{_SAMPLED_STEPS} batches of its own examples",
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            length=self.length,
            tokens_per_step=tokens,
            flops_per_token=flops / tokens,
            steps=steps,
            epochs=None if phase is None or steps is None else steps * self.batch_size / _spans(phase),
            tokens=None if steps is None else steps * tokens,
            flops=None if steps is None else steps * flops,
            memory=self._memory(size, masks=masks, on_gpu=self.runtime.device.type == "cuda"),
            gpu_memory_bytes=self._memory(size, masks=masks, on_gpu=True).total,
            trial=trial,
            evaluation_seconds=evaluation_seconds,
            evaluations=evaluations,
            seconds=duration,
        )

    def _phase(self) -> Phase | None:
        """The phase with its examples, where they are built."""
        path = beside(self.folder / KIND, self.config.max_length)
        if self.tokenizer is None or not self.reads_text:
            return None
        try:
            artifact = open_artifact(path, KIND, verify=False)
        except ArtifactError:
            return None
        fits = artifact.config["max_length"] == self.length
        fits = fits and artifact.counts["vocab_size"] == self.tokenizer.vocab_size
        seed = self.recipe.seed if self.config.seed is None else self.config.seed
        phase = Phase(self.config, self.number, self.num_phases, path, self.tokenizer, seed)
        return phase if fits else None

    def _batches(self, phase: Phase | None, static_shapes: bool) -> Batches:
        if phase is None:
            cut = {"batch_size": self.batch_size, "micro_batch_size": self.micro_batch_size}
            return made_up_batches(self.config, self.shape, length=self.length, **cut)
        data = phase.data("train", static_shapes=static_shapes)

        def batches(step: int) -> Sequence[PretrainBatch]:
            due = Due(step, 0.5, self.batch_size, self.micro_batch_size, first_position=0, number=step)
            return phase.batches(data, due)

        return batches

    def _step(self, phase: Phase | None) -> tuple[float, float, float]:
        """Tokens, FLOPs and masked tokens of a step, in the mean; of labelled rows alone nothing is known."""
        if not self.reads_text:
            return float(self.batch_size * self.length), math.nan, 0.0
        steps = range(1 if phase is None else _SAMPLED_STEPS)
        source, flops = self._batches(phase, False), flops_of(self.shape)
        batches = [batch for step in steps for batch in source(step)]
        tokens = sum(batch.num_tokens for batch in batches) / len(steps)
        masks = sum(batch.counts.get("mlm", 0) for batch in batches) / len(steps)
        return tokens, sum(map(flops, batches)) / len(steps), masks

    def _try(self, model: LanguageModel, phase: Phase | None, seconds: float) -> tuple[Trial, float | None]:
        evaluate, share = None, 1.0
        if phase is not None:
            examples = min(_EVALUATED, self.config.evaluation_examples)
            fewer = replace(phase, config=self.config.model_copy(update={"evaluation_examples": examples}))
            held_out = fewer.evaluator(model, None, None, self.runtime)
            share = self.config.evaluation_examples / examples

            def evaluate() -> None:
                held_out(0)

        trial, evaluation_seconds = measure(
            model,
            self.config,
            batches=lambda static: self._batches(phase, static),
            runtime=self.runtime,
            seconds=seconds,
            long_enough=is_long(self.config),
            batch_size=self.batch_size,
            evaluate=evaluate,
        )
        return trial, None if evaluation_seconds is None else evaluation_seconds * share

    def _evaluation_flops(self) -> float:
        examples = self.config.evaluation_examples
        tokens = float(examples * self.length)
        return forward_flops(self.shape, tokens=tokens, length=self.length, masks=0.15 * tokens)

    def _course(
        self, trial: Trial | None, evaluation_seconds: float | None
    ) -> tuple[int | None, int | None, float | None]:
        """Steps, evaluations and seconds of the phase; a budget becomes steps as it does in training."""
        config, steps = self.config, self.config.max_steps
        if trial is None or evaluation_seconds is None:
            return steps, None if steps is None else self._evaluations(steps), None
        once = max(trial.first_seconds - trial.step_seconds, 0.0)
        if config.budget_minutes is not None:
            left = 60 * config.budget_minutes - once - evaluation_seconds
            every = config.evaluate_every_steps
            if every is None:
                fitting = (left - _EVALUATIONS_PER_RUN * evaluation_seconds) / trial.step_seconds
            else:
                fitting = left / (trial.step_seconds + evaluation_seconds / every)
            steps = min(max(int(fitting), 1), steps or max(int(fitting), 1))
        assert steps is not None, "one of the two ends is there"
        evaluations = self._evaluations(steps)
        return steps, evaluations, once + steps * trial.step_seconds + evaluations * evaluation_seconds

    def _evaluations(self, steps: int) -> int:
        every = self.config.evaluate_every_steps or max(1, math.ceil(steps / _EVALUATIONS_PER_RUN))
        return math.ceil(steps / every) + (self.config.budget_minutes is not None)

    def _memory(self, size: Mapping[str, int], *, masks: float, on_gpu: bool) -> Memory:
        narrow = on_gpu or self.runtime.dtype != torch.float32
        return memory(
            self.shape,
            parameters=size["all"],
            trained=size["trained"],
            rows=self.micro_batch_size,
            length=self.length,
            masks=masks * self.micro_batch_size / self.batch_size,
            dtype_bytes=2 if narrow else 4,
            optimizer=self.config.optimizer,
            checkpointing=self.config.activation_checkpointing,
            on_gpu=on_gpu,
        )


def _tokenizer(folder: Path) -> Tokenizer | None:
    path = folder / "tokenizer"
    return Tokenizer.load(path) if (path / "tokenizer.json").is_file() else None


def _vocabulary(recipe: Recipe, tokenizer: Tokenizer | None, notes: list[str]) -> dict[str, Any]:
    """Of the tokenizer that is there, or that the recipe names, or as large as it will be at most."""
    assert recipe.tokenizer is not None, "[pretrain] needs [tokenizer]"
    if tokenizer is None and recipe.tokenizer.path is not None:
        tokenizer = Tokenizer.load(recipe.tokenizer.path)
    if tokenizer is not None:
        return {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    size = recipe.tokenizer.vocab_size or BertConfig().vocab_size
    notes.append(f"there is no vocabulary yet: {size:,} entries are assumed; a small text may give fewer")
    return {"vocab_size": size, "pad_token_id": 0}


def _spans(phase: Phase) -> int:
    return int(open_artifact(phase.examples, KIND, verify=False).counts["train"]["spans"])


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
