"""The phases of a pre-training: what each one reads, for how long it goes on, and by what it is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.artifact import open_artifact
from bertsmith.config import PretrainConfig
from bertsmith.errors import UsageError
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.shards import KIND as EXAMPLES
from bertsmith.examples.shards import beside
from bertsmith.examples.unigrams import unigram_losses
from bertsmith.model.config import BertConfig
from bertsmith.model.language import LanguageModel
from bertsmith.runtime import Runtime, derive_seed
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.batch_choice import pretraining_batch_size
from bertsmith.training.batch_size import Growth, RampUp
from bertsmith.training.heldout import HeldOut
from bertsmith.training.labelled import OBJECTIVE, LabelledText
from bertsmith.training.plan import Due, Evaluation, Plan

_USUAL_GROWTH = 8
_COMPILE_PAYS_FROM_MINUTES = 15
_COMPILE_PAYS_FROM_STEPS = 5_000


@dataclass(frozen=True)
class Phase:
    """One phase of a run."""

    config: PretrainConfig
    number: int
    """Counted from 0."""
    num_phases: int
    examples: Path
    """Artifact with examples of this phase's length."""
    tokenizer: Tokenizer
    seed: int
    """Of the whole run."""

    @property
    def name(self) -> str:
        return self.config.name or f"phase {self.number + 1}"

    @property
    def weights(self) -> dict[str, float]:
        """Objective -> weight of its loss, where it is not 1."""
        return {str(name): weight for name, weight in self.config.weights.items()}

    @property
    def reads_text(self) -> bool:
        """False where it learns from labelled rows alone."""
        return any(name != OBJECTIVE for name in self.config.objectives)

    @property
    def reads_labels(self) -> bool:
        return OBJECTIVE in self.config.objectives

    @property
    def max_length(self) -> int:
        return int(open_artifact(self.examples, EXAMPLES, verify=False).config["max_length"])

    @property
    def digest(self) -> str:
        """Of its examples."""
        return open_artifact(self.examples, EXAMPLES, verify=False).digest

    @property
    def is_long(self) -> bool:
        return is_long(self.config)

    def check_fits(self, model: BertConfig) -> None:
        """Raises `UsageError` where examples are longer than the model's positions."""
        if self.max_length > model.max_position_embeddings:
            raise UsageError(
                f"examples.max_length = {self.max_length}, but the model has {model.max_position_embeddings} "
                "positions; lower the one or raise model.overrides.max_position_embeddings"
            )

    def data(self, split: str, *, static_shapes: bool) -> PretrainData:
        """One split's examples; each phase has an order, pairs and masks of its own."""
        config = self.config
        return PretrainData(
            self.examples,
            split=split,
            tokenizer=self.tokenizer,
            objectives=config.objectives,
            mask_share=max(config.mask_share_at(0.0), config.mask_share_at(1.0)),
            mask_by=config.mask_by,
            window_tokens=config.window_tokens,
            seed=derive_seed("phase", self.seed, self.number) if self.number else self.seed,
            static_shapes=static_shapes,
        )

    def evaluator(
        self,
        model: LanguageModel,
        classifier: nn.Module | None,
        labelled: LabelledText | None,
        runtime: Runtime,
    ) -> Callable[[int], Evaluation]:
        """Held-out losses and scores of this phase's objectives; the loss is their weighted sum, as in training."""
        heldout = self._heldout(model, runtime) if self.reads_text else None

        def evaluate(step: int) -> Evaluation:
            found = Evaluation(0.0) if heldout is None else heldout.evaluate(step)
            losses, scores = dict(found.losses), dict(found.scores)
            if labelled is not None and classifier is not None:
                losses[OBJECTIVE], label_scores = labelled.evaluate(classifier)
                scores.update(label_scores)
            loss = sum(self.weights.get(name, 1.0) * value for name, value in losses.items())
            return replace(found, loss=loss, losses=losses, scores=scores)

        return evaluate

    def _heldout(self, model: LanguageModel, runtime: Runtime) -> HeldOut:
        return HeldOut(
            model,
            self.data("validation", static_shapes=False),
            num_examples=self.config.evaluation_examples,
            tokenizer=self.tokenizer,
            runtime=runtime,
            unigram_losses=self._unigram_losses(runtime) if "mlm" in self.config.objectives else None,
        )

    def _unigram_losses(self, runtime: Runtime) -> Tensor:
        losses = unigram_losses(self.examples, vocab_size=self.tokenizer.vocab_size)
        return torch.from_numpy(losses).to(runtime.device)

    def batches(self, data: PretrainData, due: Due, *, rank: int = 0, world_size: int = 1) -> list[PretrainBatch]:
        """This rank's micro-batches of an update, with as many masks as are due by then."""
        return data.batch(
            due.number,
            due.batch_size,
            due.micro_batch_size,
            mask_share=self.config.mask_share_at(due.progress),
            first_position=due.first_position,
            rank=rank,
            world_size=world_size,
        )

    def plan(self, data: PretrainData | None, labelled: LabelledText | None, *, parameters: int) -> Plan:
        """Examples are those of the text; where a phase reads none, labelled rows."""
        config = self.config
        if data is not None:
            sizes = self._sizes(data.num_examples, parameters)
        else:
            assert labelled is not None, "a phase has objectives"
            sizes = _Sizes(labelled.num_rows, labelled.batch_size)
        micro_batch_size = config.micro_batch_size if isinstance(config.micro_batch_size, int) else sizes.batch_size
        return Plan(
            batch_size=sizes.batch_size,
            micro_batch_size=min(micro_batch_size, sizes.batch_size),
            num_examples=sizes.num_examples,
            batch_size_because=sizes.because,
            ramp_up=sizes.ramp_up,
            growth=sizes.growth,
            total_steps=config.max_steps,
            budget_seconds=None if config.budget_minutes is None else 60 * config.budget_minutes,
            weights=self.weights,
            learning_rate=config.learning_rate,
            clip=config.clip,
            clip_by=config.clip_by,
            seed=self.seed,
            log_every=config.log_every_steps,
            evaluate_every=config.evaluate_every_steps,
            checkpoint_every_seconds=config.checkpoint_every_seconds,
            rollback_after=config.rollback_after_updates,
            max_rollbacks=config.max_rollbacks,
            spike_factor=config.spike_factor,
            keep_best=config.keep_best_checkpoint,
            phase=self.number,
            num_phases=self.num_phases,
            phase_name=self.name if self.num_phases > 1 else "",
        )

    def _sizes(self, num_examples: int, parameters: int) -> "_Sizes":
        """Of batches of text."""
        config = self.config
        if config.batch_size == "auto":
            batch_size, because = pretraining_batch_size(
                num_examples=num_examples,
                parameters=parameters,
                max_steps=config.max_steps,
                budget_minutes=config.budget_minutes,
            )
        else:
            batch_size, because = config.batch_size, ""
        ramp_up = None
        if config.batch_size_rampup is not None:
            first, share = config.batch_size_rampup
            ramp_up = RampUp(min(first, batch_size), batch_size, share)
        growth = None
        if config.batch_size_growth == "noise-scale":
            growth = Growth(config.max_batch_size or _USUAL_GROWTH * batch_size)
        return _Sizes(num_examples, batch_size, because, ramp_up, growth)

    def facts(self) -> dict[str, Any]:
        """What it learns from, for the start event."""
        counts = open_artifact(self.examples, EXAMPLES, verify=False).counts
        return {
            "train_rows": counts["train"]["spans"],
            "validation_rows": counts["validation"]["spans"],
            "test_rows": 0,
            "train_tokens": counts["train"]["tokens"],
            "label_counts": {},
        }


def is_long(config: PretrainConfig) -> bool:
    """Long enough to pay for compiling."""
    enough_time = config.budget_minutes is None or config.budget_minutes >= _COMPILE_PAYS_FROM_MINUTES
    enough_steps = config.max_steps is None or config.max_steps >= _COMPILE_PAYS_FROM_STEPS
    return enough_time and enough_steps


@dataclass(frozen=True)
class _Sizes:
    """A part of the plan."""

    num_examples: int
    batch_size: int
    because: str = ""
    ramp_up: RampUp | None = None
    growth: Growth | None = None


def phases_of(config: PretrainConfig, examples: Path, *, tokenizer: Tokenizer, seed: int) -> tuple[Phase, ...]:
    """`examples` is the artifact of [examples]; those of phases with other lengths stand beside it."""
    each: Sequence[PretrainConfig] = config.each_phase()
    return tuple(
        Phase(phase, number, len(each), beside(examples, phase.max_length), tokenizer, seed)
        for number, phase in enumerate(each)
    )
