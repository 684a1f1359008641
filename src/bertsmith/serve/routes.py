"""The endpoints of our own, one a head: `inputs` in, `answers` in their order out."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from bertsmith.serve import answers as told
from bertsmith.serve import schemas
from bertsmith.serve.asking import Answered, ask, shelf_of
from bertsmith.serve.faults import Fault
from bertsmith.serve.json_route import Json, JsonRoute
from bertsmith.serve.models import FILL

WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.FaultAnswer, "description": text}
    for status, text in (
        (400, "The body is no JSON, or a header cannot be read."),
        (401, "No API key, or a wrong one."),
        (404, "No such model."),
        (408, "The request was sent too slowly."),
        (413, "More bytes or tokens than are taken."),
        (415, "The body's type is not application/json."),
        (421, "Asked by a name that is not this machine's."),
        (422, "JSON, but not what this endpoint or this model takes."),
        (429, "The queue is full; Retry-After says when to ask again."),
        (500, "A defect of the server."),
        (503, "The server or the model is going away."),
        (504, "Not answered within the deadline."),
    )
}
router = APIRouter(route_class=JsonRoute, responses=WRONG, tags=["answers"])


def _answers(found: Answered, as_told: Callable[[Any], dict[str, Any]]) -> Json:
    return Json({**found.head, "answers": [as_told(answer) for answer in found.answers]})


@router.post("/v1/classify", response_model=schemas.ClassAnswers)
async def classify(request: Request, body: schemas.TextsOrPairs) -> Json:
    """The label of each text or pair, or its labels, and the probability of each."""
    found = await ask(request, body.model, ("classify", "multilabel"), texts_or_pairs(body.inputs))
    return _answers(found, told.classified)


@router.post("/v1/regress", response_model=schemas.NumberAnswers)
async def regress(request: Request, body: schemas.TextsOrPairs) -> Json:
    """A number for each text or pair."""
    return _answers(await ask(request, body.model, ("regress",), texts_or_pairs(body.inputs)), told.rated)


@router.post("/v1/choose", response_model=schemas.ChoiceAnswers)
async def choose(request: Request, body: schemas.ChoicesOfTexts) -> Json:
    """The most probable of the choices that each text comes with."""
    given: list[tuple[Any, ...]] = [
        (one.text, one.choices) if one.question is None else (one.text, one.question, one.choices)
        for one in body.inputs
    ]
    return _answers(await ask(request, body.model, ("choose",), given), told.chosen)


@router.post("/v1/tag", response_model=schemas.TagAnswers)
async def tag(request: Request, body: schemas.TextsOrWords) -> Json:
    """A tag for each word, and the entities that they make. Texts are split at spaces and marks; lists are words."""
    found = await ask(request, body.model, ("tag",), body.inputs)
    pairs = zip(found.answers, body.inputs, strict=True)
    return Json({**found.head, "answers": [told.tagged(answer, given) for answer, given in pairs]})


@router.post("/v1/answer", response_model=schemas.SpanAnswers)
async def answer(request: Request, body: schemas.Questions) -> Json:
    """The part of each text that answers its question; its place in characters (code points)."""
    given = [(one.question, one.text) for one in body.inputs]
    return _answers(await ask(request, body.model, ("answer",), given), told.spanned)


@router.post("/v1/fill-mask", response_model=schemas.FilledAnswers)
async def fill_mask(request: Request, body: schemas.Texts) -> Json:
    """The likeliest words in the place of [MASK]; pre-trained models take one of them a text."""
    found = await ask(request, body.model, (FILL,), body.inputs)
    pairs = zip(found.answers, body.inputs, strict=True)
    return Json({**found.head, "answers": [told.filled(answer, text) for answer, text in pairs]})


@router.post("/v1/next-sentence", response_model=schemas.NextAnswers)
async def next_sentence(request: Request, body: schemas.Pairs) -> Json:
    """Whether the second text follows the first."""
    given = [(one.text, one.pair) for one in body.inputs]
    return _answers(await ask(request, body.model, ("next-sentence",), given), told.is_next)


@router.post("/v1/embed", response_model=schemas.Vectors)
async def embed(request: Request, body: schemas.TextsToEmbed) -> Json:
    """A vector for each text."""
    found = await ask(request, body.model, ("embed",), body.inputs)
    return Json({**found.head, "vectors": told.vectors_of(found.answers, normalize=body.normalize)})


@router.post("/v1/similarity", response_model=schemas.Similarities)
async def similarity(request: Request, body: schemas.Pairs) -> Json:
    """The cosine of the vectors of each two texts."""
    found = await ask(request, body.model, ("embed",), [(one.text, one.pair) for one in body.inputs])
    return Json({**found.head, "similarities": [round(float(one.similarity), 6) for one in found.answers]})


@router.post("/v1/rerank", response_model=schemas.Ranking)
async def rerank(request: Request, body: schemas.ToRank) -> Json:
    """Texts ranked for a query: by cosine, by a number for each pair, or by the probability of the last label."""
    found, scores = await rank(request, body.model, body.query, body.texts)
    return Json({**found.head, "ranking": told.ranked(scores, body.top)})


@router.get("/v1/models", response_model=schemas.ServedModels, tags=["server"])
async def models(request: Request) -> Json:
    """What is served."""
    return Json({"object": "list", "data": [_described(one.model) for one in shelf_of(request).served.values()]})


async def rank(request: Request, name: str | None, query: str, texts: Sequence[str]) -> tuple[Answered, list[float]]:
    """What a model that can rank says, and the score of each text."""
    shelf = shelf_of(request)
    able = (one.model.name for one in shelf.served.values() if told.can_rank(one.model))
    model = shelf.find(name or next(able, None), told.RANKS).model
    if not told.can_rank(model):
        raise Fault(422, f"{model.name!r} reads single texts; to rank, serve a model of pairs or of sentence vectors")
    found = await ask(request, model.name, told.RANKS, told.rank_inputs(model, query, texts))
    return found, told.rank_scores(model, found.answers)


def texts_or_pairs(inputs: Sequence[str | schemas.Pair]) -> list[str | tuple[str, str]]:
    return [one if isinstance(one, str) else (one.text, one.pair) for one in inputs]


def _described(model: Any) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.loaded_at),
        "owned_by": "bertsmith",
        "task": model.task,
        "labels": list(model.labels),
        "reads_pairs": model.reads_pairs,
        "max_length": model.max_length,
    }
