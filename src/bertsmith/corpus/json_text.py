"""Documents in JSON: an object a line, an array of objects, or one object that holds them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import FilePart
from bertsmith.corpus.lines import line_in_file
from bertsmith.corpus.plain_text import id_of, line_reader, unwrap
from bertsmith.errors import DataError

_BLOCK_CHARACTERS = 1 << 20
_SPACES = " \t\r\n"
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json_lines(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The text of each object of a JSON Lines file whose line begins in a range of its bytes."""
    for number, line in line_reader(source).lines(part, counts):
        if number < 0:
            return
        if not line.strip():
            continue
        try:
            texts = list(texts_at(_parsed(line), source.text_field))
            yield from _documents(source, part, number, texts, counts)
        except ValueError as error:
            raise DataError(str(error), path=part.file.path, line=line_in_file(part, number)) from error


def read_json(source: Source, part: FilePart, counts: Counter[str]) -> Iterator[RawDocument]:
    """The texts of a JSON file: of each element of an array, read one after another, or of one object, read whole."""
    number = 0
    try:
        with part.file.open_content() as content, _text_of(content, source) as text:
            for number, value in enumerate(_elements(text, source.max_document_bytes), start=1):
                yield from _documents(source, part, number, list(texts_at(value, source.text_field)), counts)
    except UnicodeDecodeError as error:
        raise DataError(f"not {source.encoding.upper()} ({error.reason}); set encoding", path=part.file.path) from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"element {number + 1}: {error}", path=part.file.path) from error


def texts_at(value: Any, field: str) -> Iterator[str]:
    """The texts at a path such as `body.text` of an object; of a list on the way, those of each of its elements.

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
        elif isinstance(item, str):
            yield item
        else:
            raise ValueError(f"field {name!r} holds {type(item).__name__}, not text")


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object a line ({error})") from error


def _documents(
    source: Source, part: FilePart, number: int, texts: list[str], counts: Counter[str]
) -> Iterator[RawDocument]:
    name = id_of(part, number)
    for copy, text in enumerate(texts, start=1):
        if not text.isascii() and _SURROGATE.search(text):
            if source.on_error == "strict":
                raise ValueError("half of a surrogate pair, which is no character; set on_error = 'skip' or 'replace'")
            counts["half of a surrogate pair"] += 1
            if source.on_error == "skip":
                continue
            text = _SURROGATE.sub("\ufffd", text)
        if source.unwrap:
            text = "\n\n".join(unwrap(text.splitlines()))
        yield RawDocument(name if copy == 1 else f"{name}.{copy}", text, part.file.name)


def _elements(text: TextIO, longest: int) -> Iterator[Any]:
    """The elements of an array, held one at a time; anything else is one element. Raises `ValueError`."""
    decoder = json.JSONDecoder()
    buffer = text.read(_BLOCK_CHARACTERS).removeprefix("\ufeff").lstrip(_SPACES)
    if not buffer.startswith("["):
        rest = text.read(longest + 1)
        if len(rest) > longest:
            raise ValueError(
                f"one object of more than {longest:,} characters; raise max_document_bytes, or use JSON Lines"
            )
        yield json.loads(buffer + rest)
        return
    buffer = buffer[1:]
    while True:
        buffer = buffer.lstrip(_SPACES + ",")
        if buffer.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(buffer)
            complete = end < len(buffer)  # a number may go on
        except ValueError:
            complete = False
        if complete:
            yield value
            buffer = buffer[end:]
            continue
        more = text.read(max(_BLOCK_CHARACTERS, len(buffer)))
        if not more or len(buffer) > longest:
            raise ValueError("the array is torn, not JSON, or an element is longer than max_document_bytes")
        buffer += more


def _text_of(content: Any, source: Source) -> TextIO:
    import io

    errors = {"strict": "strict", "skip": "ignore", "replace": "replace"}[source.on_error]
    return io.TextIOWrapper(content, encoding=source.encoding, errors=errors)
