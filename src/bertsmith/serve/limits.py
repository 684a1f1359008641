"""What one server takes at once, and how long anything may last."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds; what is past one gets an answer in words at once."""

    body_bytes: int = 2**20
    inputs: int = 512
    """Of one request."""
    queue_requests: int = 256
    """Of one model, the batch that is computed included."""
    queue_tokens: int = 32_768
    """The same, padding within a text's own sequences included."""
    batch_seconds: float = 0.05
    """How long one batch is meant to take, by the speed measured so far; one long text may take longer."""
    wait_seconds: float = 0.002
    """How long a text waits for company while nothing is computed."""
    deadline_seconds: float = 10.0
    """From a request's arrival to its answer; by `X-Deadline-Seconds` a client may ask for less."""
    sending_seconds: float = 10.0
    """For a client to send a whole request, headers included, and to take in the answer."""
    connections: int = 1000
    """Open at once; further ones are closed at once."""
