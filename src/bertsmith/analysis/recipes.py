"""Differences of the recipes that runs were made by."""

from collections.abc import Mapping, Sequence
from typing import Any

from bertsmith.analysis.folder import RunFolder

NOT_TOLD = frozenset({"name", "description"})
LONGEST = 200


def differences(folders: Sequence[RunFolder]) -> list[tuple[str, list[str | None]]]:
    """Each key that is not the same in all recipes, with its value in each; None where a recipe has no such key."""
    flat = [dict(_flattened(folder.recipe)) for folder in folders]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    told = []
    for key in keys:
        values = [recipe.get(key) for recipe in flat]
        if any(value != values[0] for value in values):
            told.append((key, [None if value is None else _cut(value) for value in values]))
    return told


def _flattened(table: Mapping[str, Any], inside: str = "") -> list[tuple[str, str]]:
    """Dotted keys, as `--set` takes them, and values as text. Lists of tables are told with their numbers, from 1."""
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{inside}{key}"
        if name in NOT_TOLD:
            continue
        if isinstance(value, Mapping):
            found += _flattened(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for i, item in enumerate(value):
                found += _flattened(item, f"{name}[{i + 1}].")
        else:
            found.append((name, _told(value)))
    return found


def _told(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value)


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
