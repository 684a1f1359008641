"""Texts, and pairs of texts, as the model reads them: `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertsmith.tasks.base import Features, Ragged
from bertsmith.tasks.tables import TextRow
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.frame import longest_first


def encode_texts(
    rows: Sequence[TextRow[Any]], tokenizer: Tokenizer, *, max_length: int, targets: npt.NDArray[Any] | None = None
) -> Features:
    """One item a row, read at [CLS]. Of a pair that is too long, tokens are taken from whichever text is longer."""
    firsts = tokenizer.encode_ids([row.text for row in rows])
    seconds: Sequence[list[int] | None] = [None] * len(rows)
    if has_pairs := any(row.pair is not None for row in rows):
        encoded = tokenizer.encode_ids([row.pair or "" for row in rows])
        seconds = [ids if row.pair is not None else None for ids, row in zip(encoded, rows, strict=True)]
    framed = [_frame(first, second, tokenizer, max_length) for first, second in zip(firsts, seconds, strict=True)]
    return Features(
        tokens=Ragged.of([ids for ids, _, _ in framed]),
        items=Ragged.of([[0]] * len(rows)),
        targets=targets,
        cut_tokens=np.array([cut for _, _, cut in framed], dtype=np.int64),
        second_starts=np.array([start for _, start, _ in framed], dtype=np.int64) if has_pairs else None,
    )


def _frame(
    first: Sequence[int], second: Sequence[int] | None, tokenizer: Tokenizer, max_length: int
) -> tuple[list[int], int, int]:
    """Token ids, where the second text begins in them (their end where there is none), and tokens cut off."""
    cls_id, sep_id = tokenizer.cls_id, tokenizer.sep_id
    if second is None:
        room = max_length - 2
        ids = [cls_id, *first[:room], sep_id]
        return ids, len(ids), max(0, len(first) - room)
    room, lengths = max_length - 3, [len(first), len(second)]
    if sum(lengths) > room:
        lengths = longest_first(len(first), len(second), room)
    head = [cls_id, *first[: lengths[0]], sep_id]
    return [*head, *second[: lengths[1]], sep_id], len(head), len(first) + len(second) - sum(lengths)


def row_text(row: TextRow[Any]) -> str:
    """The row as a person reads it."""
    return row.text if row.pair is None else f"{row.text} | {row.pair}"
