"""The board over HTTP: it answers GET and HEAD, reads files and writes none."""

import gzip
import hashlib
import ipaddress
import json
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bertsmith.analysis.beside import MOST_RUNS
from bertsmith.analysis.board import pages
from bertsmith.analysis.board.live import LivePages
from bertsmith.analysis.board.shelf import Shelf, whole_of
from bertsmith.errors import ArtifactError, UsageError

HEADERS = {
    "Content-Security-Policy": pages.POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_LEAST_ZIPPED = 1400
"""Bytes that fit into one packet are not worth compressing."""


@dataclass(frozen=True)
class Answer:
    """What one request gets."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Board(ThreadingHTTPServer):
    """A server of the runs under `folder`; `serve_forever` serves, `server_close` ends it.

    Args:
        folder: looked through for metrics.jsonl.
        host: an address of this machine; other than loopback ones, everybody who reaches the machine can read the runs.
        port: 0 for any that is free; `url` says which.
        seconds_between_looks: at the files, at least, however many clients ask.

    Raises `ArtifactError` where `folder` is none, `UsageError` where host or port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128
    """Connections that wait to be taken: a browser opens several at once, and each is for one request."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 8765, *, seconds_between_looks: float = 1.0):
        if not folder.is_dir():
            raise ArtifactError(f"{folder} is not a folder; name the one that holds your runs: bertsmith board FOLDER")
        self.shelf = Shelf(folder, seconds_between_looks=seconds_between_looks)
        self.pages = LivePages(seconds_between_looks=seconds_between_looks)
        self.name = folder.name or folder.resolve().name or str(folder.resolve())
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"cannot listen on port {port} of {host} ({error.strerror or error}); give another with --port or "
                "--host, or --port 0 for any port that is free"
            ) from error
        self.is_loopback = ipaddress.ip_address(self.server_name).is_loopback
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """As of `HTTPServer`, without asking a name server who this machine is."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle is not worth a traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def answer(self, target: str, host: str) -> Answer:
        """Answer GET `target` (path and query), asked of the server by the name `host`."""
        if self.is_loopback and not names_this_machine(host):
            # Else a page from anywhere, whose name was pointed at 127.0.0.1, could read the runs through a browser.
            return _wrong(421, f"This board answers to localhost alone, not to {host!r}; see `bertsmith board --help`.")
        try:
            parts = urlsplit(target)
            if parts.path == "/":
                return _page(pages.runs_page(self.name))  # its query is read by its script
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=2 * MOST_RUNS)
        except ValueError:
            return _wrong(400, "The address cannot be read.")
        names, since = query.get("run", []), query.get("since", [""])[0]
        if parts.path == "/api/runs":
            return _json(self.shelf.since(since))
        if parts.path in ("/run", "/api/run"):
            return self._runs(names, None if parts.path == "/run" else since)
        found = pages.static(parts.path.removeprefix("/static/")) if parts.path.startswith("/static/") else None
        if found is None:
            return _wrong(404, "There is no such page.")
        return Answer(200, found[1], found[0].encode())

    def _runs(self, names: list[str], since: str | None) -> Answer:
        """The page of one run or several, or what of its content is new."""
        names = list(dict.fromkeys(names))
        if not 1 <= len(names) <= MOST_RUNS:
            return _wrong(400, f"{len(names)} runs were asked for; one is shown by itself, up to {MOST_RUNS} together.")
        folders = {name: self.shelf.folder(name) for name in names}
        known = {name: folder for name, folder in folders.items() if folder is not None}
        missing = [name for name in names if name not in known]
        if missing:
            return _wrong(404, f"There is no run {missing[0]!r} here, or not any more.")
        if since is not None:
            return _json(self.pages.since(known, since))
        if len(names) > 1:
            return _page(pages.compare_page(names))
        whole = whole_of(names[0])
        return _page(pages.report_page(names[0], whole if whole and self.shelf.folder(whole) else None))


class _Handler(BaseHTTPRequestHandler):
    server: Board
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bertsmith", ""
    timeout = 30
    """Seconds for a request to arrive in."""

    def do_GET(self) -> None:
        try:
            answer = self.server.answer(self.path, self.headers.get("Host", ""))
        except Exception:  # a defect of ours: told where the board was started, and it goes on
            traceback.print_exc()
            answer = _wrong(500, "The board failed to make this page; where it was started it says why.")
        self._send(answer)

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self) -> None:
        allowed = _wrong(405, "The board only shows: GET and HEAD.")
        self._send(Answer(405, allowed.content_type, allowed.body, {"Allow": "GET, HEAD"}))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def _send(self, answer: Answer) -> None:
        body, headers = answer.body, {**HEADERS, **answer.headers}
        tag = f'W/"{hashlib.sha256(body).hexdigest()[:20]}"'
        if answer.status == HTTPStatus.OK:
            headers |= {"ETag": tag, "Vary": "Accept-Encoding"}
        is_known = answer.status == HTTPStatus.OK and tag in self.headers.get("If-None-Match", "")
        if is_known:
            body = b""
        elif len(body) > _LEAST_ZIPPED and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=4, mtime=0)
            headers["Content-Encoding"] = "gzip"
        # Each connection is for one request: none waits with a thread of its own, and no body that came with a
        # request is taken for the next one.
        self.close_connection = True
        headers["Connection"] = "close"
        try:
            self.send_response(HTTPStatus.NOT_MODIFIED if is_known else answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not is_known:
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (ConnectionError, TimeoutError):
            pass  # the browser went away

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not told of: every open page asks every other second."""


def names_this_machine(host: str) -> bool:
    """A Host header that names the loopback interface, at any port (one may be forwarded)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _page(page: str) -> Answer:
    return Answer(200, "text/html; charset=utf-8", page.encode())


def _json(content: Mapping[str, Any]) -> Answer:
    return Answer(200, "application/json", json.dumps(content, allow_nan=False, separators=(",", ":")).encode())


def _wrong(status: int, said: str) -> Answer:
    return Answer(status, "text/html; charset=utf-8", pages.wrong_page(status, said).encode())
