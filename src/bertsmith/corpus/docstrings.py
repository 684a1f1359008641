"""English prose out of Python source: docstrings without code, tables, headings and markup, wrapped lines rejoined."""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

_BULLET = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)]|\([a-z0-9]\))\s+")
_WORD = re.compile(r"[A-Za-z]{2,}")


def module_paragraphs(path: Path) -> list[str] | None:
    """Paragraphs of all docstrings of a source file in order; None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return [paragraph for docstring in _docstrings(tree) for paragraph in prose(docstring)]


def _docstrings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield docstring
        for child in node.body:
            yield from _docstrings(child)


def prose(docstring: str) -> list[str]:
    """Paragraphs of a docstring."""
    paragraphs = []
    for block in inspect.cleandoc(docstring).split("\n\n"):
        if ">>>" in block:
            continue
        text = " ".join(line.strip() for line in block.splitlines())
        if len(_WORD.findall(text)) >= 4:
            paragraphs.append(text)
    return paragraphs
