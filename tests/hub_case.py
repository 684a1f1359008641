"""A stand-in for the model hub: a small HTTP server with datasets, as far as reading them asks it."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34

Datasets = Mapping[str, Mapping[str, Mapping[str, bytes]]]
"""Dataset -> revision -> path -> content."""


class _Handler(BaseHTTPRequestHandler):
    datasets: Datasets
    breaks_after: int | None
    """Ranges that begin at or after this byte break off half-way."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if path[:1] == ["api"]:
            self._answer_api(path[2:], body)
        else:
            _, owner, name, _, revision, *inside = path
            self._answer_file(self._files(f"{owner}/{name}", revision).get("/".join(inside)))

    def _files(self, dataset: str, revision: str) -> Mapping[str, bytes]:
        return self.datasets.get(dataset, {}).get(revision, {})

    def _answer_api(self, path: list[str], body: dict[str, list[str]]) -> None:
        owner, name, *rest = path
        revisions = self.datasets.get(f"{owner}/{name}", {})
        what, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        if revision not in revisions:
            code = "RevisionNotFound" if revisions else "RepoNotFound"
            self._send(404, {"error": "not found"}, {"X-Error-Code": code})
        elif what == "revision":
            self._send(200, {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []})
        elif what == "paths-info":
            self._send(200, [entry for entry in _tree(revisions[revision]) if entry["path"] in body["paths"]])
        else:
            below = "/".join(rest[2:])
            entries = [entry for entry in _tree(revisions[revision]) if str(entry["path"]).startswith(below)]
            is_deep = "recursive=true" in self.path.lower()
            self._send(
                200, [entry for entry in entries if is_deep or "/" not in str(entry["path"])[len(below) :].strip("/")]
            )

    def _answer_file(self, content: bytes | None) -> None:
        if content is None:
            self._send(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        first, last = 0, len(content) - 1
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if wanted:
            begin, _, end = wanted.partition("-")
            first, last = int(begin), min(int(end or last), last)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = content[first : last + 1]
        if self.breaks_after is not None and last >= self.breaks_after:
            self.wfile.write(sent[: len(sent) // 2])
            self.close_connection = True
        else:
            self.wfile.write(sent)

    def _send(self, status: int, answer: object, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    folders = {path.rpartition("/")[0] for path in files} - {""}
    listed: list[dict[str, object]] = [{"type": "directory", "path": path, "oid": "0", "size": 0} for path in folders]
    return listed + [
        {"type": "file", "path": path, "oid": f"{hash(content) & 0xFFFF_FFFF:040x}", "size": len(content)}
        for path, content in files.items()
    ]


@contextlib.contextmanager
def running_hub(datasets: Datasets, *, breaks_after: int | None = None) -> Iterator[str]:
    """Address for HF_ENDPOINT."""
    handler = type("Handler", (_Handler,), {"datasets": datasets, "breaks_after": breaks_after})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
