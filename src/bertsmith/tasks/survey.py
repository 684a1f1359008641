"""Looking at labelled rows before anything is trained: how many, of which labels, how long, how often the same."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsmith.runtime import derive_seed
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import shuffled
from bertsmith.tasks.features import Ints
from bertsmith.tasks.lengths import LONGEST, Lengths, lengths_of
from bertsmith.tokenizer.encode import Tokenizer

_PIECES_PER_WORD = 1.3
"""Of English through a vocabulary of 30,000; where no tokenizer is given."""
_CHINESE_OR_WORD = re.compile(r"([\u4e00-\u9fff])|[^\W\u4e00-\u9fff]+|[^\w\s]")


@dataclass(frozen=True)
class LabelFacts:
    """One label of a table."""

    name: str
    count: int
    share: float
    """Of all labels of the table."""
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What `survey` found."""

    rows: int
    labels: tuple[LabelFacts, ...]
    """Most frequent first; none where rows have no classes."""
    lengths: Lengths
    """Tokens of a row, [CLS] and [SEP] included."""
    are_counted: bool
    """False: token counts are estimated, since no tokenizer was given."""
    repeated: int
    """Rows whose text stands in an earlier row too."""
    contradicting: int
    """Texts that stand there with different labels."""
    samples: tuple[str, ...]
    """Rows drawn at random, as a person reads them."""

    @property
    def is_lopsided(self) -> bool:
        """Whether a label is five times as frequent as another."""
        return bool(self.labels) and self.labels[0].count >= 5 * max(1, self.labels[-1].count)


def survey(
    task: Task[Any, Any],
    rows: Sequence[Any],
    *,
    tokenizer: Tokenizer | None = None,
    positions: int = LONGEST,
    samples: int = 5,
    seed: int = 42,
) -> Survey:
    """Look at all rows. With a tokenizer their tokens are counted, else estimated from words and characters.

    positions: those of the model, more than which is not advised.
    """
    order = shuffled(len(rows), derive_seed("survey", seed)).tolist()
    of_label: dict[str, list[int]] = defaultdict(list)
    for number in order:
        for label in dict.fromkeys(task.labels_of(rows[number])):
            of_label[label].append(number)
    counts = Counter(label for row in rows for label in task.labels_of(row))
    labels = tuple(
        LabelFacts(
            name, count, count / counts.total(), tuple(_short(task.text_of(rows[n])) for n in of_label[name][:2])
        )
        for name, count in counts.most_common()
    )
    said: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        said[row.content].add(repr(tuple(task.labels_of(row)) or getattr(row, "label", None)))
    return Survey(
        rows=len(rows),
        labels=labels,
        lengths=lengths_of(_lengths(task, rows, tokenizer), positions=positions),
        are_counted=tokenizer is not None,
        repeated=len(rows) - len(said),
        contradicting=sum(len(found) > 1 for found in said.values()),
        samples=tuple(_short(_in_words(task, rows[number])) for number in order[:samples]),
    )


def _lengths(task: Task[Any, Any], rows: Sequence[Any], tokenizer: Tokenizer | None) -> Ints:
    """(rows,) tokens of each row, all its texts together; of choices, those of the longest."""
    parts = [row.content.split("\x1f") for row in rows]
    if task.name == "choose":  # text, question and the longest choice are read together
        parts = [[*texts[:2], max(texts[2:], key=len)] for texts in parts]
    if task.name == "tag":
        parts = [[" ".join(words)] for words in parts]
    flat = [text for texts in parts for text in texts]
    if tokenizer is not None:
        counts = [len(ids) for ids in tokenizer.encode_ids(flat)]
    else:
        counts = [_estimate(text) for text in flat]
    owner = np.repeat(np.arange(len(rows)), [len(texts) for texts in parts])
    specials = np.array([1 + min(2, len(texts)) for texts in parts])
    found: Ints = np.bincount(owner, weights=counts, minlength=len(rows)).astype(np.int64) + specials
    return found


def _estimate(text: str) -> int:
    found = Counter(bool(match.group(1)) for match in _CHINESE_OR_WORD.finditer(text))
    return round(found[True] + _PIECES_PER_WORD * found[False])


def _in_words(task: Task[Any, Any], row: Any) -> str:
    labels = ", ".join(dict.fromkeys(task.labels_of(row)))
    label = labels or getattr(row, "label", None)
    return task.text_of(row) if label in (None, "") else f"{label}: {task.text_of(row)}"


def _short(text: str, most: int = 100) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
