"""English prose out of Python source: docstrings without code, tables, headings and markup, wrapped lines rejoined.

The rules know the three usual layouts (numpydoc, Google, Sphinx fields) and reStructuredText well enough to keep what
a person would read as sentences. Double backticks around code stay: they are the labels of the code-words task.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_DOCSTRING_CALLS = {"add_docstr", "_add_docstr", "add_newdoc", "add_docstr_all"}
_DOCSTRING_NAME = re.compile(r"^topics$|docs?(?:tring)?(?:_|$)", re.IGNORECASE)
_SHORTEST = 60
"""Shorter strings in a call are names, not documentation."""

# Lines
_UNDERLINE = re.compile(r"^([=\-~^\"'`*+#.])\1{2,}$")
_TABLE = re.compile(r"^[=+|\-]{2,}[=+|\- ]*[ +|][=+|\- ]*$")
_DIRECTIVE = re.compile(r"^\.\. ([\w:+-]+)::\s*(.*)$")
_COMMENT = re.compile(r"^\.\.(?: |$)")
_PLACEHOLDER = re.compile(r"^(?:%\(\w+\)s|\{\w+\}|\$\{\w+\}|:\w+:)\.?$")
_FIELD = re.compile(r"^[:@](?!class:|func:|meth:|mod:|attr:|ref:|py:)(\w+)(?: [^:`]*)?:(?: |$)")
_BULLET = re.compile(r"^(?:[-*+•]|\d{1,2}[.)]|\([a-z0-9]{1,2}\)|[a-z]\))\s+(?=\S)")
_NUMPY_PARAMETER = re.compile(r"^[\w*`.,(){}\[\]'\"=/ -]{1,60}\s?:\s.+$|^[\w*.]+(?:, [\w*.]+){0,4}$|^:?[\w.]+:?$")
_GOOGLE_PARAMETER = re.compile(r"^`{0,2}\*{0,2}[\w.]+`{0,2} ?\((?:[^()]|\([^()]*\))*\)\s?:\s*")
_GOOGLE_NAME = re.compile(r"^`{0,2}\*{0,2}[\w.]+`{0,2}\s?:\s+(?=\S)")
_SECTION = re.compile(
    r"^(?:args|arguments|parameters|params|returns?|raises|yields|attributes|keyword arg(?:ument)?s|other parameters"
    r"|shape|inputs?|outputs?|examples?|usage|notes?|warnings?|see also|references|todo)\s?::?$",
    re.IGNORECASE,
)
_NAMED_SECTIONS = {"args", "arguments", "parameters", "params", "raises", "attributes", "keyword args"}
_SKIPPED_SECTIONS = {"see also", "references", "see_also"}
_CODE_LINE = re.compile(
    r"^(?:>>>|\.\.\. |In \[\d+\]|\$ |% |#!|@\w+|def \w+\(|class \w+[(:]|import \w+$|from \w\S* import )"
)
_READ_DIRECTIVES = {"note", "warning", "tip", "important", "caution", "hint", "attention", "danger", "admonition",
                    "versionadded", "versionchanged", "deprecated", "versionremoved", "seealso", "topic",
                    "impl-detail", "legacy"}  # fmt: skip
_VERSION_DIRECTIVES = {"versionadded", "versionchanged", "deprecated", "versionremoved"}

# Marks inside a line
_MARK = re.compile(r"[`*$\[\\]")
_ROLE = re.compile(r":([\w:+-]+):`([^`]+)`")
_PLAIN_ROLES = {"ref", "doc", "term", "pep", "rfc", "sup", "sub", "abbr", "issue", "pr", "gh", "user", "std:ref", "dfn"}
_LINK = re.compile(r"`([^`<>]+?)\s*<[^`<>]*>`__?")
_NAMED_LINK = re.compile(r"(?<!`)`([^`]+)`__?(?![\w`])")
_MARKDOWN_LINK = re.compile(r"\[([^\[\]]+)\]\([^()\s]+\)")
_FOOTNOTE = re.compile(r"\s?\[[\w#*]+\]_")
_STRONG = re.compile(
    r"(?<![\w*`])\*\*(?=\S)([^*]+?)(?<=\S)\*\*(?![\w*`])|(?<![\w*`])\*(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*`])"
)
_CODE_SPAN = re.compile(r"``.+?``")
_NOT_ENGLISH = re.compile(r"\x00|https?://|%\(\w+\)|\\[a-zA-Z]{2,}|\{\w*\}|<\w+>|>>>|\w+\(\w+=|[{}]|==|__\w+=")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(])")

_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_NOT_LETTER = re.compile(r"[^A-Za-z ]")
_SMALL_WORD = re.compile(
    r"\b(?:the|a|an|of|to|is|in|and|or|for|if|that|with|be|by|this|are|as|on|not|it|from|when|will|can|was|which|should"
    r"|may|has|have|than|at|all|no|only|use|used)\b",
    re.IGNORECASE,
)
_SIMPLE_FORMULA = re.compile(r"[\w +\-*/<>=().,']{1,24}")
_DOLLARS = re.compile(r"\$([^$\n]+)\$")
_FEWEST_WORDS = 4
_FEWEST_WORDS_OF_SENTENCE = 3
_LETTER_SHARE = 0.72


def module_paragraphs(path: Path) -> list[str] | None:
    """Paragraphs of all docstrings of a source file, in order; None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return None
    return [paragraph for docstring in _docstrings(tree) for paragraph in prose(docstring)]


