"""Rows as words that can be moved, and the edits of EDA (Wei and Zou 2019, arXiv:1901.11196) on them: swap, delete,
insert. Labels stay true: of a sentence with tags

    swap      two words of one run of words outside entities, or of one entity; tags stay where they are
    delete    words outside entities, or of an entity as long as a word of it is left
    insert    a word from outside entities outside them; into an entity, a word of entities of its type

and an entity that has become longer or shorter is tagged anew, B first and then I (or B, I, E, S, where the table has
those). An edit that would need a tag which the table does not have is not made.

EDA takes synonyms from a thesaurus; here inserted words are drawn from the training rows of the same label. It deletes
each word with a probability; here every edit changes as many words as `rate` says, so that no copy is the row itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from bertsmith.runtime import derive_seed
from bertsmith.tasks.metrics import are_entities, entities
from bertsmith.tasks.rows import TaggedRow, TextRow

OUTSIDE = "O"
_HAN = "㐀-䶿一-鿿豈-﫿"
HAN_RUN = re.compile(f"[{_HAN}]+")
_WORD = re.compile(rf"[{_HAN}]+|[^\W{_HAN}]+(?:['’-][^\W{_HAN}]+)*")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, and what stands between it and the next one of a text: space and marks."""

    text: str
    after: str = ""


@dataclass(frozen=True)
class Segment:
    """Neighbouring words that may change places."""

    words: tuple[Word, ...]
    pool: str
    """Which words may be inserted here."""
    keeps_one: bool = True
    """Whether a word must be left: of a text, of an entity, and between entities that would else become one."""
    is_locked: bool = False
    """Whether its words cannot be moved: tags of a scheme that is not known."""
    before: str = ""
    """Of a text: what stands before the first word."""
    tags: tuple[str, ...] = ()
    """Of a tagged sentence: as many as words; after an edit, those of the segment's new length."""


Segments = tuple[Segment, ...]


class Draws:
    """Numbers that are a pure function of what they are drawn for, and of how many were drawn for it before."""

    def __init__(self, *about: int | str):
        self._about = about
        self._count = 0

    def below(self, limit: int) -> int:
        """0 to limit - 1, each equally likely."""
        self._count += 1
        return derive_seed(*self._about, self._count) % limit

    def sample(self, limit: int, count: int) -> list[int]:
        """`count` different ones of 0 to limit - 1, ascending."""
        order = list(range(limit))
        for place in range(count):
            other = place + self.below(limit - place)
            order[place], order[other] = order[other], order[place]
        return sorted(order[:count])


# ---- rows to segments and back ----


def segments_of(row: Any, tags: frozenset[str]) -> Segments:
    """Of a text, a pair or a tagged sentence; `tags` are all that its table has."""
    if isinstance(row, TaggedRow):
        return tuple(_tagged(row, tags))
    texts = (row.text,) if row.pair is None else (row.text, row.pair)
    return tuple(_of_text(text, pool_of(row)) for text in texts)


def tags_of(rows: Sequence[Any]) -> frozenset[str]:
    """All tags of a table; none where rows are texts."""
    return frozenset(tag for row in rows if isinstance(row, TaggedRow) for tag in row.labels or ())


def row_of(row: Any, segments: Segments) -> Any:
    """The row with these words in place of its own."""
    if isinstance(row, TaggedRow):
        words = tuple(word.text for segment in segments for word in segment.words)
        return replace(row, words=words, labels=tuple(tag for segment in segments for tag in segment.tags))
    texts = [segment.before + "".join(word.text + word.after for word in segment.words) for segment in segments]
    return replace(row, text=texts[0], pair=texts[1] if len(texts) > 1 else None)


def pool_of(row: TextRow[Any]) -> str:
    """Rows whose words may be inserted into each other's: those of one class; of numbers, all."""
    return "" if isinstance(row.label, float) else repr(row.label)


def split_text(text: str) -> tuple[str, list[Word]]:
    """What stands before the first word, and the words; of Chinese those of `rjieba`, as in whole word masking."""
    found: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        found += _chinese(match.start(), match.group()) if HAN_RUN.match(match.group()) else [match.span()]
    if not found:
        return text, []
    ends = [start for start, _ in found[1:]] + [len(text)]
    words = [Word(text[start:end], text[end:until]) for (start, end), until in zip(found, ends, strict=True)]
    return text[: found[0][0]], words


def _chinese(start: int, run: str) -> Iterator[tuple[int, int]]:
    import rjieba  # reads its dictionary, which English does not need

    for word in rjieba.cut(run):
        yield start, start + len(word)
        start += len(word)


def _of_text(text: str, pool: str) -> Segment:
    before, words = split_text(text)
    return Segment(tuple(words), pool, before=before)


def _tagged(row: TaggedRow, tags: frozenset[str]) -> Iterator[Segment]:
    """Runs outside entities, and entities."""
    labels = row.labels or ()
    words = tuple(map(Word, row.words))
    if not are_entities(sorted(tags)):  # plain labels: a run of one label is like an entity
        for label, run in groupby(range(len(words)), key=lambda place: labels[place]):
            places = list(run)
            part = slice(places[0], places[-1] + 1)
            yield Segment(words[part], label, keeps_one=label != OUTSIDE, tags=labels[part])
        return
    is_known = {tag[:1] for tag in tags} <= set("OBIES")
    end = 0
    for kind, start, until in [*entities(labels), (OUTSIDE, len(words), len(words))]:
        if start > end:
            parts_two = end > 0 and start < len(words) and labels[start][:1] not in ("B", "S")
            yield Segment(words[end:start], OUTSIDE, keeps_one=parts_two, tags=labels[end:start])
        if until > start:
            yield Segment(words[start:until], kind, is_locked=not is_known, tags=labels[start:until])
        end = until


