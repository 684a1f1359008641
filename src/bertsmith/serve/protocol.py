"""HTTP below ASGI: a client that sends or reads too slowly, or sends endless headers, is cut off.

uvicorn's own protocol waits for a request as long as it takes; here a request has `sending_seconds` from its first
byte (of a new connection: from its beginning) to its last, and an answer as long to be taken in.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bertsmith.serve.limits import Limits

MOST_HEADER_BYTES = 32_768
_TOO_SLOW, _TOO_LONG = (408, "Request Timeout"), (431, "Request Header Fields Too Large")


class PatientProtocol(HttpToolsProtocol):
    """Patient only so long; see `with_limits`."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._has_headers = self._has_request = False
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._sending = self.loop.call_later(self.limits.sending_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._sending)
        _stop(self._reading)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._has_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self._refuse(*_TOO_LONG)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes, self._has_headers, self._has_request = 0, False, True
        if self._sending is None:
            self._sending = self.loop.call_later(self.limits.sending_seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        self._has_headers = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        _stop(self._sending)
        self._sending, self._has_request = None, False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self.limits.sending_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        _stop(self._reading)
        super().resume_writing()

    def _too_slow(self) -> None:
        self._sending = None
        self._refuse(*_TOO_SLOW)

    def _refuse(self, status: int, reason: str) -> None:
        """Close, with a word to say why where no answer has begun."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        has_begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if self._has_request and not has_begun:
            head = f"HTTP/1.1 {status} {reason}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()
        self.loop.call_later(1.0, self.transport.abort)  # of a client that does not read either


def with_limits(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol with these limits, as uvicorn takes it."""
    found: Any = type("PatientProtocol", (PatientProtocol,), {"limits": limits})
    chosen: type[HttpToolsProtocol] = found
    return chosen


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