def prose(docstring: str) -> list[str]:
    """The paragraphs of a docstring that are English sentences, each on one line."""
    reader = _Reader()
    for block in _blocks(inspect.cleandoc(docstring)):
        reader.read(block)
    return [text for text in map(_english, reader.paragraphs) if text]


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


Line = tuple[int, str]
"""Indentation and text."""


def _blocks(text: str) -> Iterator[list[Line]]:
    """Runs of lines without a blank one; code between fences left out."""
    block: list[Line] = []
    fence = ""
    for raw in text.split("\n"):
        line = raw.strip()
        if fence:
            fence = "" if line.startswith(fence) else fence
            continue
        if line.startswith(("```", "~~~")):
            fence, line = line[:3], ""
        if line:
            block.append((len(raw) - len(raw.lstrip()), line))
        elif block:
            yield block
            block = []
    if block:
        yield block


@dataclass
class _Reader:
    """Takes blocks in order and collects paragraphs; knows which indented parts to leave out."""

    paragraphs: list[str] = field(default_factory=list)
    skip_deeper_than: int | None = None
    section: str = ""
    section_indent: int = 0
    underlined: bool = False
    """The section's heading is underlined (numpydoc), not followed by a colon (Google)."""
    current: list[str] = field(default_factory=list)
    """Lines of the paragraph being read."""
    indent: int = 0
    hangs: bool = False
    """The paragraph is a list item: its further lines stand deeper than its first."""

    def read(self, block: list[Line]) -> None:
        lines = block if self.skip_deeper_than is None else self._after_skipped(block)
        if not any(_TABLE.match(line) for _, line in lines):
            while lines:
                lines = self._read_line(lines)
        self._flush()

    def _read_line(self, lines: list[Line]) -> list[Line]:
        """Take one line in; returns what is left to read."""
        (indent, line), rest = lines[0], lines[1:]
        next_indent, next_line = rest[0] if rest else (0, "")
        directive = _DIRECTIVE.match(line)
        if self._is_heading(indent, line, next_line):
            self._flush()
            rest = rest[1:] if _UNDERLINE.match(next_line) else rest
            return self._skip(indent, rest) if line.endswith("::") else rest
        if self.section in _SKIPPED_SECTIONS or _UNDERLINE.match(line) or _PLACEHOLDER.match(line):
            return rest
        if directive is not None:
            self._flush()
            name, argument = directive.groups()
            if name not in _READ_DIRECTIVES:
                return self._skip(indent, rest)
            line = argument.partition(" ")[2] if name in _VERSION_DIRECTIVES else argument
        elif _CODE_LINE.match(line) or _COMMENT.match(line):
            self._flush()
            return [] if line.startswith((">>>", "In [")) else self._skip(indent, rest)
        elif next_indent > indent and self._names_parameter(line):
            self._flush()
            return rest
        self._add(indent, line, hangs=directive is not None)
        return self._skip(indent, rest) if line.endswith("::") else rest

    def _names_parameter(self, line: str) -> bool:
        """Whether a line with deeper ones below is a parameter's name and type, as numpydoc has them on their own."""
        if line.endswith((".", "::")) or _GOOGLE_PARAMETER.match(line):
            return False
        return not (self.section and not self.underlined) and _NUMPY_PARAMETER.match(line) is not None

    def _add(self, indent: int, line: str, *, hangs: bool) -> None:
        """Append a line to the paragraph it belongs to, which may be a new one."""
        text, is_item = self._without_prefix(indent, line)
        goes_on = indent >= self.indent if self.hangs else indent == self.indent
        if is_item or hangs or not self.current or not goes_on:
            self._flush()
            self.indent, self.hangs = indent, is_item or hangs
        if text:
            self.current.append(text)

    def _flush(self) -> None:
        if self.current:
            self.paragraphs.append(" ".join(self.current))
        self.current = []

    def _skip(self, indent: int, rest: list[Line]) -> list[Line]:
        """Leave out what stands deeper than `indent` from here on, also in later blocks."""
        self._flush()
        self.skip_deeper_than = indent
        return self._after_skipped(rest)

    def _after_skipped(self, block: list[Line]) -> list[Line]:
        """What of a block stands no deeper than the part that is left out; finding any ends that part."""
        assert self.skip_deeper_than is not None
        for number, (indent, _) in enumerate(block):
            if indent <= self.skip_deeper_than:
                self.skip_deeper_than = None
                return block[number:]
        return []

    def _is_heading(self, indent: int, line: str, following: str) -> bool:
        underlined = _UNDERLINE.match(following) is not None and len(following) >= min(4, len(line))
        if underlined or _SECTION.match(line):
            self.section, self.section_indent, self.underlined = line.rstrip(": ").lower(), indent, underlined
            return True
        if self.section and indent < self.section_indent:
            self.section = ""
        return False

    def _without_prefix(self, indent: int, line: str) -> tuple[str, bool]:
        """The line without bullet or parameter name, and whether it had one."""
        sphinx = _FIELD.match(line)
        if sphinx is not None:
            return ("" if sphinx.group(1) in ("type", "rtype", "vartype") else line[sphinx.end() :]), True
        for pattern in (_GOOGLE_PARAMETER, _BULLET):
            match = pattern.match(line)
            if match is not None:
                return line[match.end() :], True
        if self.section in _NAMED_SECTIONS and indent > self.section_indent:
            match = _GOOGLE_NAME.match(line)
            if match is not None:
                return line[match.end() :], True
        return line, False