# ---- edits ----


@dataclass(frozen=True)
class Editor:
    """The edits of a table's rows."""

    tags: frozenset[str]
    """All tags of the table; none where rows are texts."""
    pools: Mapping[str, Sequence[str]]
    """Words to insert, each as often as it stands in the training rows, in an order that does not hang on theirs."""
    rate: float

    @cached_property
    def _has_entities(self) -> bool:
        return are_entities(sorted(self.tags))

    @classmethod
    def of(cls, rows: Sequence[Segments], tags: frozenset[str], rate: float) -> "Editor":
        """rows: the training rows; tags: all of theirs."""
        pools: dict[str, list[str]] = {}
        for segments in rows:
            for segment in segments:
                pools.setdefault(segment.pool, []).extend(word.text for word in segment.words)
        return cls(tags, {name: sorted(words) for name, words in pools.items()}, rate)

    def changes(self, segments: Segments) -> int:
        """Words of a row that a copy changes."""
        return max(1, round(self.rate * sum(len(segment.words) for segment in segments)))

    def swap(self, segments: Segments, draws: Draws) -> Segments | None:
        """So many times two words that differ change places; None where there are no such two."""
        found = [list(segment.words) for segment in segments]
        free = [
            number
            for number, segment in enumerate(segments)
            if not segment.is_locked and len({word.text for word in segment.words}) > 1
        ]
        places = [(number, place) for number in free for place in range(len(found[number]))]
        for _ in range(self.changes(segments) if places else 0):
            number, first = places[draws.below(len(places))]
            words = found[number]
            others = [place for place, word in enumerate(words) if word.text != words[first].text]
            second = others[draws.below(len(others))]
            one, other = words[first], words[second]
            words[first], words[second] = replace(one, text=other.text), replace(other, text=one.text)
        swapped = tuple(replace(old, words=tuple(new)) for old, new in zip(segments, found, strict=True))
        return swapped if swapped != segments else None

    def delete(self, segments: Segments, draws: Draws) -> Segments | None:
        """So many words fewer; None where none can be spared."""
        found = segments
        for _ in range(self.changes(segments)):
            if sum(len(segment.words) for segment in found) > 1 and (places := self._places(found, -1)):
                number, place = places[draws.below(len(places))]
                found = (*found[:number], self._without(found[number], place), *found[number + 1 :])
        return found if found != segments else None

    def insert(self, segments: Segments, draws: Draws) -> Segments | None:
        """So many words more, after words drawn at random; None where none may be."""
        found = segments
        for _ in range(self.changes(segments)):
            if places := self._places(found, 1):
                number, place = places[draws.below(len(places))]
                pool = self.pools[found[number].pool]
                longer = self._with(found[number], place, pool[draws.below(len(pool))])
                found = (*found[:number], longer, *found[number + 1 :])
        return found if found != segments else None

    def _places(self, segments: Segments, more: int) -> list[tuple[int, int]]:
        """Words, each with its segment's number, of segments that may have so many words more."""
        return [
            (number, place)
            for number, segment in enumerate(segments)
            if not segment.is_locked
            and len(segment.words) + more >= int(segment.keeps_one)
            and self._tags(segment, len(segment.words) + more) is not None
            for place in range(len(segment.words))
        ]

    def _without(self, segment: Segment, place: int) -> Segment:
        words = list(segment.words)
        gap = words.pop(place).after
        if place:
            previous = words[place - 1]
            is_last = place == len(words)
            words[place - 1] = replace(previous, after=_joined(previous.after, gap, is_last=is_last))
        return replace(segment, words=tuple(words), tags=self._tags(segment, len(words)) or ())

    def _with(self, segment: Segment, place: int, text: str) -> Segment:
        words = list(segment.words)
        old = words[place]
        is_chinese = HAN_RUN.match(old.text) and HAN_RUN.match(text)
        words[place : place + 1] = [replace(old, after="" if is_chinese else " "), Word(text, old.after)]
        return replace(segment, words=tuple(words), tags=self._tags(segment, len(words)) or ())

    def _tags(self, segment: Segment, length: int) -> tuple[str, ...] | None:
        """Those of the segment with so many words; None where the table does not have them."""
        if not segment.tags or length == len(segment.tags):
            return segment.tags
        if segment.tags[0] == OUTSIDE or not self._has_entities:
            return (segment.tags[0],) * length
        dash = segment.tags[0][1:]
        begin, inside, end, single = (letter + dash for letter in "BIES")
        if not {tag[:1] for tag in self.tags} & {"E", "S"}:
            end, single = inside, begin
        tags = (single,) if length == 1 else (begin, *[inside] * (length - 2), end)
        return tags if set(tags) <= self.tags else None


def _joined(before: str, after: str, *, is_last: bool) -> str:
    """Two gaps as one, without doubled space."""
    return before.rstrip() + after if after or is_last else before


EDITS: dict[str, Callable[[Editor, Segments, Draws], Segments | None]] = {
    "swap": Editor.swap,
    "delete": Editor.delete,
    "insert": Editor.insert,
}
