"""Sections on training: the network, the loop, pre-training."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from bertsmith.config.optimizer import OptimizerConfig
from bertsmith.config.section import Positive, Section
from bertsmith.config.table import LabelledConfig


class ModelConfig(Section):
    """The network to pre-train from random weights."""

    preset: Literal["tiny", "mini", "small", "medium", "base", "large"] = "mini"
    overrides: dict[str, Any] = {}
    """BertConfig fields that differ from the preset, such as `hidden_dropout_prob = 0.0`."""
    position_init: Literal["random", "sinusoids"] = "random"
    """Where position embeddings start from: random as in the BERT paper, or sine waves, from which short runs learn
    sooner what stands beside a word. Learned on from there either way."""


class LoopConfig(OptimizerConfig):
    """What pre-training and fine-tuning have in common."""

    freeze: tuple[str, ...] = ()
    """Parts that do not train, such as `["embeddings", "encoder.layer.0-3"]`: modules or tensors by name, numbers as
    ranges too. Frozen parts at the bottom cost no backward pass, and none costs optimizer memory."""
    batch_size: Positive | Literal["auto"] = 32
    """Examples in one update, over all micro-batches and processes. auto: chosen by the number of examples and the
    length of the run, before it begins; says why."""
    micro_batch_size: Positive | Literal["auto"] | None = None
    """Examples in one forward pass; the update is the same, memory is less. auto: the largest that fits into memory, or
    a smaller one that is faster. Default: the whole batch, or auto with an automatic batch size."""
    activation_checkpointing: bool = False
    """Keep of each layer only its input for the backward pass and compute the rest again: less memory, a third more
    time, the same update."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the step: auto takes it where a C++ compiler is found and the run is long enough to pay for it."""
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time between checkpoints."""
    keep_checkpoints: Positive = 2
    rollback_after_updates: Positive = 3
    """An update whose loss or gradient is not finite is never applied. After so many in a row the run goes back to its
    last checkpoint, and on without the examples that spoiled them, which it names."""
    max_rollbacks: Annotated[int, Field(ge=0)] = 3
    """Of a run; after that it stops and says why."""
    spike_factor: Annotated[float, Field(gt=1)] | None = None
    """Take a loss above so many times the median of the last 50 for one that is not finite. Default: never."""
    keep_best_checkpoint: bool = True
    """Save after each evaluation that is the best so far, and keep that checkpoint beside the newest."""
    log_every_steps: Positive = 10
    seed: int | None = None
    """Default: the recipe's seed."""

    @property
    def fits_micro_batch(self) -> bool:
        """True where the micro-batch is to be what memory holds."""
        return "auto" in (self.micro_batch_size, self.micro_batch_size or self.batch_size)


NOT_OF_THE_WEIGHTS = {
    "compile",
    "activation_checkpointing",
    "checkpoint_every_seconds",
    "keep_checkpoints",
    "keep_best_checkpoint",
    "log_every_steps",
}
"""Keys of `LoopConfig` that the trained weights do not depend on."""

Objective = Literal["mlm", "nsp", "sop", "agreement", "smoothness", "label"]
MaskShare = Annotated[float, Field(gt=0, lt=1)]
MaskBy = Literal["token", "word", "span"]
_ENDS = {"max_steps", "budget_minutes"}
_OF_THE_WHOLE_RUN = (
    *("phases", "labelled", "init", "seed"),
    *("keep_checkpoints", "keep_best_checkpoint", "checkpoint_every_seconds", "log_every_steps"),
)


