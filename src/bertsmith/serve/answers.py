"""Answers of tasks as JSON-ready content, and shares of them that several shapes need."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertsmith.serve.models import Model
from bertsmith.tasks.answer import Span
from bertsmith.tasks.choose import Choice
from bertsmith.tasks.classify import Classification
from bertsmith.tasks.masked_word import MASK, Filled
from bertsmith.tasks.multilabel import Labelling
from bertsmith.tasks.regress import Rating
from bertsmith.tasks.sentence_pairs import IS_NEXT
from bertsmith.tasks.tag import Tagging
from bertsmith.tasks.words import word_spans

RANKS = ("embed", "regress", "next-sentence", "classify")
"""Tasks by which texts can be ranked for a query."""


def classified(answer: Classification | Labelling) -> dict[str, Any]:
    probabilities = {label: _share(share) for label, share in answer.probabilities.items()}
    if isinstance(answer, Classification):
        return {"label": answer.label, "probabilities": probabilities}
    return {"labels": list(answer.labels), "probabilities": probabilities}


def rated(answer: Rating) -> dict[str, Any]:
    return {"value": float(answer.value)}


def chosen(answer: Choice) -> dict[str, Any]:
    shares = [_share(share) for share in answer.probabilities]
    return {"number": int(answer.number), "choice": answer.choice, "probabilities": shares}


def spanned(answer: Span) -> dict[str, Any]:
    share = _share(answer.probability)
    return {"text": answer.text, "start": int(answer.start), "end": int(answer.end), "probability": share}


def is_next(answer: Classification) -> dict[str, Any]:
    return {"is_next": answer.label == IS_NEXT, "probability": _share(answer.probabilities[IS_NEXT])}


def filled(answer: Filled | list[tuple[str, float]], text: str) -> dict[str, Any]:
    """Of a model fine-tuned to fill in words, or of a pre-trained one, which fills in one."""
    if isinstance(answer, Filled):
        blanks = [_guesses(blank.guesses) for blank in answer.blanks]
        return {"text": answer.text, "blanks": blanks}
    best = answer[0][0]
    if best.startswith("##"):
        whole = text.replace(f" {MASK}", MASK).replace(MASK, best[2:])
    else:
        whole = text.replace(MASK, best)
    return {"text": whole, "blanks": [_guesses(answer)]}


def tagged(answer: Tagging, given: str | Sequence[str]) -> dict[str, Any]:
    return {
        "words": list(answer.words),
        "tags": list(answer.tags),
        "confidence": [_share(share) for share in answer.confidence],
        "entities": entities(answer, given),
    }


def entities(answer: Tagging, given: str | Sequence[str]) -> list[dict[str, Any]]:
    """Runs of words of one label: characters [start, end) of a text, or words [start, end) of a list."""
    found: list[dict[str, Any]] = []
    runs: list[tuple[str, int, int]] = []
    previous = ""
    for place, tag in enumerate(answer.tags):
        prefix, _, rest = tag.partition("-")
        label = rest if rest and prefix in ("B", "I", "E", "S", "L", "U") else tag
        if tag != "O":
            if runs and previous == label and prefix not in ("B", "S", "U"):
                runs[-1] = (label, runs[-1][1], place + 1)
            else:
                runs.append((label, place, place + 1))
        previous = "" if tag == "O" else label
    spans = word_spans(given) if isinstance(given, str) else None
    for label, first, last in runs:
        start, end = (first, last) if spans is None else (spans[first][1], spans[last - 1][2])
        text = " ".join(answer.words[first:last]) if spans is None else str(given[start:end])
        sure = _share(min(answer.confidence[first:last]))
        found.append({"label": label, "text": text, "start": start, "end": end, "confidence": sure})
    return found


def vectors_of(answers: Sequence[Any], *, normalize: bool) -> npt.NDArray[np.float32]:
    """(texts, hidden)"""
    vectors = np.stack([answer.vector for answer in answers]).astype(np.float32)
    if normalize:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def can_rank(model: Model) -> bool:
    """Whether it makes vectors, or reads pairs."""
    return model.task in ("embed", "next-sentence") or (model.task in RANKS and model.reads_pairs is not False)


def rank_inputs(model: Model, query: str, texts: Sequence[str]) -> list[Any]:
    """What is asked of the model to rank texts for a query."""
    if model.task == "embed":
        return [query, *texts]
    return [(query, text) for text in texts]


def rank_scores(model: Model, answers: Sequence[Any]) -> list[float]:
    """Larger is better: the cosine of vectors; of models of pairs the number, or the last label's probability."""
    if model.task == "embed":
        vectors = vectors_of(answers, normalize=True)
        return [float(score) for score in vectors[1:] @ vectors[0]]
    if model.task == "regress":
        return [float(answer.value) for answer in answers]
    label = IS_NEXT if model.task == "next-sentence" else model.labels[-1]
    return [_share(answer.probabilities[label]) for answer in answers]


def ranked(scores: Sequence[float], top: int | None = None) -> list[dict[str, Any]]:
    """Best first; of equal ones the first given."""
    order = sorted(range(len(scores)), key=lambda number: -scores[number])
    return [{"index": number, "score": scores[number]} for number in order[:top]]


def _guesses(found: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"word": word, "probability": _share(share)} for word, share in found]


def _share(value: float) -> float:
    return round(float(value), 6)
