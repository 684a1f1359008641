"""What a request gets that is not answered: a status, a word for programs, a sentence for people."""

from dataclasses import dataclass, field
from typing import Any

KINDS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    421: "misdirected",
    422: "invalid_input",
    429: "queue_full",
    500: "internal_error",
    503: "unavailable",
    504: "deadline_passed",
}


@dataclass
class Fault(Exception):  # noqa: N818  (an answer, not a defect)
    """Raised wherever a request cannot be answered; `message` names no path and quotes no text."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    def content(self, request_id: str) -> dict[str, Any]:
        """As clients of OpenAI's API read it."""
        kind = KINDS.get(self.status, "error")
        return {"error": {"type": kind, "message": self.message, "request_id": request_id}}
