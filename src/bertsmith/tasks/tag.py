"""Token classification: one label a word, read at the word's first piece (Devlin et al. 2018, section 5.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from torch import Tensor, nn

from bertsmith.model.heads import BertForTokenClassification
from bertsmith.tasks.base import Bools, Columns, Labels, Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.calibration import Decisions
from bertsmith.tasks.features import Features, Floats, Ragged
from bertsmith.tasks.losses import ONE_OF_CLASSES
from bertsmith.tasks.metrics import TAG_SCORES, score_tags, tag_statistics
from bertsmith.tasks.recorded import line_in, numbers_in, texts_in
from bertsmith.tasks.resampling import Statistic
from bertsmith.tasks.rows import TaggedRow
from bertsmith.tasks.tables import check_labels, class_names
from bertsmith.tasks.tag_tables import read_tagged_rows
from bertsmith.tasks.words import split_words
from bertsmith.tokenizer.encode import Tokenizer

OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Tagging:
    """A tag for each word, and how probable the model holds it; 0 for words past the longest length it reads."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    confidence: tuple[float, ...]


class Tag(Task[TaggedRow, Tagging]):
    """Words -> a label each. Loss: cross-entropy at first pieces; other pieces have no label (-100 elsewhere)."""

    name = "tag"
    default_metric = "f1"
    metrics = tuple(TAG_SCORES)
    head = BertForTokenClassification
    outputs = ONE_OF_CLASSES
    gives_probabilities = True
    expected = "a string or a list of words"

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[TaggedRow]:
        """CoNLL, or a table with lists or spans; the columns' usual names are a tagger's, `words` and `labels`, and of
        spans `text` and `entities`.
        """
        columns.without_pairs("a tagger labels each word")
        usual = Columns()
        return read_tagged_rows(
            source,
            words_column="words" if columns.text == usual.text else columns.text,
            labels_column="labels" if columns.label == usual.label else columns.label,
            text_column=columns.text,
            entities_column="entities" if columns.label == usual.label else columns.label,
            label_names=columns.label_names,
            require_labels=require_labels,
        )

    def row(self, given: object, line: int) -> TaggedRow | None:
        """A string is split at spaces and punctuation."""
        words = split_words(given) if isinstance(given, str) else given
        if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
            return None
        return TaggedRow(tuple(words), None, line)

    def encode(
        self, rows: Sequence[TaggedRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        """First pieces are the items; words whose first piece lies past `max_length` have none and are counted."""
        room = max_length - 2
        index = {label: number for number, label in enumerate(labels or ())}
        tokens, items, lost = [], [], 0
        targets: list[int] = []
        cut_tokens: list[int] = []
        for row, pieces in zip(rows, tokenizer.encode_words([row.words for row in rows]), strict=True):
            kept = [position + 1 for position in pieces.first if position < room]
            tokens.append([tokenizer.cls_id, *pieces.ids[:room], tokenizer.sep_id])
            items.append(kept)
            cut_tokens.append(max(0, len(pieces.ids) - room))
            lost += len(pieces.first) - len(kept)
            if labels is not None:
                targets.extend(index[label] for label in (row.labels or ())[: len(kept)])
        return Features(
            tokens=Ragged.of(tokens),
            items=Ragged.of(items),
            targets=None if labels is None else np.array(targets, dtype=np.int64),
            cut_tokens=np.array(cut_tokens, dtype=np.int64),
            lost_items=lost,
        )

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        logits: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits.flatten(0, 1)[batch.items]  # (batch, seq, labels) -> (items, labels)

    def decode(
        self, rows: Sequence[TaggedRow], features: Features, outputs: Floats, labels: Sequence[str]
    ) -> list[Tagging]:
        """Words that were cut off get "O" (or the first label, where there is no "O") with confidence 0."""
        probabilities = softmax(outputs.astype(np.float64), axis=-1)
        best = probabilities.argmax(axis=-1).tolist()
        confidence = np.round(probabilities.max(axis=-1), 6).tolist()
        absent = OUTSIDE if OUTSIDE in labels else labels[0]
        answers = []
        for number, row in enumerate(rows):
            start, end = features.items.starts[number : number + 2].tolist()
            lost = len(row.words) - (end - start)
            tags = [labels[choice] for choice in best[start:end]] + [absent] * lost
            answers.append(Tagging(row.words, tuple(tags), (*confidence[start:end], *[0.0] * lost)))
        return answers

    def score(self, rows: Sequence[TaggedRow], answers: Sequence[Tagging], labels: Sequence[str]) -> dict[str, float]:
        return score_tags(_gold(rows), [answer.tags for answer in answers], labels)

    def statistics(
        self, rows: Sequence[TaggedRow], answers: Sequence[Tagging], labels: Sequence[str]
    ) -> dict[str, Statistic]:
        return tag_statistics(_gold(rows), [answer.tags for answer in answers], labels)

    def right(self, rows: Sequence[TaggedRow], answers: Sequence[Tagging]) -> Bools:
        return np.array([row.labels == answer.tags for row, answer in zip(rows, answers, strict=True)], dtype=np.bool_)

    def decisions(self, rows: Sequence[TaggedRow], answers: Sequence[Tagging]) -> Decisions:
        """Each word that the model read."""
        found = [
            (sure, label == guess)
            for row, answer in zip(rows, answers, strict=True)
            for sure, label, guess in zip(answer.confidence, row.labels or (), answer.tags, strict=True)
            if sure
        ]
        sure, right = [share for share, _ in found], [is_right for _, is_right in found]
        return Decisions(np.array(sure, dtype=np.float64), np.array(right, dtype=np.bool_))

    def labels_in(self, rows: Sequence[TaggedRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        return class_names(rows, where=where, declared=declared)

    def check(self, rows: Sequence[TaggedRow], labels: Sequence[str], *, where: str | Path | None) -> None:
        check_labels(rows, labels, where=where)

    def record(self, number: int, row: TaggedRow, answer: Tagging) -> dict[str, Any]:
        return {
            "row": number,
            "line": row.line,
            "words": row.words,
            "labels": row.labels,
            "predictions": answer.tags,
            "confidence": answer.confidence,
        }

    def of_record(self, record: Mapping[str, Any]) -> tuple[TaggedRow, Tagging]:
        words, tags = texts_in(record, "words"), texts_in(record, "predictions")
        sure = (0.0,) * len(words) if record.get("confidence") is None else numbers_in(record, "confidence")
        row = TaggedRow(words, texts_in(record, "labels"), line_in(record))
        if not len(words) == len(tags) == len(sure) == len(row.labels or ()):
            raise ValueError(f"{len(words)} words, {len(row.labels or ())} labels, {len(tags)} predictions")
        return row, Tagging(words, tags, sure)

    def answer_of(self, row: TaggedRow, prediction: Sequence[str]) -> Tagging:
        return Tagging(row.words, tuple(prediction), (1.0,) * len(row.words))

    def told(self, row: TaggedRow, answer: Tagging) -> tuple[str, str]:
        return " ".join(row.labels or ()), " ".join(answer.tags)

    def predictions_of(self, answer: Tagging) -> Labels:
        return answer.tags

    def text_of(self, row: TaggedRow) -> str:
        return " ".join(row.words)


def _gold(rows: Sequence[TaggedRow]) -> list[Labels]:
    return [row.labels for row in rows if row.labels is not None]
