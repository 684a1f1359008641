"""The shapes that clients already speak: OpenAI's embeddings, text-embeddings-inference, Hugging Face's client."""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from bertsmith.serve import answers as told
from bertsmith.serve.asking import ask
from bertsmith.serve.faults import Fault
from bertsmith.serve.json_route import Json, JsonRoute
from bertsmith.serve.routes import WRONG, rank
from bertsmith.serve.schemas import MOST_INPUTS, Text

router = APIRouter(route_class=JsonRoute, responses=WRONG, tags=["shapes of other servers"])
_SOME = Field(min_length=1, max_length=MOST_INPUTS)


class _Loose(BaseModel):
    """A request in another server's shape: keys that only it knows are left aside."""

    model_config = ConfigDict(strict=True, extra="ignore")


class EmbeddingsBody(_Loose):
    input: Text | Annotated[list[Text], _SOME]
    model: Annotated[str, Field(max_length=200)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1, description="Refused unless it is what the model gives.")] = None


class OneEmbedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"]
    data: list[OneEmbedding]
    model: str
    usage: EmbeddingsUsage


@router.post("/v1/embeddings", response_model=EmbeddingsAnswer)
async def embeddings(request: Request, body: EmbeddingsBody) -> Json:
    """Vectors of length 1, as OpenAI's API gives them."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    found = await ask(request, body.model, ("embed",), texts)
    vectors = told.vectors_of(found.answers, normalize=True)
    width = vectors.shape[1]
    if body.dimensions not in (None, width):
        raise Fault(422, f"dimensions = {body.dimensions}, but {found.model.name!r} gives {width}; leave it out")
    shown: list[Any] = list(vectors)
    if body.encoding_format == "base64":
        shown = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
    data = [{"object": "embedding", "index": number, "embedding": one} for number, one in enumerate(shown)]
    tokens = found.asked.tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Json({"object": "list", "data": data, "model": found.model.name, "usage": usage})


class EmbedBody(_Loose):
    inputs: Text | Annotated[list[Text], _SOME]
    normalize: bool = True


@router.post("/embed", response_model=list[list[float]])
async def embed(request: Request, body: EmbedBody) -> Json:
    """As text-embeddings-inference: a list of vectors."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    found = await ask(request, None, ("embed",), texts)
    return Json(told.vectors_of(found.answers, normalize=body.normalize))


class Score(BaseModel):
    label: str
    score: float


_Sequence = Annotated[list[Text], Field(min_length=1, max_length=2)]


class PredictBody(_Loose):
    inputs: Text | _Sequence | Annotated[list[_Sequence], _SOME]
    parameters: Annotated[dict[str, Any] | None, Field(description="Sent by Hugging Face's own client.")] = None


@router.post("/predict", response_model=list[Score] | list[list[Score]])
async def predict(request: Request, body: PredictBody) -> Json:
    """As text-embeddings-inference: a text, [text], [text, second text], or a list of such lists; likeliest first.

    With `parameters`, which Hugging Face's client sends, one text too gets a list in a list, as its API has it.
    """
    is_one = isinstance(body.inputs, str) or isinstance(body.inputs[0], str)
    given: Any = [body.inputs] if is_one else body.inputs
    rows = [one if isinstance(one, str) else one[0] if len(one) == 1 else tuple(one) for one in given]
    found = await ask(request, None, ("classify", "multilabel"), rows)
    scores = [_scores(answer) for answer in found.answers]
    return Json(scores[0] if is_one and body.parameters is None else scores)


class RerankBody(_Loose):
    query: Text
    texts: Annotated[list[Text], _SOME]
    return_text: bool = False


class Reranked(BaseModel):
    index: int
    score: float
    text: str | None = None


@router.post("/rerank", response_model=list[Reranked])
async def rerank(request: Request, body: RerankBody) -> Json:
    """As text-embeddings-inference: best first."""
    _, scores = await rank(request, None, body.query, body.texts)
    ranking = told.ranked(scores)
    if body.return_text:
        ranking = [{**one, "text": body.texts[one["index"]]} for one in ranking]
    return Json(ranking)


def _scores(answer: Any) -> list[dict[str, Any]]:
    shares = told.classified(answer)["probabilities"]
    return [{"label": label, "score": share} for label, share in sorted(shares.items(), key=lambda one: -one[1])]
