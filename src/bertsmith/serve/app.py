"""The server: endpoints behind the gate, and a process that loads, listens, reloads at SIGHUP and ends gracefully."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

import bertsmith
from bertsmith.runtime import Runtime
from bertsmith.serve import clients, routes
from bertsmith.serve.faults import Fault
from bertsmith.serve.gate import Gate, Keys
from bertsmith.serve.json_route import Json
from bertsmith.serve.limits import Limits
from bertsmith.serve.log import Log
from bertsmith.serve.metrics import Metrics
from bertsmith.serve.models import Shelf
from bertsmith.serve.protocol import with_limits

GRACE_SECONDS = 30
"""For requests that are being answered when the server is told to end."""
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


@dataclass
class Service:
    """All that one server is made of; `gate` is the ASGI app."""

    sources: dict[str, str]
    runtime: Runtime
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    log: Log = field(default_factory=Log)
    only_this_machine: bool = True
    is_ending: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.shelf = Shelf(self.sources, self.runtime, self.limits, self.metrics.told)
        self.gate = Gate(
            endpoints(self), self.shelf, self.limits, self.keys, self.metrics, self.log, self.only_this_machine
        )

    @property
    def is_ready(self) -> bool:
        return not self.is_ending and len(self.shelf.served) == len(self.sources)

    def reload(self) -> None:
        """Load all models anew, beside those that answer; one that cannot be loaded leaves the old one in place."""
        for name, reason in self.shelf.reload().items():
            outcome = "loaded" if reason is None else "kept the old one"
            self.metrics.reloads.labels(name, outcome).inc()
            self.log.event("reload", model=name, outcome=outcome, **({} if reason is None else {"reason": reason}))


def endpoints(service: Service) -> FastAPI:
    """The app behind the gate."""
    app = FastAPI(
        title="bertsmith",
        version=bertsmith.__version__,
        description="Answers of fine-tuned BERT models. Every fault has one shape and says what to do.",
        redoc_url=None,
    )
    app.state.shelf = service.shelf
    app.include_router(routes.router)
    app.include_router(clients.router)

    @app.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """The process is there."""
        return {"status": "ok"}

    @app.get("/ready", tags=["server"], responses={503: {"description": "It loads, or is about to end."}})
    async def ready() -> Response:
        """All models are loaded and warm, and the server is not ending."""
        return Json({"ready": service.is_ready}, status_code=200 if service.is_ready else 503)

    @app.get("/metrics", tags=["server"], responses={200: {"content": {"text/plain": {}}}, 401: routes.WRONG[401]})
    async def metrics() -> Response:
        """For Prometheus."""
        batchers = {name: served.batcher for name, served in service.shelf.served.items()}
        return Response(service.metrics.shown(batchers), media_type=_METRICS)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_page(), headers={"Content-Security-Policy": _PAGE_POLICY})

    app.add_exception_handler(Fault, _of_fault)
    app.add_exception_handler(RequestValidationError, _of_wrong_body)
    app.add_exception_handler(HTTPException, _of_no_endpoint)
    app.add_exception_handler(Exception, _of_defect)
    return app


class Server(uvicorn.Server):
    """uvicorn with our signals: SIGTERM and Ctrl-C end it gracefully, SIGHUP loads the models anew."""

    def __init__(self, service: Service, host: str, port: int):
        self.service = service
        super().__init__(
            uvicorn.Config(
                service.gate,
                host=host,
                port=port,
                http=with_limits(service.limits),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(service.limits.sending_seconds),
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        yield
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        self.service.is_ending = True
        self.service.log.event("ending", signal=signal.Signals(number).name)
        self.handle_exit(number, None)

    def _reload(self) -> None:
        threading.Thread(target=self.service.reload, name="reload", daemon=True).start()


def serve(service: Service, host: str, port: int) -> bool:
    """Load, listen and answer until a signal comes; whether it could listen. Raises where a model cannot be loaded."""
    service.shelf.load()
    server = Server(service, host, port)
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that the port is taken
        return False
    finally:
        service.shelf.close()
    return True


async def _of_fault(request: Request, fault: Any) -> Response:
    return Json(fault.content(request.scope["request_id"]), status_code=fault.status, headers=fault.headers)


async def _of_wrong_body(request: Request, error: Any) -> Response:
    """Where it is wrong and why, without what was given, which may be anybody's text."""
    return await _of_fault(request, Fault(422, "; ".join(map(_told, _first(error.errors())))))


async def _of_no_endpoint(request: Request, error: Any) -> Response:
    said = {404: "no such endpoint; GET /docs lists them", 405: "this endpoint takes another method; see GET /docs"}
    message = said.get(error.status_code, str(error.detail))
    return await _of_fault(request, Fault(error.status_code, message, dict(error.headers or {})))


async def _of_defect(request: Request, _error: Exception) -> Response:
    return await _of_fault(request, Fault(500, "the server failed to answer; its log says where"))


def _first(errors: Sequence[Any], most: int = 3) -> Sequence[Any]:
    return errors[:most]


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "body")[:100] or "the body"
    return f"{place}: {error['msg']}"


@cache
def _page() -> str:
    return (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
