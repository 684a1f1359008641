"""What a source yields and what a corpus holds."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as its source gives it, before cleaning."""

    id: str
    """The same each time the same source is read."""
    text: str
    """Paragraphs are parted by blank lines."""
    source: str
    """Name of the file or package it comes from."""
    sentences: tuple[str, ...] | None = None
    """Where the source itself says where sentences end; otherwise they are found."""
    unit: str | None = None
    """Documents of one unit, such as a module or a book, fall into the same split; None: those of equal text."""


@dataclass(frozen=True, slots=True)
class Document:
    """A row of a corpus."""

    id: str
    text: str
    source: str
    sentences: tuple[str, ...]
    split: Split
