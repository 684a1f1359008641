"""The words that drove an answer: each is hidden in turn, and the fall of the answer's probability is its share in it.

Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2) with BERT's own [MASK] in the place of the grey square.
It is told of the surest mistakes of a classifier, in mistakes-SPLIT.jsonl, so that a report needs no model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bertsmith.tasks.classify import Classification, Classify
from bertsmith.tasks.features import Features, Ragged
from bertsmith.tasks.rows import ClassRow
from bertsmith.tokenizer.encode import Tokenizer

NUM_MISTAKES = 10
MOST_PIECES = 40
"""Hidden one by one in a text; of a longer one some neighbouring words are hidden together."""
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['\u2019][^\W_]+)*|\S")


def pieces_of(text: str, most: int = MOST_PIECES) -> list[tuple[int, int]]:
    """Begin and end of each word, Chinese character or sign; of several, where there are more than `most`."""
    words = [found.span() for found in _WORD.finditer(text)]
    size = -(-len(words) // most) if words else 1
    return [(words[i][0], words[min(i + size, len(words)) - 1][1]) for i in range(0, len(words), size)]


def driving_words(
    task: Any,
    rows: Sequence[ClassRow],
    answers: Sequence[Classification],
    *,
    tokenizer: Tokenizer,
    encode: Callable[[Sequence[ClassRow]], Features],
    answer: Callable[[Sequence[ClassRow], Features], Sequence[Classification]],
) -> list[dict[str, Any]]:
    """A record for each of the surest mistakes, surest first; none for other tasks than classification, or windows.

    `encode` and `answer` are the model's. A record has the row's number, label, prediction, its probability, and for
    `text` (and `pair`) a list of [piece, fall]: the pieces make the text; fall is None for what was not hidden, as
    spaces and what stands behind the longest length.
    """
    if not isinstance(task, Classify) or task.windows is not None:
        return []
    sure = task.decisions(rows, answers)
    wrong = np.flatnonzero(~sure.right)
    chosen = wrong[np.argsort(-sure.confidence[wrong], kind="stable")][:NUM_MISTAKES].tolist()
    records = []
    for number in chosen:
        row, given = rows[number], answers[number]
        share = given.probabilities[given.label]
        record = {"row": number, "line": row.line, "label": row.label, "prediction": given.label}
        record["probability"] = round(share, 6)
        texts = {"text": row.text} | ({} if row.pair is None else {"pair": row.pair})
        spans = {name: pieces_of(text) for name, text in texts.items()}
        places = _places(texts, spans, encode([row]), tokenizer)
        hidden = [place for place in places if place[1] > place[0]]
        found = iter(answer([row] * len(hidden), _hidden(encode([row] * len(hidden)), hidden, tokenizer)))
        falls = [
            round(share - next(found).probabilities[given.label], 6) if end > begin else None for begin, end in places
        ]
        for name, text in texts.items():
            record[name] = _told(text, spans[name], falls[: len(spans[name])])
            falls = falls[len(spans[name]) :]
        records.append(record)
    return records


def _places(
    texts: Mapping[str, str], spans: Mapping[str, Sequence[tuple[int, int]]], features: Features, tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """Begin and end of each piece among the row's tokens; an empty stretch where it was cut off.

    Pieces end where words do, so the tokens of a text up to there are the first tokens of the whole text.
    """
    length = int(features.tokens.lengths[0])
    second = length if features.second_starts is None else int(features.second_starts[0])
    bounds = {"text": (1, second - 1), "pair": (second, length - 1)}
    places = []
    for name, text in texts.items():
        first, last = bounds[name]
        ends = [end for span in spans[name] for end in span]
        counts = [first + len(ids) for ids in tokenizer.encode_ids([text[:end] for end in ends])]
        places += [(min(b, last), min(e, last)) for b, e in zip(counts[::2], counts[1::2], strict=True)]
    return places


def _hidden(features: Features, places: Sequence[tuple[int, int]], tokenizer: Tokenizer) -> Features:
    """One row again and again, each time with other tokens hidden."""
    values = features.tokens.values.copy()
    for start, (begin, end) in zip(features.tokens.starts, places, strict=False):
        values[start + begin : start + end] = tokenizer.mask_id
    return replace(features, tokens=Ragged(values, features.tokens.starts))


def _told(text: str, spans: Sequence[tuple[int, int]], falls: Sequence[float | None]) -> list[tuple[str, float | None]]:
    told: list[tuple[str, float | None]] = []
    at = 0
    for (begin, end), fall in zip(spans, falls, strict=True):
        told += [(text[at:begin], None)] if begin > at else []
        told.append((text[begin:end], fall))
        at = end
    return told + ([(text[at:], None)] if at < len(text) else [])
