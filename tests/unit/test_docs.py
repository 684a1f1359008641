"""The documentation is true: links, commands, recipes and Python in it, and docs/recipes.md.

The tables of docs/recipes.md are made from the package config. After a change of a key, make them anew:

    .venv/bin/python tests/unit/test_docs.py
"""

import ast
import importlib
import re
import shlex
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import bertsmith
from bertsmith.cli import app
from bertsmith.config import FinetuneConfig, LoopConfig, PretrainConfig, Recipe, RowSource, load_recipe, parse_recipe
from bertsmith.errors import RecipeError
from bertsmith.tasks.masked_word import MASK

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")]
PAGES = [path for path in (*TOP, *sorted(ROOT.glob("docs/*.md"))) if path.is_file()]
KEYS_PAGE = ROOT / "docs" / "recipes.md"
BEGIN, END = "<!-- tables: made by tests/unit/test_docs.py -->", "<!-- end of tables -->"
FENCED = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)|(?:src|href)=\"(?P<html>[^\"]+)\"")
INLINE = re.compile(r"`([^`\n]+)`")
OURS = re.compile(r"(?:src|tests|bench|recipes|docs)/[\w./*-]+")

MEANINGS = {
    "Recipe.name": "The run's folder is `runs/NAME`.",
    "Recipe.description": "A line for the report.",
    "Recipe.seed": "Every random choice follows from it: split, masks, pairs, order, fresh weights, dropout.",
    "Recipe.data": "Public files that the recipe needs.",
    "Recipe.corpus": "Text to documents.",
    "Recipe.tokenizer": "Documents to vocabulary.",
    "Recipe.examples": "Documents and vocabulary to spans of token ids.",
    "Recipe.model": "The network to pre-train.",
    "Recipe.pretrain": "Masked language model and next-sentence prediction.",
    "Recipe.finetune": "A labelled table to a model with scores.",
    "Recipe.runtime": "How to compute.",
    "Data.downloads": "One table, `[[data.downloads]]`, a file or archive.",
    "Download.url": "`https://`, `http://` or `file://`.",
    "Download.path": "Where the file goes, below the data folder.",
    "Download.licence": "Shown before the download.",
    "Source.kind": "Files of that kind, a database query, a dataset of the hub, or docstrings of installed packages.",
    "CorpusConfig.sources": "One table, `[[corpus.sources]]`, a source.",
    "TokenizerConfig.min_frequency": "A piece must be seen so often.",
    "ModelConfig.preset": "Layers x hidden size: tiny 2 x 128, mini 4 x 256, small 4 x 512, medium 8 x 512, "
    "base 12 x 768, large 24 x 1024.",
    "OptimizerConfig.learning_rate": "The highest, after warm-up.",
    "OptimizerConfig.weight_decay": "Not on biases and LayerNorm.",
    "OptimizerConfig.betas": "Of the running means of gradient and squared gradient, in AdamW, Adam and LAMB.",
    "OptimizerConfig.eps": "Of AdamW, Adam and LAMB: added to the denominator.",
    "LoopConfig.keep_checkpoints": "The newest ones.",
    "LoopConfig.log_every_steps": "Between lines of metrics.jsonl.",
    "PretrainConfig.max_steps": "Updates. With a budget as well, whichever ends first.",
    "CodeWords.train": "Sentences to train on.",
    "CodeWords.validation": "Sentences to choose the best checkpoint by.",
    "CodeWords.test": "Sentences to score.",
    "FinetuneConfig.task": "[What is learned](tasks.md).",
    "TableConfig.text_column": "Name, or number from 0. Tag, in a table: lists of words (default `words`).",
    "TableConfig.label_column": "Name, or number from 0. Tag, in a table: lists of labels (default `labels`).",
    "FinetuneConfig.epochs": "Passes over the training rows.",
    "RuntimeConfig.device": "`auto`, `cpu` or `cuda`. `auto`: a GPU where there is one.",
    "RuntimeConfig.threads": "Default: PyTorch's own choice.",
}
"""Meanings of keys whose field in config has no docstring, most of them the field's usual names."""


