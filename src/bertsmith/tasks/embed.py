"""Sentence embeddings: a vector for a text, near those of texts that belong with it (Reimers & Gurevych 2019,
arXiv:1908.10084).

    rows                          loss       what it learns
    text, partner                 in-batch   the partner is nearer than every other row's
    text, partner, stranger       in-batch   and nearer than the stranger
    text, partner, stranger       margin     the partner is nearer than the stranger by a margin
    text, partner, number         cosine     the cosine is the number
    plain sentences               in-batch   two dropouts of a text are nearer than other texts (SimCSE)
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from bertsmith.errors import CheckpointError, DataError, UsageError
from bertsmith.model.heads import SentenceEncoder
from bertsmith.model.pooling import Pooling, pooled
from bertsmith.tasks.base import Columns, Labels, Task
from bertsmith.tasks.batches import TaskBatch
from bertsmith.tasks.embed_metrics import NUMBERED, RANKED, Vectors, partner_ranks, rank_values, unit
from bertsmith.tasks.embed_tables import read_embed_rows
from bertsmith.tasks.features import Features, Floats, Ints, Ragged
from bertsmith.tasks.losses import Outputs
from bertsmith.tasks.number_metrics import number_statistics
from bertsmith.tasks.recorded import line_in, number_in, text_in
from bertsmith.tasks.resampling import Statistic, mean
from bertsmith.tasks.rows import EmbedRow
from bertsmith.tasks.texts import frame_texts
from bertsmith.tasks.vector_losses import Cosine, InBatch, Margin
from bertsmith.tokenizer.encode import Tokenizer

OUTPUT = "vector"
"""What is called a label in config.json, which needs one."""
_NO_VECTOR = np.zeros(0, dtype=np.float32)
EmbedLoss = Literal["in-batch", "cosine", "margin"]


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A text's vector, (hidden,); where the row has a partner, that one's too, and the cosine of the two."""

    vector: Vectors
    pair: Vectors | None = None
    similarity: float | None = None

    @classmethod
    def of(cls, vector: Vectors, pair: Vectors | None) -> "Embedding":
        return cls(vector, pair, None if pair is None else float(unit(vector).astype(np.float64) @ unit(pair)))


