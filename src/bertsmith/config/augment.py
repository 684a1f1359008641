"""The section on augmentation: more training rows out of those there are."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bertsmith.config.section import Positive, Section

AugmentMethod = Literal["swap", "delete", "insert", "replace"]


class AugmentConfig(Section):
    """Changed copies of the training rows, with the labels of the rows they are made from."""

    methods: Annotated[tuple[AugmentMethod, ...], Field(min_length=1)] = ("swap", "delete", "insert")
    """One for each copy, in turn: swap two words, delete, insert words of rows of the same label (Wei and Zou 2019), or
    replace words by those that a masked language model proposes (Kobayashi 2018)."""
    rate: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of a row's words that a copy changes; at least one word."""
    copies: Positive = 1
    """Of each row."""
    model: str | None = None
    """replace: a pre-trained model, as directory, run or hub name, that was not fine-tuned."""
    top_k: Annotated[int, Field(ge=1)] = 10
    """replace: a word is drawn from so many of the likeliest, by their probability."""

    @model_validator(mode="after")
    def _has_its_model(self) -> "AugmentConfig":
        if doubled := {method for method in self.methods if self.methods.count(method) > 1}:
            raise ValueError(f"methods names {sorted(doubled)[0]!r} twice; each is taken in turn anyway")
        if ("replace" in self.methods) != (self.model is not None):
            raise ValueError(
                "methods has 'replace' but there is no model to propose words; set model = DIRECTORY"
                if self.model is None
                else f"model = {self.model!r} is for the method 'replace', which methods does not name"
            )
        return self
