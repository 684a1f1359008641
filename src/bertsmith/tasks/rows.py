"""One labelled row of each kind of table. `line` is the file's line, or the row's number in a table, from 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

LabelT = TypeVar("LabelT")


class Row(Protocol):
    """What splits know of a row."""

    @property
    def line(self) -> int: ...

    @property
    def stratum(self) -> str | float:
        """Of which every split is to have its share."""

    @property
    def content(self) -> str:
        """The row without its label: equal in rows that say the same."""

    @property
    def group(self) -> str | None:
        """Rows of one group, such as questions on one text, are never split up; None: on its own."""


@dataclass(frozen=True, slots=True)
class TextRow(Generic[LabelT]):
    """A text and its label: a class's name, the names of several, or a number."""

    text: str
    label: LabelT | None
    line: int
    pair: str | None = None
    """The second text, where rows are pairs."""

    @property
    def stratum(self) -> str | float:
        if isinstance(self.label, float):
            return self.label
        return "\x1f".join(self.label) if isinstance(self.label, tuple) else str(self.label or "")

    @property
    def content(self) -> str:
        return self.text if self.pair is None else f"{self.text}\x1f{self.pair}"

    @property
    def group(self) -> None:
        return None


ClassRow = TextRow[str]
ClassesRow = TextRow[tuple[str, ...]]
RatedRow = TextRow[float]


@dataclass(frozen=True, slots=True)
class TaggedRow:
    """The words of a sentence and as many labels; `line` is that of the first word."""

    words: tuple[str, ...]
    labels: tuple[str, ...] | None
    line: int

    @property
    def stratum(self) -> str:
        """The first label that is not O, so that every split has sentences with entities."""
        labels = self.labels or ()
        return next((label for label in labels if label != "O"), labels[0] if labels else "")

    @property
    def content(self) -> str:
        return "\x1f".join(self.words)

    @property
    def group(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ChoiceRow:
    """A text, a question on it (or the beginning of a sentence), and choices, of which number `label` is right."""

    text: str
    question: str | None
    choices: tuple[str, ...]
    label: int | None
    line: int

    @property
    def stratum(self) -> str:
        return "" if self.label is None else str(self.label)

    @property
    def content(self) -> str:
        return "\x1f".join((self.text, self.question or "", *self.choices))

    @property
    def group(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question on a text, and the answers that people found in it."""

    question: str
    text: str
    answers: tuple[tuple[str, int], ...] | None
    """(answer, its first character in the text, or -1 where it does not stand there); none where the text has no
    answer; None where nobody said."""
    line: int
    key: str = ""
    """The question's own name, where it has one."""
    source: str | None = None
    """The article that the text is of, where the file says so."""

    @property
    def stratum(self) -> str:
        return "answered" if self.answers else ""

    @property
    def content(self) -> str:
        return f"{self.text}\x1f{self.question}"

    @property
    def group(self) -> str:
        return self.text if self.source is None else self.source


@dataclass(frozen=True, slots=True)
class EmbedRow:
    """A text; what it belongs with, and what it does not, where that is known; and how alike the first two are."""

    text: str
    line: int
    pair: str | None = None
    negative: str | None = None
    label: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for text in (self.text, self.pair, self.negative) if text is not None)

    @property
    def stratum(self) -> float:
        return 0.0 if self.label is None else self.label

    @property
    def content(self) -> str:
        return "\x1f".join(self.texts)

    @property
    def group(self) -> None:
        return None


def labels_of(row: Any) -> Sequence[str]:
    """The classes that a row came with: one a text or several, one a word; none where it has none."""
    if isinstance(row, TaggedRow):
        return row.labels or ()
    if row.label is None:
        return ()
    return row.label if isinstance(row.label, tuple) else (row.label,)
