"""The section on fine-tuning: a labelled table to a model with scores."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bertsmith.config.augment import AugmentConfig
from bertsmith.config.continual import LearnOnConfig
from bertsmith.config.distill import DistillConfig
from bertsmith.config.section import Column, Positive, Section, Share
from bertsmith.config.table import Rows, TableConfig
from bertsmith.config.task_keys import refuse_idle
from bertsmith.config.training import LoopConfig, MaskBy, MaskShare


class CodeWords(Section):
    """Labelled sentences made from python-docs: which words stand between double backticks?"""

    train: Positive = 1000
    validation: Positive = 500
    test: Positive = 1000


Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class FinetuneConfig(LoopConfig, TableConfig):
    """A labelled table to a model with scores."""

    task: Literal[
        "classify",
        "multilabel",
        "regress",
        "choose",
        "tag",
        "answer",
        "embed",
        "next-sentence",
        "masked-word",
        "language-model",
    ] = "classify"
    model: str | None = None
    """Checkpoint directory, run or hub name; default: the model this recipe pre-trains."""
    code_words: CodeWords | None = None
    """Make the labelled data from the recipe's own corpus instead of reading files."""
    test: dict[str, Rows] = {}
    """Name -> labelled rows, named as those of `train`, on which the best checkpoint is scored at the end."""
    test_share: Share = 0.0
    """Without test files: the share of all rows split off first, as split "test", stratified by label. 0: none."""
    stride: Annotated[int, Field(ge=0)] = 128
    """answer, and with `windows`: tokens that neighbouring windows of a long text share."""
    windows: Literal["mean", "max"] | None = None
    """classify, multilabel, regress: read a text that is too long in windows of `max_length` tokens, and pool what the
    head says of them: their mean, or the largest of each output. Default: such a text is cut."""
    max_windows: Positive | None = None
    """With `windows`: read no more of a text than so many of them, so that memory is bounded. Default: all."""
    no_answer: bool = False
    """answer: a text may hold no answer to a question (as in SQuAD 2)."""
    pooling: Literal["mean", "cls", "max", "first-last"] | None = None
    """Of a text's tokens to one vector: their mean, that of [CLS], the largest of each component, or the mean over the
    first and the last layer. embed: usually mean; no first-last. classify, multilabel, regress: as the model has, which
    is usually cls, through BERT's pooler."""
    loss: Literal["in-batch", "cosine", "margin"] = "in-batch"
    """embed: a text's partner is nearer than those of all rows of the batch; the cosine is the row's number; or the
    partner is nearer than the text in negative_column, by a margin."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """embed, in-batch: cosines are divided by it."""
    margin: Annotated[float, Field(gt=0, le=2)] = 0.5
    """embed, margin: of cosines."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """embed, cosine: the numbers of texts with nothing in common, and of equal ones."""
    mask_share: MaskShare = 0.15
    """masked-word: share of a text's tokens to guess in training; validation and test always hide 15 %."""
    mask_by: MaskBy = "token"
    """masked-word: what is hidden together: single tokens, whole words (Chinese ones too), or runs of words."""
    epochs: Positive = 3
    dropout: Rate | None = None
    """Of hidden states and attention, in fine-tuning and in the config of what it saves; default: as the model has."""
    hidden_dropout: Rate | None = None
    """Of hidden states alone; goes before `dropout`."""
    attention_dropout: Rate | None = None
    """Of attention alone; goes before `dropout`."""
    classifier_dropout: Rate | None = None
    """Before the head's layers; default: as the model has, which is mostly that of hidden states."""
    head_layers: Annotated[int, Field(ge=0, le=8)] | None = None
    """classify, multilabel, regress: hidden layers between that vector and the outputs; default: as the model has,
    which is usually none."""
    head_activation: Literal["gelu", "tanh", "relu"] | None = None
    """What follows each of them; default: as the model has; usually gelu."""
    lazy_embeddings: Literal["auto", "on", "off"] = "auto"
    """AdamW: rows of the word table that a batch does not read wait, and are put to where they would be when they are
    next read; the same weights to 1e-6. auto: where a batch reads few of the rows, on a CPU in one process."""
    stop_after: Positive | None = None
    """Evaluations without a better score after which training ends; default: never."""
    refit: bool = False
    """Once the best checkpoint is found, train once more on training and validation rows, for as many epochs as led to
    it. That model is the result; no validation score exists for it, only those of test files."""
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of what stands on the encoder; default: the learning rate."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Tasks with classes: share of each label that is spread over all of them."""
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    """Tasks with classes: how much less what is answered rightly counts already (focal loss); usual: 2."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Tasks with classes: by which each label's loss is multiplied. balanced: rows / (labels x rows with it)."""
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
    augment: AugmentConfig | None = None
    """Changed copies of the training rows."""
    learn_on: LearnOnConfig | None = None
    """Go on from a fine-tuned model without forgetting what it knew."""
    distill: DistillConfig | None = None
    """Learn from a larger model of the same task, beside the labels."""
    metric: str | None = None
    """Score by which the best checkpoint is chosen; default: the task's own (classify: macro_f1, tag: f1)."""
    evaluate_every: Literal["epoch"] | Positive = "epoch"
    """`"epoch"` or a number of steps."""
    baselines: tuple[Literal["majority", "mean", "dictionary", "linear", "overlap", "random-weights"], ...] = ()
    """Simple models scored on the same rows: most frequent label; mean (regress); dictionary of training words (tag);
    a linear model (texts and pairs: TF-IDF; tag: word, neighbours and shape); overlap of words (choose, embed);
    the same BERT from random weights."""
    slice_columns: tuple[Column, ...] = ()
    """Columns of the test tables, such as a topic, for each of whose values the model is scored too."""
    calibrate: bool = False
    """Give probabilities that are right as often as they say: the model divides its outputs by a temperature, fitted on
    the validation rows; no answer changes. It is fitted and its worth told in any case, but only kept if true."""
    literature: dict[str, str] = {}
    """Scores from elsewhere, quoted in the report: name -> text."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    eps: Annotated[float, Field(gt=0)] = 1e-8
    keep_best_checkpoint: bool = False
    """Save and keep a checkpoint at each best evaluation too; the best weights are in `model/` as it is."""
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 300.0

    @model_validator(mode="after")
    def _holds_nothing_idle(self) -> "FinetuneConfig":
        settings = {key: getattr(self, key) for key in type(self).model_fields}
        refuse_idle([key for key, field in type(self).model_fields.items() if settings[key] != field.default], settings)
        if self.stride != type(self).model_fields["stride"].default and self.task != "answer" and self.windows is None:
            raise ValueError("stride is of use only with windows, or for task = 'answer'; leave it out")
        if self.head_activation is not None and self.head_layers == 0:
            raise ValueError("head_activation follows hidden layers, and head_layers = 0; leave one of them out")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> "FinetuneConfig":
        if self.windows is not None and self.pair_column is not None:
            raise ValueError("windows are for single texts; leave windows or pair_column out")
        if self.calibrate and self.refit:
            raise ValueError("takes refit or calibrate: after refit no rows are left to fit a temperature on")
        if self.test and self.test_share:
            raise ValueError("has test files and test_share, by which one would be split off; leave one of them out")
        if self.learn_on is not None and self.refit:
            raise ValueError("refit goes with no [finetune.learn_on]; leave one of them out")
        if self.learn_on is not None and "random-weights" in self.baselines:
            raise ValueError("baselines has 'random-weights', which knows nothing that [finetune.learn_on] could keep")
        return self

    @model_validator(mode="after")
    def _embeds(self) -> "FinetuneConfig":
        if self.score_range[0] >= self.score_range[1]:
            raise ValueError(f"score_range = {list(self.score_range)}: the first is to be less than the second")
        if self.task == "embed" and self.pooling == "first-last":
            raise ValueError("task = 'embed' takes pooling = 'mean', 'cls' or 'max'")
        if self.task == "embed" and self.loss == "in-batch" and self.compile == "on":
            raise ValueError("compile = 'on' is not for loss = 'in-batch', whose rows are each other's negatives")
        return self

    @property
    def task_options(self) -> dict[str, Any]:
        """What the task needs besides columns."""
        keys = {
            "answer": ("stride", "no_answer"),
            "embed": ("loss", "temperature", "margin", "score_range"),
            "masked-word": ("mask_share", "mask_by"),
        }
        windows = ("windows", "stride", "max_windows") if self.windows is not None else ()
        found = {key: getattr(self, key) for key in keys.get(self.task, windows)}
        return found | {"pooling": self.pooling or "mean"} if self.task == "embed" else found
