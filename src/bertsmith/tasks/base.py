"""What every task is, and where a table keeps what a task reads."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy, nn

from bertsmith.errors import UsageError
from bertsmith.model.pretrained import Pretrained
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.calibration import Decisions
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.losses import Outputs, Shape
from bertsmith.tasks.resampling import Statistic, interval
from bertsmith.tasks.rows import labels_of
from bertsmith.tokenizer.encode import Tokenizer

RowT = TypeVar("RowT")
AnswerT = TypeVar("AnswerT")
Labels = tuple[str, ...]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """Where a table keeps what a task reads; names, or numbers from 0."""

    text: str | int = "text"
    label: str | int = "label"
    labels: tuple[str | int, ...] = ()
    """Where a row has several labels: a column for each, 1 where the row has it and 0 where not."""
    pair: str | int | None = None
    """The second text of each row, where rows are pairs."""
    negative: str | int | None = None
    """A text that does not belong with the first, where rows have one."""
    question: str | int = "question"
    choices: tuple[str | int, ...] = ("choices",)
    """One column with lists of choices, or a column for each choice."""
    header: bool = True
    """False: the first line of a .tsv or .csv is a row."""
    label_names: str | Path | None = None
    """A file with a name a line: label `i` of the table is its line i (from 0)."""
    label_separator: str = ","
    """What stands between the labels of a row that has several, where they are not a list."""

    def without_pairs(self, why: str) -> None:
        """Raise `UsageError` where a second text was asked for."""
        if self.pair is not None:
            raise UsageError(f"pair_column is for texts that get one label together; {why}")

    def to_card(self) -> dict[str, Any]:
        """As bertsmith.json has it."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}

    @classmethod
    def of_card(cls, found: Mapping[str, Any]) -> Self:
        """As a model's bertsmith.json says; what it does not say is as usual."""
        given = dict(found)
        known = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        lists: dict[str, Any] = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known | lists)


