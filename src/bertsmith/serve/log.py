"""The server's log: one JSON object a line on standard error. Texts, keys and addresses are never in it."""

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson


@dataclass
class Log:
    """Where lines go, and whether each request gets one."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    requests: bool = True

    def event(self, event: str, **facts: Any) -> None:
        """A line of what happened to the server."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        try:
            self.out.write(orjson.dumps(line).decode() + "\n")
            self.out.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more; answers go on

    def request(self, **facts: Any) -> None:
        """A line of a request; always, where the server failed."""
        if self.requests or facts["status"] >= 500:
            self.event("request", **facts)