# ---- docs/recipes.md ----


def key_tables() -> str:
    """A table of keys for each section of a recipe."""
    sections: list[tuple[str, type[BaseModel]]] = [("The recipe itself", Recipe)]
    sections += [(f"`[{path}]`", section) for path, section in inner_sections(Recipe) if section is not RowSource]
    sections.append(("Rows that are in no file: `train`, `validation`, `test` as a table", RowSource))
    shared = set(LoopConfig.model_fields)
    parts = []
    for title, section in sections:
        left_out = shared if issubclass(section, LoopConfig) else set()
        parts.append(f"## {title}\n\n{table(section, left_out)}")
        if left_out:
            parts[-1] += "\n\nAnd the keys of [both](#both-pretrain-and-finetune)."
    parts.append(f"## Both `[pretrain]` and `[finetune]`\n\n{table(LoopConfig, set())}")
    return "\n\n".join(parts)


def table(section: type[BaseModel], left_out: set[str]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        if name not in left_out:
            default = shown_default(name, field, section)
            cells = [f"`{name}`", kind(field.annotation, field.metadata), default, meaning(section, name, field)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def inner_sections(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Path and class of each section inside, in the order of the fields."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            path = prefix + name
            yield (f"[{path}]" if "tuple" in str(field.annotation) else path), inner
            yield from inner_sections(inner, f"{path}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(section_of, typing.get_args(annotation))), None)


def kind(annotation: Any, metadata: list[Any]) -> str:
    """What may stand there, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return ""
    if origin is Annotated:
        extra = [part for item in arguments[1:] for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return kind(arguments[0], [*metadata, *extra])
    if origin is typing.Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(filter(None, (kind(inner, metadata) for inner in arguments)))
    if section_of(annotation) is not None:
        return "tables" if origin is tuple else "table"
    if origin is tuple:
        inner = [kind(argument, []) for argument in arguments if argument is not Ellipsis]
        if arguments[-1] is Ellipsis:
            return f"list of {inner[0]}"
        return f"two of: {inner[0]}" if len(set(inner)) == 1 else f"list of {', then '.join(inner)}"
    if origin is dict:
        return "table of text" if arguments[1] is str else "table"
    return {str: "text", bool: "true, false", int: "whole number", float: "number"}[annotation] + bounds(metadata)


def bounds(metadata: list[Any]) -> str:
    said = []
    for rule in metadata:
        for name, words in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
            if isinstance(rule, getattr(annotated_types, name.capitalize())):
                said.append(f"{words} {getattr(rule, name):g}")
    return " " + " ".join(said) if said else ""


def shown_default(name: str, field: FieldInfo, section: type[BaseModel]) -> str:
    if field.is_required():
        return "needed"
    if section is LoopConfig:
        pretrain, finetune = (as_toml(one.model_fields[name].default) for one in (PretrainConfig, FinetuneConfig))
        return pretrain if pretrain == finetune else f"{pretrain} (finetune: {finetune})"
    return as_toml(field.default)


def as_toml(value: object) -> str:
    if isinstance(value, BaseModel) or value is None or value in ({}, ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(as_toml(item).strip("`") for item in value) + "]`" if value else ""
    if isinstance(value, int) and value >= 1_000_000:
        return f"`{value:_}`"
    if isinstance(value, float) and 0 < value < 0.001:
        return f"`{value:.0e}`".replace("e-0", "e-")
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def meaning(section: type[BaseModel], name: str, field: FieldInfo) -> str:
    """The field's docstring in config, or else what is written above."""
    if field.description:
        return " ".join(field.description.split())
    owner = next(one for one in reversed(section.__mro__) if name in getattr(one, "__annotations__", {}))
    return MEANINGS[f"{owner.__name__}.{name}"]


def with_tables(page: str) -> str:
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin + end == BEGIN + END, f"{KEYS_PAGE} has lost one of its marks {BEGIN} and {END}"
    return f"{head}{begin}\n\n{key_tables()}\n\n{end}{tail}"


def test_every_key_of_a_recipe_is_in_the_docs() -> None:
    page = KEYS_PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), f"docs/recipes.md is out of date; run: .venv/bin/python {__file__}"


def test_every_key_is_explained_once() -> None:
    sections = [Recipe, LoopConfig, *(section for _, section in inner_sections(Recipe))]
    owners = {owner.__name__: owner for section in sections for owner in section.__mro__}
    for key in MEANINGS:
        owner, name = key.split(".")
        assert not owners[owner].model_fields[name].description, f"config says what {key} means: remove it here"


# ---- what is in the pages ----


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """Line and text of each fenced block in one of the languages."""
    text = page.read_text(encoding="utf-8")
    for found in FENCED.finditer(text):
        if found["language"] in languages:
            yield text.count("\n", 0, found.start()) + 1, found["body"]


def command_lines(page: Path) -> Iterator[str]:
    """Every `bertsmith ...` in shell blocks and between backticks."""
    lines = [line for _, body in blocks(page, "", "sh", "bash", "console", "shell") for line in body.splitlines()]
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for line in [*lines, *INLINE.findall(text)]:
        found = re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?(bertsmith( .*|$))", line)
        if found:
            yield found[1]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for found in LINK.finditer(text):
        target = found["target"] or found["html"]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name) if name else page
        assert place.exists(), f"{page.name}: no {target}"
        assert place.is_relative_to(ROOT), f"{page.name}: {target} leads out of the repository"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page.name}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    for name in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if OURS.fullmatch(name):
            assert list(ROOT.glob(name.rstrip("/"))), f"{page.name}: there is no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_with_their_options(page: Path) -> None:
    verbs: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in command_lines(page):
        words = shlex.split(line.removesuffix("\\"), comments=True)[1:]
        if not words or words[0].startswith("-"):
            continue
        assert words[0] in verbs or words[0] == "VERB", f"{page.name}: {line!r}: there is no such verb"
        if words[0] in verbs:
            verb = verbs[words[0]]
            if inner := getattr(verb, "commands", None):
                assert words[1] in inner, f"{page.name}: {line!r}: {words[0]} has no verb {words[1]}"
                verb = inner[words[1]]
            options = {option for parameter in verb.params for option in parameter.opts} | {"--help", "-h"}
            unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
            assert not unknown, f"{page.name}: {line!r}: {verb.name} has no {unknown[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_in_the_docs_are_recipes(page: Path) -> None:
    for line, text in blocks(page, "toml"):
        raw = tomllib.loads(text)
        if "name" in raw:
            parse_recipe(raw, where=f"{page.name}:{line}")
            continue
        refused = ""
        try:  # a part of a recipe: its keys and values must be right, other sections may be missing
            parse_recipe({"name": "part", **raw}, where=f"{page.name}:{line}")
        except RecipeError as error:
            refused = str(error)
        assert not refused or re.search(r": (\[[\w.]+\] |\w+: )?needs ", refused), refused


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_docs_names_what_is_there(page: Path) -> None:
    for line, text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bertsmith"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}:{line}: {node.module} has no {alias.name}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bertsmith":
                assert node.attr in bertsmith.__all__, f"{page.name}:{line}: there is no bertsmith.{node.attr}"


def test_every_page_is_found() -> None:
    """A page to which no link leads is not read."""
    linked = set()
    for page in PAGES:
        for found in LINK.finditer(page.read_text(encoding="utf-8")):
            linked.add((page.parent / (found["target"] or found["html"]).partition("#")[0]).resolve())
    lost = [
        page.name for page in PAGES if page.name != "README.md" and page not in TOP and page.resolve() not in linked
    ]
    assert not lost


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=\[~!;]", one)[0].strip() for one in project["dependencies"]}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w.-]+)` \|", page, re.MULTILINE)) == wanted


# ---- recipes/ ----


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_recipes(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description
    assert path.read_text(encoding="utf-8").startswith("# "), "headed by what it is, what it costs, what to expect"
    assert all(sentence.count(MASK) == 1 for sentence in recipe.fill_mask)


if __name__ == "__main__":
    KEYS_PAGE.write_text(with_tables(KEYS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {KEYS_PAGE}")