class Task(ABC, Generic[RowT, AnswerT]):
    """One kind of problem: row -> features -> head -> loss -> answer -> scores.

    Fine-tuning, evaluation and prediction know nothing else about a task.
    """

    name: ClassVar[str]
    head: type[Pretrained]
    """The class that answers: an encoder with this task's head."""
    reads_whole_texts: ClassVar[bool] = False
    """Whether the head makes one vector of a text, so that its pooling and depth can be chosen."""
    own_head: str | None = None
    """Name of the class of a user's own head."""
    outputs: ClassVar[Outputs]
    """What the head's outputs mean, and so what they cost."""
    problem_type: ClassVar[str | None] = None
    """What the config of such a model says it solves; None: it says nothing, or a usual classification."""
    metrics: ClassVar[tuple[str, ...]]
    default_metric: ClassVar[str]
    """Score that chooses the best checkpoint; larger is better."""
    smaller_is_better: ClassVar[frozenset[str]] = frozenset()
    """Those of the metrics that are better when smaller."""
    outputs_are_classes: ClassVar[bool] = True
    """Whether the head has an output for each class of the rows, and so must be a fresh one for other classes."""
    own_labels: ClassVar[Labels] = ()
    """Names of the head's outputs where they are the same for all rows, whatever config.json calls them."""
    gives_probabilities: ClassVar[bool] = False
    """Whether answers say how sure they are (`decisions`)."""
    takes_pairs: ClassVar[bool] = False
    """Whether `row` takes two texts."""
    expected: ClassVar[str]
    """What `row` takes, in words."""

    @property
    def options(self) -> dict[str, Any]:
        """What else it needs to read and answer as it was trained to."""
        return {}

    def with_options(self, **options: Any) -> Self:  # noqa: ARG002
        """The same task with these options of its own."""
        return self

    def other_files(self, *, width: int, max_length: int) -> Mapping[str, Any]:  # noqa: ARG002
        """More JSON files that others look for in a directory of such a model: path in it -> content."""
        return {}

    def with_head(self, head: type[nn.Module]) -> Self:
        """The same task with a head of one's own (`BertForSequenceClassification.own_head`)."""
        raise UsageError(f"task = {self.name!r} takes no head ({head.__name__}); classify, multilabel and regress do")

    # Rows

    @abstractmethod
    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[RowT]:
        """Rows of a file, DataFrame, Arrow table or list; `DataError` with file and line where it is not right."""

    @abstractmethod
    def row(self, given: object, line: int) -> RowT | None:
        """What a caller gives to be answered, such as a string, as a row without a label; None where it cannot be."""

    @abstractmethod
    def labels_in(self, rows: Sequence[RowT], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        """Names of the head's outputs, from training rows or as declared; `DataError` where nothing can be learned."""

    def check(self, rows: Sequence[RowT], labels: Sequence[str], *, where: str | Path | None) -> None:
        """Raise `DataError` at the first row with a label that is not among `labels`."""

    def labels_of(self, row: RowT) -> Sequence[str]:
        """The classes a row came with: one for a text, one a word for a sentence, none where it has none."""
        return labels_of(row)

    @abstractmethod
    def text_of(self, row: RowT) -> str:
        """The row as a person reads it."""

    def metrics_of(self, rows: Sequence[RowT], labels: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Those of the metrics that these rows have what it takes for."""
        return self.metrics

    def metric_of(self, rows: Sequence[RowT], labels: Sequence[str]) -> str:
        """The score that chooses where nobody names one: the task's own, if the rows have what it takes."""
        has = self.metrics_of(rows, labels)
        return self.default_metric if self.default_metric in has else has[0]

    # Learning

    @abstractmethod
    def encode(
        self, rows: Sequence[RowT], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        """Rows to features of at most `max_length` tokens; with `labels`, label names become their index."""

    @abstractmethod
    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """What the head says at each item: (items, labels)."""

    def redraw(self, batch: TaskBatch, features: Features, *, seed: int, epoch: int) -> TaskBatch:  # noqa: ARG002
        """A training batch as it is in this epoch, a pure function of (seed, epoch, examples); always the same, unless
        a task draws something anew.
        """
        return batch

    def loss_sum(self, model: nn.Module, batch: TaskBatch, shape: Shape | None = None) -> Tensor:
        """Summed over the targets of a training batch."""
        assert batch.targets is not None, "training rows have labels"
        return self.outputs.losses(self.item_outputs(model, batch), batch.targets, batch.item_groups, shape).sum()

    # Answers

    def item_results(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """What is kept of each item's outputs until all rows are read, (items, ...): all, where they are few."""
        return self.item_outputs(model, batch)

    def losses_of(self, results: Floats, features: Features) -> npt.NDArray[np.float64]:
        """(targets,) from the results of all items."""
        assert features.targets is not None, "rows without labels have no loss"
        groups = from_numpy(features.item_groups) if features.alternatives else None
        losses = self.outputs.losses(from_numpy(results), from_numpy(features.targets), groups)
        return losses.numpy().astype(np.float64)

    @abstractmethod
    def decode(self, rows: Sequence[RowT], features: Features, outputs: Floats, labels: Sequence[str]) -> list[AnswerT]:
        """One answer a row; `outputs` are the results of all items, in the order of the features' items."""

    @abstractmethod
    def answer_of(self, row: RowT, prediction: Any) -> AnswerT:
        """The answer of a simple model, which gives a label, a label for each word, or a number."""

    @abstractmethod
    def score(self, rows: Sequence[RowT], answers: Sequence[AnswerT], labels: Sequence[str]) -> dict[str, float]:
        """Metric -> score of answers against the rows' own labels."""

    def statistics(
        self,
        rows: Sequence[RowT],  # noqa: ARG002
        answers: Sequence[AnswerT],  # noqa: ARG002
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, Statistic]:
        """Metric -> its score as a function of how often each row counts, for intervals and paired tests."""
        raise UsageError(f"task {self.name!r} has no scores that could be taken of some rows only")

    def scores_parts(self, rows: Sequence[RowT]) -> bool:  # noqa: ARG002
        """Whether scores mean the same for some of these rows as for all."""
        return type(self).statistics is not Task.statistics

    def interval(
        self, rows: Sequence[RowT], answers: Sequence[AnswerT], labels: Sequence[str], metric: str, *, seed: int
    ) -> tuple[float, float]:
        """95 % bootstrap interval of one score, resampling rows."""
        return interval(self.statistics(rows, answers, labels)[metric], seed=seed)

    def right(self, rows: Sequence[RowT], answers: Sequence[AnswerT]) -> Bools | None:  # noqa: ARG002
        """(rows,) Whether the whole row is answered rightly; None where answers are no more than near."""
        return None

    def decisions(self, rows: Sequence[RowT], answers: Sequence[AnswerT]) -> Decisions | None:  # noqa: ARG002
        """How sure the model was, and whether it was right; None where answers have no probabilities."""
        return None

    def predictions_of(self, answer: AnswerT) -> Sequence[str]:  # noqa: ARG002
        """The classes of an answer, as many as `labels_of` has; none where answers are no classes."""
        return ()

    @abstractmethod
    def record(self, number: int, row: RowT, answer: AnswerT) -> dict[str, Any]:
        """One line of predictions-SPLIT.jsonl (docs/understand.md); `number` is the row's, from 0."""

    def of_record(self, record: Mapping[str, Any]) -> tuple[RowT, AnswerT]:
        """Row and answer of such a line; raises `KeyError` or `ValueError` where it has no label or is none."""
        raise ValueError(f"task {self.name!r} writes nothing that could be read back: {sorted(record)}")

    @abstractmethod
    def told(self, row: RowT, answer: AnswerT) -> tuple[str, str]:
        """The row's label and the answer as a person reads them."""
