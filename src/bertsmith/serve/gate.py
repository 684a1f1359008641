"""What stands before every endpoint: who may ask, how much, request ids, the log; and an end to what nobody awaits."""

import asyncio
import hashlib
import hmac
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from bertsmith.analysis.board.server import names_this_machine
from bertsmith.serve.faults import Fault
from bertsmith.serve.limits import Limits
from bertsmith.serve.log import Log
from bertsmith.serve.metrics import Metrics
from bertsmith.serve.models import Shelf

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico"})
"""Answered without a key: they tell nothing of models or texts."""
CLIENT_GONE = 499
_REQUEST_ID = re.compile(rb"[\w.:-]{1,64}")


@dataclass(frozen=True)
class Keys:
    """API keys, of which only digests are kept; none: everybody may ask."""

    digests: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, keys: list[str]) -> "Keys":
        return cls(tuple(hashlib.sha256(key.encode()).digest() for key in keys))

    def allow(self, authorization: bytes) -> bool:
        """Whether an Authorization header brings one of them; in the same time for any wrong one."""
        if not self.digests:
            return True
        scheme, _, given = authorization.partition(b" ")
        found = hashlib.sha256(given.strip()).digest()
        same = [hmac.compare_digest(found, digest) for digest in self.digests]
        return any(same) and scheme.lower() == b"bearer"


@dataclass
class Gate:
    """An ASGI app around the app."""

    app: App
    shelf: Shelf
    limits: Limits
    keys: Keys
    metrics: Metrics
    log: Log
    only_this_machine: bool
    """Whether it listens on loopback alone, and so answers to no other name: else a page from anywhere, whose name
    was pointed at 127.0.0.1, could ask through a browser."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, has_begun = time.monotonic(), CLIENT_GONE, False
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        told: dict[str, Any] = {}
        scope["bertsmith"], scope["request_id"] = told, request_id

        async def send_told(message: MutableMapping[str, Any]) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._pass(scope, headers, receive, send_told)
        except Fault as fault:
            if not has_begun and fault.status != CLIENT_GONE:
                await _tell(fault, request_id, send_told)
        except Exception as error:  # a defect of ours; its message may quote a text, so the log has its place alone
            told["error"] = f"{type(error).__name__} at {_place(error)}"
            if not has_begun:
                await _tell(Fault(500, "the server failed to answer; its log says where"), request_id, send_told)
        finally:
            self._note(scope, request_id, status, time.monotonic() - began)

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if self.only_this_machine and not names_this_machine(headers.get(b"host", b"").decode("latin-1")):
            raise Fault(421, "this server answers to localhost alone; see bertsmith serve --help")
        if scope["path"] not in OPEN_PATHS and not self.keys.allow(headers.get(b"authorization", b"")):
            raise Fault(401, "an API key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        batchers = [served.batcher for served in self.shelf.served.values()]
        if batchers and all(batcher.is_full for batcher in batchers):
            raise batchers[0].full()  # before the body is read: what is refused must cost next to nothing
        body = await self._body(headers, receive)
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if body and kind != b"application/json":
            raise Fault(415, "the body's type is not application/json; send Content-Type: application/json")
        await self._answer(scope, body, receive, send)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        most = self.limits.body_bytes
        too_large = Fault(413, f"the body has more than {most:,} bytes; send several requests")
        given = headers.get(b"content-length", b"0")
        if given.isdigit() and int(given[:20]) > most:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Fault(CLIENT_GONE, "")
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise too_large
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the app until it has answered, or the client is gone."""
        is_read = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        answers = asyncio.ensure_future(self.app(scope, replay, send))
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({answers, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                raise Fault(CLIENT_GONE, "")
            await answers
        finally:
            gone.cancel()
            answers.cancel()
            await asyncio.gather(answers, gone, return_exceptions=True)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = scope.get("route")
        endpoint = getattr(route, "path", None) or "other"
        self.metrics.requests.labels(endpoint, str(status)).inc()
        self.metrics.seconds.labels(endpoint).observe(seconds)
        self.log.request(
            request_id=request_id,
            method=scope["method"],
            endpoint=endpoint,
            status=status,
            seconds=round(seconds, 4),
            **scope["bertsmith"],
        )


async def _tell(fault: Fault, request_id: str, send: Send) -> None:
    body = orjson.dumps(fault.content(request_id))
    headers = {"content-type": "application/json", "content-length": str(len(body)), **fault.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own, if it is harmless to repeat; else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex[:16]


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-4:]))
