"""JSON in and out: strict when it is read, fast when it is written."""

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from bertsmith.serve.faults import Fault


class Json(Response):
    """Content that is JSON-ready, NumPy arrays included; float32 is written as short as it can be read back."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


class _StrictRequest(Request):
    async def json(self) -> Any:
        """As RFC 8259 has it: no NaN, no half surrogate pairs, nested no deeper than the reader goes."""
        if hasattr(self, "_json"):
            return self._json
        try:
            self._json = orjson.loads(await self.body())
            return self._json
        except orjson.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise Fault(400, f"the body is not JSON: {error.msg.partition(':')[0]} ({where})") from None


class JsonRoute(APIRoute):
    """A route whose body is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            read = _StrictRequest(request.scope, request.receive)
            if request.method == "POST":
                await read.json()  # here, since FastAPI would put its own words in the place of ours
            return await handler(read)

        return strict
