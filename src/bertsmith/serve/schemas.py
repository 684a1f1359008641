"""What requests and answers look like in JSON. Wrong types are refused, not bent: "5" is no number."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, pattern=r"\S", examples=["They drank the pub dry."])]
"""Any text with something in it; the whole body is bounded."""
ModelName = Annotated[str | None, Field(max_length=200, description="A served model; by default the first that fits.")]
MOST_INPUTS = 512


class Body(BaseModel):
    """A request of ours: an unknown key is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid")
    model: ModelName = None


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Pair(Part):
    """Two texts that are read together."""

    text: Text
    pair: Text


class Question(Part):
    question: Text
    text: Annotated[Text, Field(description="The passage that holds the answer.")]


class Choices(Part):
    text: Text
    question: Text | None = None
    choices: Annotated[list[Text], Field(min_length=2, max_length=32)]


Words = Annotated[list[Text], Field(min_length=1, max_length=2000)]


class TextsOrPairs(Body):
    inputs: Annotated[list[Text | Pair], Field(min_length=1, max_length=MOST_INPUTS)]


class Texts(Body):
    inputs: Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]


class Pairs(Body):
    inputs: Annotated[list[Pair], Field(min_length=1, max_length=MOST_INPUTS)]


class Questions(Body):
    inputs: Annotated[list[Question], Field(min_length=1, max_length=MOST_INPUTS)]


class ChoicesOfTexts(Body):
    inputs: Annotated[list[Choices], Field(min_length=1, max_length=MOST_INPUTS)]


class TextsOrWords(Body):
    inputs: Annotated[list[Text | Words], Field(min_length=1, max_length=MOST_INPUTS)]


class TextsToEmbed(Texts):
    normalize: Annotated[bool, Field(description="Make each vector of length 1.")] = True


class ToRank(Body):
    query: Text
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
    top: Annotated[int | None, Field(ge=1, description="How many of the best to return; by default all.")] = None


# Answers


class Usage(BaseModel):
    tokens: Annotated[int, Field(description="Tokens that the model read.")]
    cut: Annotated[int, Field(description="Texts whose end was cut off, being longer than the model reads.")]


class Answer(BaseModel):
    model: str
    usage: Usage


class ClassAnswer(BaseModel):
    label: Annotated[str | None, Field(description="Of models that give one label.")] = None
    labels: Annotated[list[str] | None, Field(description="Of models that give any number of labels.")] = None
    probabilities: dict[str, float]


class ClassAnswers(Answer):
    answers: list[ClassAnswer]


class NumberAnswer(BaseModel):
    value: float


class NumberAnswers(Answer):
    answers: list[NumberAnswer]


class ChoiceAnswer(BaseModel):
    number: Annotated[int, Field(description="Of the choice, from 0.")]
    choice: str
    probabilities: list[float]


class ChoiceAnswers(Answer):
    answers: list[ChoiceAnswer]


class Entity(BaseModel):
    label: str
    text: str
    start: Annotated[int, Field(description="First character; of words that came as a list, the first word.")]
    end: Annotated[int, Field(description="One past the last.")]
    confidence: Annotated[float, Field(description="The least of its words'.")]


class TagAnswer(BaseModel):
    words: list[str]
    tags: list[str]
    confidence: list[float]
    entities: list[Entity]


class TagAnswers(Answer):
    answers: list[TagAnswer]


class SpanAnswer(BaseModel):
    text: Annotated[str, Field(description="Empty where the model finds no answer.")]
    start: int
    end: int
    probability: float


class SpanAnswers(Answer):
    answers: list[SpanAnswer]


class Guess(BaseModel):
    word: str
    probability: float


class FilledAnswer(BaseModel):
    text: Annotated[str, Field(description="With each [MASK] filled in by the likeliest word.")]
    blanks: Annotated[list[list[Guess]], Field(description="The likeliest words of each [MASK].")]


class FilledAnswers(Answer):
    answers: list[FilledAnswer]


class NextAnswer(BaseModel):
    is_next: bool
    probability: Annotated[float, Field(description="That the second text follows the first.")]


class NextAnswers(Answer):
    answers: list[NextAnswer]


class Vectors(Answer):
    vectors: list[list[float]]


class Similarities(Answer):
    similarities: Annotated[list[float], Field(description="Cosines, from -1 to 1.")]


class Ranked(BaseModel):
    index: int
    score: float


class Ranking(Answer):
    ranking: Annotated[list[Ranked], Field(description="Best first.")]


class ServedModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    task: str
    labels: list[str]
    reads_pairs: bool | None
    max_length: int


class ServedModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[ServedModel]


class FaultTold(BaseModel):
    type: str
    message: str
    request_id: str


class FaultAnswer(BaseModel):
    """Whatever could not be answered."""

    error: FaultTold
