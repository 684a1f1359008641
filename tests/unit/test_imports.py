"""Imports run one way: a room imports only from rooms before it."""

import ast
from pathlib import Path

import pytest

import bertsmith

ROOT = Path(bertsmith.__file__).parent
ROOMS = [
    *(
        "errors",
        "openmp",
        "config",
        "artifact",
        "runtime",
        "worker",
        "engine",
        "ray_engine",
        "progress",
        "corpus",
        "tokenizer",
        "examples",
    ),
    *("model", "training", "tasks", "export", "compress", "analysis", "serve", "chain", "pipeline", "commands", "cli"),
]
FACE = {"__init__", "__main__"}
"""The package's own face may import from everywhere, and `runtime` asks it for the version."""


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported_modules(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "bertsmith" else []
            found += [(node.lineno, name) for name in names or [node.module]]
    return [(line, name) for line, name in found if name.split(".")[0] == "bertsmith"]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    place = path.relative_to(ROOT)
    room = place.parts[0].removesuffix(".py")
    if room in FACE:
        return
    assert room in ROOMS, f"{place}: the room {room!r} is not in the list of rooms"
    for line, name in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
        other = room_of(name)
        if other in FACE or other.startswith("__"):
            continue
        assert ROOMS.index(other) <= ROOMS.index(room), f"{place}:{line} imports {name}: {room} comes before {other}"


def test_no_relative_imports() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}: relative import"
