"""Sections on training: the network, the loop, pre-training, fine-tuning."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from bertsmith.config.optimizer import OptimizerConfig
from bertsmith.config.section import Column, Positive, Section, Share


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
_ENDS = {"max_steps", "budget_minutes"}
_OF_THE_WHOLE_RUN = (
    *("phases", "labelled", "init", "seed"),
    *("keep_checkpoints", "keep_best_checkpoint", "checkpoint_every_seconds", "log_every_steps"),
)


class TableConfig(Section):
    """Labelled rows in files."""

    train: str = ""
    """File of labelled rows: .tsv, .csv, .jsonl or CoNLL; looked up in the current folder, then in each data folder."""
    validation: str | None = None
    """File of labelled rows by which the best checkpoint is chosen."""
    validation_share: Share = 0.1
    """Without a validation file: the share of training rows split off for it, stratified by label."""
    header: bool = True
    """False: the first line of a .tsv or .csv is a row, and columns are numbers from 0."""
    text_column: Column = "text"
    label_column: Column = "label"
    pair_column: Column | None = None
    """The second text of each row, where rows are pairs of texts; both are read together. Name, or number from 0."""
    label_columns: tuple[Column, ...] = ()
    """multilabel: a column for each label, 1 where the row has it and 0 where not, in place of `label_column`."""
    label_separator: Annotated[str, Field(min_length=1)] = ","
    """multilabel: what stands between a row's labels in `label_column`, where they are not a list."""
    question_column: Column = "question"
    """choose, answer: the question on the text."""
    choice_columns: tuple[Column, ...] = ("choices",)
    """choose: one column with lists of choices, or a column for each choice."""
    labels: tuple[str, ...] = ()
    """Label names in order; default: those seen in the training rows, sorted."""
    label_names: str | None = None
    """A file with a name a line: label `i` of the table is line i (from 0) of it."""
    max_length: Annotated[int, Field(ge=8, le=512)] = 128
    """Tokens read of a row, [CLS] and [SEP] included; the rest is cut off and counted."""
    max_train_rows: Positive | None = None
    """Train on so many rows, drawn at random; for trials."""


class LabelledConfig(TableConfig):
    """Labelled texts for the objective `label`."""

    train: str
    """File of labelled rows: .tsv, .csv or .jsonl; looked up in the current folder, then in each data folder."""
    validation: str | None = None
    """File of labelled rows by which it is measured."""
    batch_size: Positive = 16
    """Labelled rows in an update, beside its other examples."""


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
    mask_by: Literal["token", "word", "span"] = "token"
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
    """Wall-clock budget, turned into a step count after 50 measured steps. One of this and max_steps is needed."""
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


class CodeWords(Section):
    """Labelled sentences made from python-docs: which words stand between double backticks?"""

    train: Positive = 1000
    validation: Positive = 500
    test: Positive = 1000


_TASKS_WITH_LABELS = ("classify", "multilabel", "tag")


class FinetuneConfig(LoopConfig, TableConfig):
    """A labelled table to a model with scores."""

    task: Literal["classify", "multilabel", "regress", "choose", "tag", "answer"] = "classify"
    model: str | None = None
    """Checkpoint directory, run or hub name; default: the model this recipe pre-trains."""
    code_words: CodeWords | None = None
    """Make the labelled data from the recipe's own corpus instead of reading files."""
    test: dict[str, str] = {}
    """Name -> file of labelled rows on which the best checkpoint is scored at the end."""
    stride: Annotated[int, Field(ge=0)] = 128
    """answer: tokens that neighbouring windows of a long text share."""
    no_answer: bool = False
    """answer: a text may hold no answer to a question (as in SQuAD 2)."""
    epochs: Positive = 3
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Of hidden states and attention, in fine-tuning and in the config of what it saves; default: as the model has."""
    lazy_embeddings: Literal["auto", "on", "off"] = "auto"
    """AdamW: rows of the word table that a batch does not read wait, and are put to where they would be when they are
    next read; the same weights to 1e-6. auto: where a batch reads few of the rows, on a CPU in one process."""
    stop_after: Positive | None = None
    """Evaluations without a better score after which training ends; default: never."""
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of what stands on the encoder; default: the learning rate."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """classify, tag, multilabel: share of each label that is spread over all of them."""
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    """classify, tag, multilabel: how much less what is answered rightly counts already (focal loss); usual: 2."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """classify, tag, multilabel: by which each label's loss is multiplied. balanced: rows / (labels x rows with it)."""
    r_drop: Annotated[float, Field(ge=0)] = 0.0
    """Weight of R-Drop: each row is read twice, and the two dropouts are to give one answer; usual: 1 to 5."""
    adversarial: Literal["fgm", "pgd"] | None = None
    """Read each row once more with the word embeddings moved to where the loss is larger, and learn that too. fgm: in
    one step; pgd: in several."""
    adversarial_epsilon: Annotated[float, Field(gt=0)] = 1.0
    """How far a row's embeddings are moved in all, as the norm of the change."""
    adversarial_steps: Positive = 3
    """pgd: steps."""
    adversarial_step_size: Annotated[float, Field(gt=0)] = 0.3
    """pgd: how far each step goes."""
    l2_start: Annotated[float, Field(ge=0)] = 0.0
    """Weight of half the squared distance of the encoder's weights from those it started with, and of the head's from
    0 (L2-SP); usual: 0.001 to 0.1."""
    metric: str | None = None
    """Score by which the best checkpoint is chosen; default: the task's own (classify: macro_f1, tag: f1)."""
    evaluate_every: Literal["epoch"] | Positive = "epoch"
    """`"epoch"` or a number of steps."""
    baselines: tuple[Literal["majority", "mean", "dictionary", "linear", "overlap", "random-weights"], ...] = ()
    """Simple models scored on the same rows: most frequent label; mean (regress); dictionary of training words (tag);
    a linear model (classify, multilabel, regress: TF-IDF; tag: word, neighbours and shape); overlap of words (choose);
    the same BERT from random weights."""
    literature: dict[str, str] = {}
    """Scores from elsewhere, quoted in the report: name -> text."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    eps: Annotated[float, Field(gt=0)] = 1e-8
    keep_best_checkpoint: bool = False
    """Save and keep a checkpoint at each best evaluation too; the best weights are in `model/` as it is."""
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 300.0

    @model_validator(mode="after")
    def _fits_the_task(self) -> "FinetuneConfig":
        for key in ("label_smoothing", "focal_gamma", "class_weights"):
            if getattr(self, key) and self.task not in _TASKS_WITH_LABELS:
                raise ValueError(f"task = {self.task!r} takes no {key}; that is of {', '.join(_TASKS_WITH_LABELS)}")
        return self

    @property
    def task_options(self) -> dict[str, Any]:
        """What the task needs besides columns."""
        return {"stride": self.stride, "no_answer": self.no_answer} if self.task == "answer" else {}
