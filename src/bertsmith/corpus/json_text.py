"""Documents in JSON: an object a line, an array of objects, or one object that holds them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart
from bertsmith.corpus.lines import line_in_file
from bertsmith.corpus.plain_text import line_reader
from bertsmith.corpus.texts import document_of, id_of
from bertsmith.errors import DataError

_BETWEEN = re.compile(r"[ \t\r\n,]*")


def read_json_lines(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The text of each object of a JSON Lines file whose line begins in a range of its bytes."""
    for number, line in line_reader(source).lines(part, counts):
        if number < 0:
            return
        if not line or line.isspace():
            continue
        try:
            yield from _documents(_parsed(line), source, part, number, counts)
        except ValueError as error:
            if source.on_error != "skip":
                raise DataError(str(error), path=part.file.path, line=line_in_file(part, number)) from error
            counts["record that cannot be used"] += 1


def read_json(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The texts of a JSON file: of each element of an array, read one after another, or of one object, read whole."""
    blocks = line_reader(source).blocks(part)
    number = 0
    try:
        for number, value in enumerate(_elements(blocks, source.max_document_bytes), start=1):
            try:
                yield from _documents(value, source, part, number, counts)
            except ValueError as error:
                if source.on_error != "skip":
                    raise DataError(f"element {number:,}: {error}", path=part.file.path) from error
                counts["record that cannot be used"] += 1
    except (ValueError, RecursionError) as error:
        raise DataError(f"element {number + 1:,}: {error}", path=part.file.path) from error


def texts_at(value: Any, field: str) -> Iterator[Any]:
    """What is at a path such as `body.text` of an object; of a list on the way, that of each of its elements.

    Raises `ValueError` that says what is there instead.
    """
    name, _, rest = field.partition(".")
    if not isinstance(value, dict) or name not in value:
        keys = ", ".join(value) if isinstance(value, dict) else f"none, it is {type(value).__name__}"
        raise ValueError(f"no field {field!r} (fields here: {keys}); set text_field")
    inner = value[name]
    for item in inner if isinstance(inner, list) else [inner]:
        if rest:
            yield from texts_at(item, rest)
        else:
            yield item


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object a line ({error})") from error


def _documents(value: Any, source: Source, part: FilePart, number: int, counts: Counter[str]) -> Iterator[RawDocument]:
    """All of an object's texts, or none where one of them cannot be used."""
    name = id_of(part, number)
    documents: list[RawDocument] = []
    for copy, text in enumerate(texts_at(value, source.text_field), start=1):
        id = name if copy == 1 else f"{name}.{copy}"
        try:
            document = document_of(text, source, counts, id=id, name=part.file.name)
        except ValueError as error:
            raise ValueError(f"field {source.text_field!r} {error}") from error
        if document is not None:
            documents.append(document)
    yield from documents


def _elements(blocks: Iterator[str], longest: int) -> Iterator[Any]:
    """The elements of an array, held one at a time; anything else is one element. Raises `ValueError`."""
    decoder = json.JSONDecoder()
    buffer = next(blocks, "").removeprefix("\ufeff").lstrip()
    if not buffer.startswith("["):
        yield _one_value(buffer, blocks, longest)
        return
    at = 1
    while True:
        at = _after(_BETWEEN, buffer, at)
        if buffer.startswith("]", at):
            break
        try:
            value, end = decoder.raw_decode(buffer, at)
            reason = "the array has no end"
        except ValueError as error:
            end, reason = len(buffer), str(error)
        if end < len(buffer):  # else the element, or a number, may go on
            yield value
            at = end
            continue
        more = next(blocks, "")
        if not more:
            raise ValueError(f"not JSON, or torn ({reason})")
        if len(buffer) - at > longest:
            raise ValueError(f"not JSON ({reason}), or longer than max_document_bytes = {longest:,}")
        buffer, at = buffer[at:] + more, 0
    if any(text.strip() for text in (buffer[at + 1 :], *blocks)):
        raise ValueError("the array ends and more follows; use kind = 'jsonl' for an object a line")


def _one_value(buffer: str, blocks: Iterator[str], longest: int) -> Any:
    for block in blocks:
        buffer += block
        if len(buffer) > longest:
            raise ValueError(f"one object of more than max_document_bytes = {longest:,}; raise it, or use JSON Lines")
    try:
        return json.loads(buffer)
    except ValueError as error:
        raise ValueError(f"not JSON, or torn ({error}); use kind = 'jsonl' for an object a line") from error


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
