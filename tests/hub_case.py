"""A stand-in for the hub: a small HTTP server with datasets, as far as reading them asks it, and with models that are
pushed to it and read from it.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

COMMIT = "c0ffee" + "0" * 34

Datasets = Mapping[str, Mapping[str, Mapping[str, bytes]]]
"""Dataset -> revision -> path -> content."""


class _Handler(BaseHTTPRequestHandler):
    datasets: Datasets
    breaks_after: int | None
    """Ranges that begin at or after this byte break off half-way."""
    models: "Models | None" = None

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.models is not None:
            self._answer_models(self.models, path, content)
            return
        body = json.loads(content or b"{}")
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

    def _answer_models(self, models: "Models", path: list[str], content: bytes) -> None:
        is_signed = path[:1] == ["lfs"] and self.path.endswith("?signed")
        if self.command in ("POST", "PUT") and not is_signed and (status := models.refused(self.headers)):
            self._send(status, {"error": f"no right to write with {self.headers.get('Authorization')}"})
        elif path[2:3] == ["resolve"]:
            files = models.repos.get("/".join(path[:2]), Repo()).files
            self._answer_file(files.get("/".join(path[4:])))
        elif path[:1] == ["lfs"]:
            models.objects[path[1]] = content
            self._send(200, {})
        else:
            host = f"http://127.0.0.1:{self.server.server_address[1]}"
            self._send(*models.answer(host, path, json.loads(content.splitlines()[0]) if content else {}, content))

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
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
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


@dataclass
class Repo:
    """A pushed model."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Models:
    """Models by OWNER/NAME; writing needs the token, whose owner is `owner`. Weights go as LFS objects."""

    token: str = "hf_secret"
    owner: str = "ada"
    may_write: bool = True
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def refused(self, headers: Mapping[str, str]) -> int | None:
        """Status of what may not be written."""
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401
        return None if self.may_write else 403

    def answer(self, host: str, path: list[str], body: dict[str, Any], content: bytes) -> tuple[int, object]:
        """To anything but files."""
        if path == ["api", "validate-yaml"]:
            front = body["content"].partition("---\n")[2].partition("\n---")[0]
            good = isinstance(yaml.safe_load(front), dict)
            return (200, {}) if good else (400, {"errors": [{"message": "no front matter"}]})
        if path == ["api", "repos", "create"]:
            name = f"{body['organization'] or self.owner}/{body['name']}"
            if name in self.repos:
                return 409, {"error": "there already", "url": f"{host}/{name}"}
            self.repos[name] = Repo(body.get("visibility") == "private" or bool(body.get("private")))
            return 200, {"url": f"{host}/{name}"}
        if path[2:] == ["info", "lfs", "objects", "batch"]:
            return 200, {"objects": [self._place(host, one) for one in body["objects"]]}
        if path[:2] != ["api", "models"] or "/".join(path[2:4]) not in self.repos:
            return 404, {"error": "not found"}
        repo, what = self.repos["/".join(path[2:4])], path[4] if len(path) > 4 else "revision"
        if what == "preupload":
            modes = {True: "lfs", False: "regular"}
            files = [one | {"uploadMode": modes[one["path"].endswith(".safetensors")]} for one in body["files"]]
            return 200, {"files": [one | {"shouldIgnore": False} for one in files]}
        if what == "commit":
            self._commit(repo, [json.loads(line) for line in content.splitlines()[1:]])
            return 200, {"commitUrl": f"{host}/{'/'.join(path[2:4])}/commit/{COMMIT}", "commitOid": COMMIT}
        if what == "tree":
            return 200, _tree(repo.files)
        files = [{"rfilename": name} for name in repo.files]
        return 200, {"id": "/".join(path[2:4]), "sha": COMMIT, "private": repo.private, "siblings": files}

    def _place(self, host: str, one: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{host}/lfs/{one['oid']}?signed"}
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": upload}}

    def _commit(self, repo: Repo, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "lfsFile":
                found = self.objects[value["oid"]]
                assert hashlib.sha256(found).hexdigest() == value["oid"], "what was uploaded is what was named"
                repo.files[value["path"]] = found
            else:
                repo.files[value["path"]] = base64.b64decode(value["content"])


def _tree(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    folders = {path.rpartition("/")[0] for path in files} - {""}
    listed: list[dict[str, object]] = [{"type": "directory", "path": path, "oid": "0", "size": 0} for path in folders]
    return listed + [
        {"type": "file", "path": path, "oid": f"{hash(content) & 0xFFFF_FFFF:040x}", "size": len(content)}
        for path, content in files.items()
    ]


@contextlib.contextmanager
def running_hub(datasets: Datasets, *, breaks_after: int | None = None, models: Models | None = None) -> Iterator[str]:
    """Address for HF_ENDPOINT; `models`: of a hub that has models, and no datasets."""
    handler = type("Handler", (_Handler,), {"datasets": datasets, "breaks_after": breaks_after, "models": models})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
