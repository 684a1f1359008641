"""Entities as spans of characters in a text, and as a tag for each of its words (BIO)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bertsmith.tasks.words import word_spans


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """The characters [start, end) of a text and what they are."""

    start: int
    end: int
    label: str

    def __str__(self) -> str:
        return f"{self.label} [{self.start}, {self.end})"


def tags_of(text: str, entities: Sequence[Entity]) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Words, a tag for each, and whether an entity had to be widened to whole words.

    Raises `ValueError` for entities that overlap, lie outside the text, hold no word, or share one.
    """
    ordered = sorted(entities)
    for entity in ordered:
        if not 0 <= entity.start < entity.end <= len(text):
            raise ValueError(f"entity {entity} is no part of a text of {len(text)} characters")
    for one, other in pairwise(ordered):
        if other.start < one.end:
            raise ValueError(f"entities {one} and {other} overlap; a word has one label: leave one of them out")
    words = word_spans(text)
    tags = ["O"] * len(words)
    widened = False
    for entity in ordered:
        inside = [n for n, (_, start, end) in enumerate(words) if start < entity.end and entity.start < end]
        if not inside:
            raise ValueError(f"entity {entity} holds no word")
        if tags[inside[0]] != "O":
            raise ValueError(f"entity {entity} begins in a word that an entity before it ends in")
        widened = widened or words[inside[0]][1] < entity.start or words[inside[-1]][2] > entity.end
        for number in inside:
            tags[number] = f"I-{entity.label}"
        tags[inside[0]] = f"B-{entity.label}"
    return tuple(word for word, _, _ in words), tuple(tags), widened