class Embed(Task[EmbedRow, Embedding]):
    """Text -> vector."""

    name = "embed"
    metrics = (*NUMBERED, *RANKED)
    default_metric = "spearman"
    head = SentenceEncoder
    outputs_are_classes = False
    takes_pairs = True
    expected = "a string, or (text, second text)"

    def __init__(
        self,
        loss: EmbedLoss = "in-batch",
        pooling: Pooling = "mean",
        temperature: float = 0.05,
        margin: float = 0.5,
        score_range: Sequence[float] = (0.0, 1.0),
    ):
        self.loss, self.pooling, self.temperature, self.margin = loss, pooling, temperature, margin
        self.score_range = tuple(score_range)
        kinds: dict[str, Outputs] = {"in-batch": InBatch(temperature), "cosine": Cosine(), "margin": Margin(margin)}
        self.outputs = kinds[loss]  # type: ignore[misc]  # of this task each may have its own

    @property
    def options(self) -> dict[str, Any]:
        names = ("loss", "pooling", "temperature", "margin", "score_range")
        return {name: getattr(self, name) for name in names}

    def with_options(self, **options: Any) -> "Embed":
        return Embed(**options)

    def other_files(self, *, width: int, max_length: int) -> dict[str, Any]:
        """Those by which sentence-transformers and servers of its models know the pooling."""
        modules = (("", "Transformer"), ("1_Pooling", "Pooling"))
        return {
            "modules.json": [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, (path, kind) in enumerate(modules)
            ],
            "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
            "1_Pooling/config.json": {
                "word_embedding_dimension": width,
                "pooling_mode_cls_token": self.pooling == "cls",
                "pooling_mode_mean_tokens": self.pooling == "mean",
                "pooling_mode_max_tokens": self.pooling == "max",
            },
        }

    # Rows

    def read(self, source: object, columns: Columns, *, require_labels: bool) -> list[EmbedRow]:
        if columns.label_names is not None:
            raise UsageError("label_names is for classes; texts that get a vector have none")
        return read_embed_rows(
            source,
            text_column=columns.text,
            pair_column=columns.pair,
            negative_column=columns.negative,
            label_column=columns.label,
            header=columns.header,
            require_texts=require_labels,
        )

    def row(self, given: object, line: int) -> EmbedRow | None:
        if isinstance(given, str):
            return EmbedRow(given, line)
        if isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, str) for part in given):
            return EmbedRow(given[0], line, given[1])
        return None

    def labels_in(self, rows: Sequence[EmbedRow], *, where: str | Path | None, declared: Sequence[str]) -> Labels:
        if declared:
            raise UsageError("labels is for classes; texts that get a vector have none")
        if len({row.content for row in rows}) < 2:
            raise DataError(f"{len(rows)} rows that say the same; nothing can be learned from them", path=where)
        self._check_training(rows[0], where)
        if self.loss == "cosine":
            self._check_scores(rows, where)
        return (OUTPUT,)

    def check(self, rows: Sequence[EmbedRow], labels: Sequence[str], *, where: str | Path | None) -> None:  # noqa: ARG002
        """Of rows that are to be scored."""
        for row in rows:
            if row.pair is None:
                raise DataError(
                    "a text without a partner cannot be scored; give a table of pairs, with pair_column (and a "
                    "number for each, for spearman)",
                    path=where,
                    line=row.line,
                )
        if self.loss == "cosine":
            self._check_scores(rows, where)

    def labels_of(self, row: EmbedRow) -> Labels:  # noqa: ARG002
        return ()

    def text_of(self, row: EmbedRow) -> str:
        return " | ".join(row.texts)

    # Learning

    def encode(
        self, rows: Sequence[EmbedRow], tokenizer: Tokenizer, *, labels: Sequence[str] | None, max_length: int
    ) -> Features:
        """A sequence a text, of those that the loss reads; for answers, of the first two."""
        texts = [row.texts[:2] for row in rows] if labels is None else list(self._learned(rows))
        counts = np.array([len(some) for some in texts], dtype=np.int64)
        flat = [text for some in texts for text in some]
        framed = [frame_texts(ids, None, tokenizer, max_length) for ids in tokenizer.encode_ids(flat)]
        return Features(
            tokens=Ragged.of([ids for ids, _, _ in framed]),
            items=Ragged.of([[0]] * len(framed)),
            targets=None if labels is None else self._targets(rows, flat),
            cut_tokens=np.array([cut for _, _, cut in framed], dtype=np.int64),
            alternatives=True,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def item_outputs(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        return pooled(model(batch.input_ids, batch.attention_mask), batch.attention_mask, self.pooling)

    # Answers

    def decode(
        self,
        rows: Sequence[EmbedRow],
        features: Features,
        outputs: Floats,
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[Embedding]:
        assert features.starts is not None, "a row has several sequences"
        starts = features.starts.tolist()
        return [
            Embedding.of(outputs[start], None if row.pair is None else outputs[start + 1])
            for row, start in zip(rows, starts, strict=False)
        ]

    def answer_of(self, row: EmbedRow, prediction: tuple[Vectors, Vectors]) -> Embedding:  # noqa: ARG002
        return Embedding.of(*prediction)

    def metrics_of(self, rows: Sequence[EmbedRow], labels: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        return NUMBERED if rows[0].label is not None else RANKED

    def score(self, rows: Sequence[EmbedRow], answers: Sequence[Embedding], labels: Sequence[str]) -> dict[str, float]:
        return {name: found.value for name, found in self.statistics(rows, answers, labels).items()}

    def statistics(
        self,
        rows: Sequence[EmbedRow],
        answers: Sequence[Embedding],
        labels: Sequence[str],
    ) -> dict[str, Statistic]:
        """Ranks are among the partners of all rows given here, however often each of these counts."""
        if self.metrics_of(rows, labels) == NUMBERED:
            found = number_statistics(_numbers(rows), [answer.similarity or 0.0 for answer in answers])
            return {name: found[name] for name in NUMBERED}
        ranks = _ranks(rows, answers)
        return {name: mean(rank_values(ranks, name)) for name in RANKED}

    def scores_parts(self, rows: Sequence[EmbedRow]) -> bool:
        """Among fewer partners the right one is found more easily."""
        return rows[0].label is not None

    def of_record(self, record: Mapping[str, Any]) -> tuple[EmbedRow, Embedding]:
        """Of a pair with a number; a rank among other partners cannot be told from a line."""
        row = EmbedRow(
            text_in(record, "text"), line_in(record), text_in(record, "pair"), None, number_in(record, "label")
        )
        return row, Embedding(_NO_VECTOR, _NO_VECTOR, number_in(record, "prediction"))

    def record(self, number: int, row: EmbedRow, answer: Embedding) -> dict[str, Any]:
        told = {"row": number, "line": row.line, "text": row.text}
        if answer.similarity is None:
            return {**told, "vector": np.round(answer.vector.astype(np.float64), 6).tolist()}
        return {**told, "pair": row.pair, "label": row.label, "prediction": round(answer.similarity, 6)}

    def told(self, row: EmbedRow, answer: Embedding) -> tuple[str, str]:
        similarity = answer.similarity
        return (
            "" if row.label is None else f"{row.label:g}",
            "" if similarity is None else f"{similarity:.4f}",
        )

    def _learned(self, rows: Sequence[EmbedRow]) -> Iterator[tuple[str, ...]]:
        """What the loss reads of each row. A plain sentence is its own partner; in rows that are only measured, the
        next row's partner stands in for a stranger that margin lacks.
        """
        for row, following in zip(rows, (*rows[1:], *rows[:1]), strict=True):
            pair = row.text if row.pair is None else row.pair
            if self.loss == "margin":
                yield row.text, pair, row.negative or following.pair or following.text
            else:
                yield row.texts if self.loss == "in-batch" and row.negative else (row.text, pair)

    def _targets(self, rows: Sequence[EmbedRow], texts: Sequence[str]) -> Ints | Floats:
        """(rows, ...) as the loss has them; see `vector_losses`."""
        if self.loss == "cosine":
            low, high = self.score_range
            return ((np.array([_numbers(rows)], dtype=np.float32).T - low) / (high - low)).astype(np.float32)
        return _text_numbers(texts).reshape(len(rows), -1)

    def _check_training(self, row: EmbedRow, where: str | Path | None) -> None:
        has = {"a second text (pair_column)": row.pair, "a number (label_column)": row.label}
        has |= {"a text that does not belong with it (negative_column)": row.negative}
        pair, number, negative = has
        needed = {"in-batch": (), "cosine": (pair, number), "margin": (pair, negative)}[self.loss]
        if missing := [what for what in needed if has[what] is None]:
            raise DataError(f"loss = {self.loss!r} needs of each row {' and '.join(missing)}", path=where)
        if row.pair is None and row.negative is not None:
            raise DataError("rows have a text that does not belong with the first, but none that does", path=where)

    def _check_scores(self, rows: Sequence[EmbedRow], where: str | Path | None) -> None:
        low, high = self.score_range
        numbers = [row.label for row in rows if row.label is not None]
        if numbers and not low <= min(numbers) <= max(numbers) <= high:
            raise DataError(
                f"numbers from {min(numbers):g} to {max(numbers):g}; set score_range to [those of texts with nothing "
                f"in common, those of equal ones], such as [{min(numbers):g}, {max(numbers):g}] (it is [{low:g}, "
                f"{high:g}])",
                path=where,
            )


def card_of_sentence_transformer(directory: Path) -> dict[str, Any]:
    """What bertsmith.json would say of a directory that sentence-transformers wrote; empty for any other, and for one
    whose vectors are not a mean, a maximum or [CLS] of the states.
    """
    pooling, length = directory / "1_Pooling" / "config.json", directory / "sentence_bert_config.json"
    if not ((directory / "modules.json").is_file() and pooling.is_file()):
        return {}
    try:
        modes = json.loads(pooling.read_text(encoding="utf-8"))
        longest = json.loads(length.read_text(encoding="utf-8")).get("max_seq_length") if length.is_file() else None
        keys = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
        found = [how for how, key in keys.items() if modes.get(key) or modes.get("pooling_mode") == how]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{directory} is not as sentence-transformers writes it: {error}") from error
    if len(found) != 1:
        return {}
    return {"task": "embed", "options": {"pooling": found[0]}, "max_length": longest}


def _numbers(rows: Sequence[EmbedRow]) -> list[float]:
    if any(row.label is None for row in rows):
        raise DataError("rows without a number, where other tables have one; cosine needs a number for each pair")
    return [row.label for row in rows if row.label is not None]


def _ranks(rows: Sequence[EmbedRow], answers: Sequence[Embedding]) -> Ints:
    pairs = [answer.pair for answer in answers if answer.pair is not None]
    texts = _text_numbers([row.pair or "" for row in rows])
    return partner_ranks(np.stack([answer.vector for answer in answers]), np.stack(pairs), texts)


def _text_numbers(texts: Sequence[str]) -> Ints:
    """Equal numbers for equal texts."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)
