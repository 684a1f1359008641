"""What is new since a client last asked."""

import secrets
from collections.abc import Mapping
from typing import Any


class Feed:
    """Named items, each with the version in which it last changed.

    A client holds a token; `since(token)` answers with the items that changed after it, and the names that are gone.
    Tokens of another process, or none, get everything. Not safe for threads by itself: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._version = 0
        self._items: dict[str, tuple[Any, int]] = {}
        self._gone: dict[str, int] = {}

    @property
    def token(self) -> str:
        return f"{self._name}-{self._version}"

    def items(self) -> dict[str, Any]:
        """All there are."""
        return {key: value for key, (value, _) in self._items.items()}

    def update(self, items: Mapping[str, Any]) -> None:
        """Let these be the items, from now on."""
        changed = [key for key, value in items.items() if key not in self._items or self._items[key][0] != value]
        gone = [key for key in self._items if key not in items]
        if not (changed or gone):
            return
        self._version += 1
        for key in changed:
            self._items[key] = (items[key], self._version)
            self._gone.pop(key, None)
        for key in gone:
            del self._items[key]
            self._gone[key] = self._version

    def since(self, token: str) -> dict[str, Any]:
        """`version`, `whole` (forget what you have), `items` that are new, names that are `gone`."""
        name, _, version = token.partition("-")
        known = name == self._name and version.isdecimal() and len(version) < 16 and int(version) <= self._version
        after = int(version) if known else 0
        return {
            "version": self.token,
            "whole": not known,
            "items": {key: value for key, (value, changed) in self._items.items() if changed > after},
            "gone": [key for key, changed in self._gone.items() if known and changed > after],
        }
