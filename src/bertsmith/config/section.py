"""What every part of a recipe is: an immutable section that knows its keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Column = str | Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of a recipe: immutable, no unknown keys, docstrings of fields are their help."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a value may be a secret
    )
