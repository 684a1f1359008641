"""The documentation in Python source: docstrings as they stand, without code, tables and underlines.

Wrapped lines are rejoined, so that a paragraph is a line. What stays is what a person reads, parameter lists such as
`axis : int, optional` included, and the double backticks around code: they are the labels of the code-words task.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

_DOCSTRING_CALLS = {"add_docstr", "_add_docstr", "add_newdoc", "add_docstr_all"}
_DOCSTRING_NAME = re.compile(r"^topics$|docs?(?:tring)?(?:_|$)", re.IGNORECASE)
_SHORTEST = 60
"""Shorter strings in a call are names, not documentation."""
_RULE = re.compile(r"[=\-~^\"'`*+#.|_ ]{3,}")
"""The line under a heading, or one of a table."""
_PROMPT = (">>>", "...", "In [", "$ ")
_FENCE = ("```", "~~~")
_CODE_DIRECTIVE = (".. code", ".. plot", ".. math", ".. ipython", ".. test", ".. doctest", ".. graphviz")
_WORD = re.compile(r"[A-Za-z]{2,}")
_FEWEST_WORDS = 3


def module_paragraphs(path: Path) -> list[str] | None:
    """Paragraphs of all docstrings of a source file, in order; None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return None
    return [paragraph for docstring in _docstrings(tree) for paragraph in paragraphs(docstring)]


def paragraphs(docstring: str) -> list[str]:
    """The paragraphs of a docstring, each on one line; those of fewer than three words are left out.

    Left out too: examples with a prompt, what is between fences, and what stands deeper below a line that ends in `::`.
    """
    found = []
    for block in _blocks(inspect.cleandoc(docstring)):
        text = " ".join(line for line in block if not _RULE.fullmatch(line))
        if len(_WORD.findall(text)) >= _FEWEST_WORDS:
            found.append(text.removesuffix("::"))
    return found


def _blocks(text: str) -> Iterator[list[str]]:
    """Runs of lines without a blank one, code left out."""
    block: list[str] = []
    fenced = in_example = False
    literal_below: int | None = None
    for raw in text.split("\n"):
        line = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        if line.startswith(_FENCE):
            fenced = not fenced
            continue
        if fenced:
            continue
        if not line:
            if block:
                yield block
            block, in_example = [], False
            continue
        if literal_below is not None and indent > literal_below:
            continue
        in_example = in_example or line.startswith(_PROMPT)
        if not in_example:
            block.append(line)
            literal_below = indent if _opens_code(line) else None
    if block:
        yield block


def _docstrings(node: ast.AST, *, in_function: bool = False) -> Iterator[str]:
    """Docstrings of modules, classes, functions and attributes, in order.

    Also texts given to functions such as `add_docstr` or to names such as `__doc__`, and the language reference behind
    `help()` (`topics = {...}` of the standard library's pydoc_data).
    """
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    has_docstring = isinstance(node, ast.Module | ast.ClassDef) or is_function
    for number, child in enumerate(_statements(node)):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            is_docstring = has_docstring and number == 0
            if isinstance(child.value.value, str) and (is_docstring or not (is_function or in_function)):
                yield child.value.value
        elif isinstance(child, ast.Expr | ast.Assign):
            if not (is_function or in_function) and _documents(child):
                yield from _long_strings(child.value)
        else:
            yield from _docstrings(child, in_function=is_function or in_function)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("body", "handlers", "orelse", "finalbody"):
        statements = getattr(node, name, [])
        if isinstance(statements, list):
            yield from statements


def _documents(statement: ast.Expr | ast.Assign) -> bool:
    """Whether a statement hands documentation to something."""
    if isinstance(statement.value, ast.Call):
        function = statement.value.func
        if getattr(function, "attr", getattr(function, "id", "")) in _DOCSTRING_CALLS:
            return True
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(_DOCSTRING_NAME.search(getattr(target, "attr", getattr(target, "id", ""))) for target in targets)


def _long_strings(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) >= _SHORTEST:
            yield part.value


def _opens_code(line: str) -> bool:
    """Whether what stands deeper below this line is code: after `::`, or a directive for code."""
    return line.startswith(_CODE_DIRECTIVE) or (line.endswith("::") and not line.startswith(".."))
