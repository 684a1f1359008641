"""Texts cut into passages that an embedding model reads whole: runs of sentences, neighbours sharing one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import find_files
from bertsmith.corpus.sentences import split_sentences
from bertsmith.corpus.sources import KIND_BY_SUFFIX, plan_chunks, read_chunk
from bertsmith.errors import DataError
from bertsmith.tokenizer.encode import Tokenizer


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document, and where it is from."""

    text: str
    source: str
    """Name of the file."""
    place: str
    """The document in it: file and line or row, and the passage's number in the document."""


def read_passages(
    files: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int, counts: Counter[str]
) -> Iterator[Passage]:
    """Of files, folders and globs: a text file is one document, a row of .jsonl, .csv or .parquet its field `text`.

    counts: documents, and what was left out by its reason. Raises `DataError` naming file and place.
    """
    for file in find_files(files):
        kind = KIND_BY_SUFFIX.get(file.suffix, "text")
        source = Source.model_validate({"kind": kind, "paths": (file.path,), "layout": "file", "unwrap": True})
        for chunk in plan_chunks(source):
            for found in read_chunk(chunk, counts):
                counts["documents"] += 1
                named = file.name + found.id.removeprefix(found.source)  # alone it has no folder in its name
                yield from cut(replace(found, id=named, source=file.name), tokenizer, max_tokens=max_tokens)


def cut(document: RawDocument, tokenizer: Tokenizer, *, max_tokens: int) -> Iterator[Passage]:
    """Passages of at most `max_tokens` tokens; a sentence that is longer alone is cut between its words."""
    if max_tokens < 1:
        raise DataError(f"passages of {max_tokens} tokens hold nothing; give at least 1")
    sentences = [part for one in _sentences(document) for part in _pieces(one, tokenizer, max_tokens)]
    lengths = [len(ids) for ids in tokenizer.encode_ids(sentences)]
    start, number = 0, 0
    while start < len(sentences):
        end, used = start, 0
        while end < len(sentences) and (end == start or used + lengths[end] <= max_tokens):
            used += lengths[end]
            end += 1
        number += 1
        yield Passage(" ".join(sentences[start:end]), document.source, f"{document.id}, passage {number}")
        if end == len(sentences):
            return
        shares = end - start > 1 and lengths[end - 1] + lengths[end] <= max_tokens
        start = end - 1 if shares else end  # the last sentence begins the next passage too, where that leads on


def _sentences(document: RawDocument) -> Sequence[str]:
    return document.sentences or split_sentences(document.text)


def _pieces(sentence: str, tokenizer: Tokenizer, max_tokens: int) -> Iterator[str]:
    """The sentence, or parts of it that fit."""
    (found,) = tokenizer.encode_batch([sentence])
    if len(found.ids) <= max_tokens:
        if sentence:
            yield sentence
        return
    for start in range(0, len(found.ids), max_tokens):
        spans = found.offsets[start : start + max_tokens]
        yield sentence[spans[0][0] : spans[-1][1]]
