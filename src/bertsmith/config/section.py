"""What every part of a recipe is: an immutable section that knows its keys."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Column = str | Annotated[int, Field(ge=0)]

_PASSWORD = re.compile(r"^[\w+.-]+://[^/@:]*:(?!\d+/)([^@]+)@|[?&]\w*password=([^&]*)", re.IGNORECASE)
_VARIABLES = re.compile(r"(\$\{\w+\})*")


class Section(BaseModel):
    """A part of a recipe: immutable, no unknown keys, docstrings of fields are their help."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a value may be a secret
    )


def refuse_passwords(urls: Iterable[str]) -> None:
    """Raise `ValueError` for an address with a password in plain text: recipes are kept."""
    for url in urls:
        for found in _PASSWORD.finditer(url):
            if not _VARIABLES.fullmatch(found[1] or found[2]):
                raise ValueError(
                    "holds a password, which would be written to recipe.toml and manifests; put it in an "
                    "environment variable, and ${NAME} in its place (sql), or in the storage's own settings"
                )