def _english(paragraph: str) -> str:
    """A paragraph without marks and without sentences that hold formulas, addresses or code; empty if none is left."""
    text = _without_marks(paragraph)
    if _NOT_ENGLISH.search(_CODE_SPAN.sub("x", text)):
        sentences = _SENTENCE_END.split(text)
        text = " ".join(part for part in sentences if not _NOT_ENGLISH.search(_CODE_SPAN.sub("x", part)))
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"::$", ":", text)
    bare = _CODE_SPAN.sub("", text)
    num_words = len(_WORD.findall(bare))
    is_sentence = bare.endswith(".") and num_words >= _FEWEST_WORDS_OF_SENTENCE
    if not is_sentence and (num_words < _FEWEST_WORDS or not _SMALL_WORD.search(bare)):
        return ""
    if len(_NOT_LETTER.findall(bare)) > (1 - _LETTER_SHARE) * len(bare) or not (
        text[0].isalnum() or text[0] in "`\"'(["
    ):
        return ""
    return text


def _without_marks(text: str) -> str:
    if not _MARK.search(text):
        return text
    text = _ROLE.sub(_plain_role, text)
    text = _DOLLARS.sub(lambda match: _formula(match.group(1)), text)
    text = _LINK.sub(r"\1", text)
    text = _NAMED_LINK.sub(lambda match: match.group(1) if match.group(0).endswith("_") else match.group(0), text)
    text = _MARKDOWN_LINK.sub(r"\1", text)
    text = _FOOTNOTE.sub("", text)
    text = _STRONG.sub(lambda match: match.group(1) or match.group(2), text)
    return text.replace("\\*", "*").replace("\\_", "_").replace("\\ ", "").replace("\\`", "`")


def _plain_role(match: re.Match[str]) -> str:
    """A role's text: between double backticks where it names code, plain where it names a page or a term."""
    role, content = match.groups()
    role = role.removeprefix("py:")
    if role == "math":
        return _formula(content)
    shown, target = content, ""
    if content.endswith(">") and " <" in content:
        shown, _, target = content[:-1].partition(" <")
    if role in _PLAIN_ROLES:
        return f"{role.upper()} {shown}" if role in ("pep", "rfc") and not target else shown
    if shown.startswith("~"):
        shown = shown.rpartition(".")[2].lstrip("~")
    return f"``{shown.lstrip('!')}``"


def _formula(content: str) -> str:
    """A short formula without commands as it is; any other as a mark that has its sentence left out."""
    return content if _SIMPLE_FORMULA.fullmatch(content) else "\x00"
