"""Texts and pairs of texts: as callers give them, as records and people have them, and as the model reads them:
`[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertsmith.tasks.features import Features, Ragged
from bertsmith.tasks.rows import TextRow
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.frame import longest_first


def text_row(given: object, line: int) -> TextRow[Any] | None:
    """A string, or two as a pair, as a row without a label."""
    if isinstance(given, str):
        return TextRow(given, None, line)
    if isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, str) for part in given):
        return TextRow(given[0], None, line, pair=given[1])
    return None


def encode_texts(
    rows: Sequence[TextRow[Any]], tokenizer: Tokenizer, *, max_length: int, targets: npt.NDArray[Any] | None = None
) -> Features:
    """One item a row, read at [CLS]. Of a pair that is too long, tokens are taken from whichever text is longer."""
    firsts = tokenizer.encode_ids([row.text for row in rows])
    seconds: Sequence[list[int] | None] = [None] * len(rows)
    if has_pairs := any(row.pair is not None for row in rows):
        encoded = tokenizer.encode_ids([row.pair or "" for row in rows])
        seconds = [ids if row.pair is not None else None for ids, row in zip(encoded, rows, strict=True)]
    framed = [frame_texts(first, second, tokenizer, max_length) for first, second in zip(firsts, seconds, strict=True)]
    return Features(
        tokens=Ragged.of([ids for ids, _, _ in framed]),
        items=Ragged.of([[0]] * len(rows)),
        targets=targets,
        cut_tokens=np.array([cut for _, _, cut in framed], dtype=np.int64),
        second_starts=np.array([start for _, start, _ in framed], dtype=np.int64) if has_pairs else None,
    )


def encode_windows(
    rows: Sequence[TextRow[Any]],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    stride: int,
    max_windows: int | None,
    targets: npt.NDArray[Any] | None = None,
) -> Features:
    """A row is an example of one or several sequences, windows of its text that share `stride` tokens, or half of what
    a window holds where that is less; its item stands in the first. What follows `max_windows` is cut off.
    """
    room = max_length - 2
    step = room - min(stride, room // 2)
    tokens: list[list[int]] = []
    cut_tokens: list[int] = []
    counts: list[int] = []
    for ids in tokenizer.encode_ids([row.text for row in rows]):
        starts = range(0, max(1, len(ids) - (room - step)), step)[:max_windows]
        tokens += [[tokenizer.cls_id, *ids[start : start + room], tokenizer.sep_id] for start in starts]
        counts.append(len(starts))
        cut_tokens += [*[0] * (len(starts) - 1), max(0, len(ids) - starts[-1] - room)]
    first_sequences = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    is_first = np.zeros(len(tokens), dtype=np.bool_)
    is_first[first_sequences[:-1]] = True
    return Features(
        tokens=Ragged.of(tokens),
        items=Ragged.of([[0] if first else [] for first in is_first]),
        targets=targets,
        cut_tokens=np.array(cut_tokens, dtype=np.int64),
        starts=first_sequences,
        pooled=True,
    )


def frame_texts(
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


def mostly_chinese(texts: Iterable[str]) -> bool:
    """True where more than half the letters are Chinese characters: words are then not parted by spaces."""
    letters = [character for text in texts for character in text if character.isalpha()]
    return 2 * sum("\u4e00" <= character <= "\u9fff" for character in letters) > len(letters)


def record_text(number: int, row: TextRow[Any]) -> dict[str, Any]:
    """What a record says of the row itself."""
    pair = {} if row.pair is None else {"pair": row.pair}
    return {"row": number, "line": row.line, "text": row.text, **pair}
