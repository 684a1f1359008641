"""Pieces of texts to a model's rows: cut to a length, `[CLS]` and `[SEP]` around them, padded, as lists or tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from bertsmith.errors import UsageError

Padding = bool | Literal["longest", "max_length", "do_not_pad"]
Cut = Literal["longest_first", "only_first", "only_second"]
Truncation = bool | Cut | Literal["do_not_truncate"] | None
Offset = tuple[int, int]

NOT_OF_THE_TEXT: Offset = (0, 0)


class BatchEncoding(dict[str, Any]):
    """Columns by name, each also an attribute: `input_ids`, `token_type_ids`, `attention_mask`, ..."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"this encoding has no {name!r}; it has {', '.join(self)}")
        return self[name]

    def to(self, device: Any) -> "BatchEncoding":
        """The same tensors on another device."""
        return BatchEncoding({name: value.to(device) for name, value in self.items()})


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of one text."""

    ids: list[int]
    offsets: list[Offset] | None
    """Characters [start, end) of the text; None if nobody asked."""

    def first(self, number: int) -> "Pieces":
        return Pieces(self.ids[:number], self.offsets and self.offsets[:number])


@dataclass(frozen=True, slots=True)
class Row:
    """What a model gets of one text or pair, before padding; all lists are equally long."""

    ids: list[int]
    type_ids: list[int]
    special: list[int]
    """1 where a token was put in."""
    offsets: list[Offset] | None


def which_cut(truncation: Truncation, *, padding: Padding, max_length: int | None) -> Cut | None:
    """The way to cut, None for not at all. A `max_length` alone cuts too."""
    if truncation is None:
        return "longest_first" if max_length is not None and padding is False else None
    if truncation is True:
        return "longest_first"
    if truncation is False or truncation == "do_not_truncate":
        return None
    if truncation not in get_args(Cut):
        raise UsageError(f"truncation={truncation!r}: allowed are True, False, {', '.join(map(repr, get_args(Cut)))}")
    return truncation


def cut_to(first: Pieces, second: Pieces | None, cut: Cut, room: int) -> tuple[Pieces, Pieces | None]:
    """The two texts with as much taken from their ends as makes them fit into `room` tokens.

    Raises `UsageError` where the text to take from is not longer than what is to be taken.
    """
    lengths = [len(first.ids), len(second.ids) if second is not None else 0]
    too_many = sum(lengths) - room
    if too_many <= 0:
        return first, second
    if room == 0:
        lengths = [0, 0]
    elif cut == "longest_first" and second is not None:
        lengths = longest_first(lengths[0], lengths[1], room)
    else:
        place = 1 if cut == "only_second" else 0
        if lengths[place] <= too_many:
            raise UsageError(
                f"truncation={cut!r} cannot take {too_many} tokens from a text of {lengths[place]}: "
                "give a larger max_length, or truncation='longest_first'"
            )
        lengths[place] -= too_many
    return first.first(lengths[0]), None if second is None else second.first(lengths[1])


def longest_first(first: int, second: int, room: int) -> list[int]:
    """What is kept of two texts that are together longer than `room` tokens: the longer is cut down to the other's
    length, then both alike; an odd token goes to the longer. As `tokenizers` does.
    """
    shorter = min(first, second)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return [longer, shorter] if first > second else [shorter, longer]


def frame(first: Pieces, second: Pieces | None, *, cls_id: int, sep_id: int) -> Row:
    """`[CLS] first [SEP]`, and `second [SEP]` after it."""
    row = Row(
        [cls_id, *first.ids, sep_id],
        [0] * (len(first.ids) + 2),
        [1, *([0] * len(first.ids)), 1],
        None if first.offsets is None else [NOT_OF_THE_TEXT, *first.offsets, NOT_OF_THE_TEXT],
    )
    if second is None:
        return row
    closed = Pieces([*second.ids, sep_id], None if second.offsets is None else [*second.offsets, NOT_OF_THE_TEXT])
    whole = _after(row, closed)
    whole.special[-1] = 1
    return whole


def bare(first: Pieces, second: Pieces | None) -> Row:
    """The two texts with nothing around them."""
    row = Row(first.ids, [0] * len(first.ids), [0] * len(first.ids), first.offsets)
    return row if second is None else _after(row, second)


def _after(row: Row, pieces: Pieces) -> Row:
    return Row(
        [*row.ids, *pieces.ids],
        [*row.type_ids, *([1] * len(pieces.ids))],
        [*row.special, *([0] * len(pieces.ids))],
        None if row.offsets is None or pieces.offsets is None else [*row.offsets, *pieces.offsets],
    )


def pad(rows: Sequence[Row], padding: Padding, *, max_length: int, pad_id: int) -> dict[str, list[list[Any]]]:
    """All columns of the rows, padded at the end; a row that is longer than `max_length` stays."""
    if padding is True or padding == "longest":
        width = max((len(row.ids) for row in rows), default=0)
    elif padding == "max_length":
        width = max_length
    elif padding is False or padding == "do_not_pad":
        width = 0
    else:
        raise UsageError(f"padding={padding!r}: allowed are True, False, 'longest', 'max_length'")
    missing = [max(0, width - len(row.ids)) for row in rows]
    columns: dict[str, list[list[Any]]] = {
        "input_ids": [row.ids + [pad_id] * more for row, more in zip(rows, missing, strict=True)],
        "token_type_ids": [row.type_ids + [0] * more for row, more in zip(rows, missing, strict=True)],
        "attention_mask": [[1] * len(row.ids) + [0] * more for row, more in zip(rows, missing, strict=True)],
        "special_tokens_mask": [row.special + [1] * more for row, more in zip(rows, missing, strict=True)],
    }
    if all(row.offsets is not None for row in rows):
        columns["offset_mapping"] = [
            (row.offsets or []) + [NOT_OF_THE_TEXT] * more for row, more in zip(rows, missing, strict=True)
        ]
    return columns


def as_tensors(columns: dict[str, list[list[Any]]], kind: Literal["np", "pt"]) -> BatchEncoding:
    """(batch, length) int64 each, `offset_mapping` (batch, length, 2)."""
    if kind not in ("np", "pt"):
        raise UsageError(f"return_tensors={kind!r}: allowed are 'np', 'pt', None")
    lengths = sorted({len(ids) for ids in columns["input_ids"]})
    if len(lengths) > 1:
        raise UsageError(
            f"rows of {lengths[0]} to {lengths[-1]} tokens make no {kind!r} tensor: "
            "give padding=True, and truncation=True if there is a limit"
        )
    arrays = {name: np.array(rows, dtype=np.int64) for name, rows in columns.items()}
    if kind == "np":
        return BatchEncoding(arrays)
    import torch  # only here, so that preparing text never loads it

    return BatchEncoding({name: torch.from_numpy(array) for name, array in arrays.items()})