class PretrainConfig(LoopConfig):
    """From random or earlier weights to a language model, in one phase or several."""

    phases: tuple[dict[str, Any], ...] = ()
    """One table, `[[pretrain.phases]]`, a phase, in order; each says what it does differently from `[pretrain]`, such
    as max_length, batch_size, max_steps, objectives or learning_rate. The optimizer begins anew with each."""
    name: str = ""
    """Of a phase, for logs; default: its number."""
    objectives: tuple[Objective, ...] = ("mlm", "nsp")
    """Masked words (mlm), and of sentence pairs next sentence (nsp, BERT) or sentence order (sop, ALBERT). Without
    pairs an example is one run of sentences. Beside mlm: agreement of each token with [CLS] of the text unmasked, and
    smoothness from token to token. label: a classifier on [CLS], from `[pretrain.labelled]`."""
    labelled: LabelledConfig | None = None
    """A labelled file for the objective label."""
    weights: dict[Objective, Annotated[float, Field(gt=0)]] = {}
    """Objective -> weight of its loss in the sum; default: 1."""
    max_length: Annotated[int, Field(ge=16, le=512)] | None = None
    """Tokens in an example of this phase; default: that of [examples]. Examples are built for each length."""
    mask_share: MaskShare | tuple[MaskShare, MaskShare] = 0.15
    """Share of tokens to guess; `[0.3, 0.15]` falls evenly from the first to the second over the phase. Held-out loss
    is measured at 0.15 whatever is said here."""
    mask_by: MaskBy = "token"
    """What is hidden together: single tokens, whole words (Chinese ones too), or runs of words (SpanBERT)."""
    batch_size_rampup: tuple[Positive, Annotated[float, Field(gt=0, le=1)]] | None = None
    """`[8, 0.3]`: begin with 8 examples in an update, and be at batch_size after 0.3 of the phase. Text only; labelled
    rows come as many at a time as `labelled.batch_size` says."""
    batch_size_growth: Literal["off", "noise-scale"] = "off"
    """noise-scale: double the batch whenever the measured gradient noise scale is greater than it, up to
    max_batch_size. Text only."""
    max_batch_size: Positive | None = None
    """Where growth ends; default: 8 times batch_size."""
    window_tokens: Positive = 64_000_000
    """Examples are shuffled, and partners drawn, among so many tokens at a time: what is open at once."""
    max_steps: Positive | None = None
    budget_minutes: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock budget, counted in steps once 50 are measured, and again. One of this and max_steps is needed."""
    evaluate_every_steps: Positive | None = None
    """Default: ten evaluations in the run."""
    evaluation_examples: Positive = 512
    """Held-out examples in one evaluation: the same ones, with the same masks, each time."""
    init: str | None = None
    """Go on from this model directory or hub name instead of random weights."""

    @model_validator(mode="after")
    def _has_an_end(self) -> "PretrainConfig":
        if self.max_steps is None and self.budget_minutes is None and not self.phases:
            raise ValueError("needs max_steps or budget_minutes")
        if not self.objectives:
            raise ValueError("objectives is empty; use 'mlm', 'nsp', 'sop', or 'mlm' with one of the others")
        if {"nsp", "sop"} <= set(self.objectives):
            raise ValueError("objectives has both 'nsp' and 'sop', two questions about one pair; leave one out")
        beside = {"agreement", "smoothness"} & set(self.objectives)
        if beside and "mlm" not in self.objectives:
            raise ValueError(f"objectives has {sorted(beside)[0]!r} without 'mlm': all states would become the same")
        if "label" in self.objectives and self.labelled is None:
            raise ValueError("objectives has 'label', but there is no [pretrain.labelled] with train = FILE")
        if strangers := self.weights.keys() - set(self.objectives):
            raise ValueError(f"weights names {sorted(strangers)[0]!r}, which is not in objectives")
        return self

    @model_validator(mode="after")
    def _batches_can_grow(self) -> "PretrainConfig":
        size, grows = self.batch_size, self.batch_size_growth != "off"
        if self.max_batch_size is not None and not grows:
            raise ValueError("max_batch_size needs batch_size_growth = 'noise-scale'")
        if size == "auto":
            return self
        if self.batch_size_rampup is not None and self.batch_size_rampup[0] > size:
            raise ValueError(f"batch_size_rampup begins with {self.batch_size_rampup[0]}, more than batch_size {size}")
        if grows and size < 2:
            raise ValueError("batch_size_growth needs a batch_size of 2 or more: noise is measured between its halves")
        if self.max_batch_size is not None and self.max_batch_size < 2 * size:
            raise ValueError(f"max_batch_size {self.max_batch_size} is less than twice batch_size {size}: no growth")
        return self

    @model_validator(mode="after")
    def _phases_are_valid(self) -> "PretrainConfig":
        for number, phase in enumerate(self.phases):
            for key in phase:
                if key in _OF_THE_WHOLE_RUN or key not in PretrainConfig.model_fields:
                    allowed = sorted(PretrainConfig.model_fields.keys() - set(_OF_THE_WHOLE_RUN))
                    near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
                    if key in _OF_THE_WHOLE_RUN:
                        hint = "it is of the whole run: say it in [pretrain]"
                    else:
                        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(allowed)}"
                    raise ValueError(f"phases[{number}]: {key!r} is no key of a phase; {hint}")
            self._of_phase(number)
        return self

    def mask_share_at(self, progress: float) -> float:
        """Share of tokens to guess once `progress`, 0 to 1, of the phase is behind us."""
        if isinstance(self.mask_share, float):
            return self.mask_share
        first, last = self.mask_share
        return first + (last - first) * min(max(progress, 0.0), 1.0)

    def each_phase(self) -> tuple["PretrainConfig", ...]:
        """The settings of each phase, in order; of a run without phases, its own."""
        return tuple(map(self._of_phase, range(len(self.phases)))) or (self,)

    def _of_phase(self, number: int) -> "PretrainConfig":
        """What a phase says goes before what `[pretrain]` says, and its end replaces any that is said there."""
        phase = self.phases[number]
        general = self.model_dump(exclude={"phases", "name"}, exclude_unset=True)
        if phase.keys() & _ENDS:
            general = {key: value for key, value in general.items() if key not in _ENDS}
        try:
            return PretrainConfig.model_validate({**general, **phase})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise ValueError(f"phases[{number}]: {key + ': ' if key else ''}{message}") from error
