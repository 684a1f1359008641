"""What a browser, a page from elsewhere or anybody with a socket may ask the board, and what may lie in its folder."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

import pytest

from bertsmith.analysis.beside import MOST_RUNS
from bertsmith.analysis.board.server import Board

START = {"event": "start", "step": 0, "kind": "finetune", "task": "classify", "time": 1.76e9, "plan": {"steps": 9}}
HOSTILE = "</script><img src=x onerror='window.hacked=1'>\"'&"
SECRET = "the moon is made of cheese"


def write_log(folder: Path, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in (json.dumps(START), *lines)), "utf-8")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A board of tmp_path/runs, which holds the run `good`; beside that folder lie things that are not to be shown."""
    write_log(tmp_path / "runs" / "good", '{"event": "step", "step": 3, "loss": 2.5}')
    write_log(tmp_path / "outside", '{"event": "step", "step": 7, "loss": 1.5}')
    (tmp_path / "secret.txt").write_text(SECRET, encoding="utf-8")
    with Board(tmp_path / "runs", port=0, seconds_between_looks=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(board: Board, target: str, method: str = "GET", **headers: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", board.server_port, timeout=10)
    connection.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse()


def raw(board: Board, request: bytes) -> bytes:
    """All that the server answers to these bytes, until it ends the connection."""
    with socket.create_connection(("127.0.0.1", board.server_port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while piece := connection.recv(65536):
            got += piece
        return got


def rows(board: Board) -> dict[str, dict[str, object]]:
    return json.load(ask(board, "/api/runs"))["items"]


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2f..%2fsecret.txt",
        "/static/../secret.txt",
        "/static/..%2f..%2f..%2fsecret.txt",
        "/static//etc/passwd",
        "/static/board.css%00.js",
        "/static/server.py",
        "/run?run=../outside",
        "/run?run=good/../../outside",
        "/run?run=%2e%2e%2foutside",
        "/run?run=/etc",
        "/run?run=good%00",
        "/run?run=",
        "/api/run?run=../outside",
        "/api/run?run=good&run=../outside",
        "http://evil.example/../secret.txt",
        "/metrics.jsonl",
    ],
)
def test_no_address_leads_out_of_the_folder(board: Board, target: str) -> None:
    answer = ask(board, target)
    assert answer.status == (421 if "evil" in target else 404)
    body = answer.read().decode()
    assert SECRET not in body
    assert "1.5" not in body


@pytest.mark.parametrize("target", ["/run", "/run?run", "/run?since=x", "/api/run?" + "&run=x" * 50, "//[/run"])
def test_addresses_that_say_nothing_are_refused(board: Board, target: str) -> None:
    assert ask(board, target).status in (400, 404)


def test_too_many_runs_at_once_are_refused(board: Board) -> None:
    for i in range(MOST_RUNS + 1):
        write_log(board.shelf.root / f"run-{i}")
    query = urlencode([("run", f"run-{i}") for i in range(MOST_RUNS + 1)])
    answer = ask(board, f"/api/run?{query}")
    assert answer.status == 400
    assert f"up to {MOST_RUNS} together" in answer.read().decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_asked_but_to_look(board: Board, method: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in board.shelf.root.rglob("*")}
    answer = ask(board, "/api/runs", method, Content_Length="0")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert {path: path.stat().st_mtime_ns for path in board.shelf.root.rglob("*")} == before


def test_unknown_methods_are_refused(board: Board) -> None:
    assert raw(board, b"BREW /api/runs HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "[", "a@b"]
)
def test_a_name_pointed_at_this_machine_reads_nothing(board: Board, host: str) -> None:
    """DNS rebinding: a page of evil.example, whose name now means 127.0.0.1, asks through the person's browser."""
    for target in ("/", "/api/runs", "/api/run?run=good", "/static/runs.js"):
        answer = ask(board, target, Host=host)
        assert answer.status == 421
        assert b"good" not in answer.read()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:8765", "[::1]:8765", "127.1.2.3"])
def test_this_machine_by_its_own_names_is_answered(board: Board, host: str) -> None:
    assert ask(board, "/api/runs", Host=host).status == 200


def test_a_board_for_others_answers_to_any_name(tmp_path: Path) -> None:
    with Board(tmp_path, host="0.0.0.0", port=0) as board:
        assert not board.is_loopback
        assert board.answer("/api/runs", "my-machine.example").status == 200


def test_no_page_may_be_framed_or_read_by_another_site(board: Board) -> None:
    for target in ("/", "/run?run=good", "/api/runs", "/static/runs.js", "/nowhere"):
        headers = ask(board, target, Origin="http://evil.example").headers
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "'unsafe-inline'" not in headers["Content-Security-Policy"].replace("style-src-attr 'unsafe-inline'", "")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x00\xff\xfe garbage\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_no_request_ends_the_connection(board: Board, request_bytes: bytes, status: bytes) -> None:
    answer = raw(board, request_bytes)
    assert b"Error code: " + status in answer
    assert b"runs" not in answer
    assert ask(board, "/api/runs").status == 200


def test_half_a_request_and_none_keep_nobody_waiting(board: Board) -> None:
    address = ("127.0.0.1", board.server_port)
    waiting = [socket.create_connection(address, timeout=10) for _ in range(20)]
    waiting[0].sendall(b"GET / HTT")
    assert ask(board, "/api/runs").status == 200
    for connection in waiting:
        connection.close()


def test_many_at_once_all_get_the_same_answer(board: Board) -> None:
    targets = ["/api/runs", "/api/run?run=good", "/", "/static/live.js"] * 16
    with ThreadPoolExecutor(len(targets)) as pool:
        answers = list(pool.map(lambda target: (target, ask(board, target).read()), targets))
    assert len(set(answers)) == 4


def test_a_body_is_not_taken_for_the_next_request(board: Board) -> None:
    smuggled = b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for header in (b"Content-Length: %d" % len(smuggled), b"Transfer-Encoding: chunked"):
        answer = raw(board, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n" + smuggled)
        assert answer.count(b"HTTP/1.1 ") == 1


def test_names_and_texts_of_runs_are_shown_as_text(board: Board) -> None:
    hostile = {**START, "task": HOSTILE, "kind": HOSTILE}
    stop = {"event": "stop", "step": 3, "reason": "error", "message": HOSTILE * 99}
    write_log(board.shelf.root / "<img src=x onerror=alert(1)>", json.dumps(hostile), json.dumps(stop))
    [name] = [name for name in rows(board) if name != "good"]
    answer = ask(board, "/api/runs")
    assert answer.headers["Content-Type"] == "application/json"
    assert len(str(rows(board)[name]["said"])) <= 300
    page = ask(board, "/run?" + urlencode({"run": name})).read().decode()
    parts = json.load(ask(board, "/api/run?" + urlencode({"run": name})))["items"]
    for markup in (page, *parts.values()):
        assert "<img" not in markup
    missing = ask(board, "/run?" + urlencode({"run": HOSTILE})).read().decode()
    assert "<img" not in missing
    assert "&lt;img" in missing


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "step", "step": ' + "9" * 400 + ', "loss": 1e999}',
        '{"event": "step", "step": NaN, "loss": Infinity, "elapsed_seconds": -Infinity}',
        '{"event": "step", "step": "many", "loss": {"a": []}, "elapsed_seconds": [1]}',
        '{"event": "start", "plan": 7, "time": "yesterday", "kind": ["x"], "task": {"a": 1}}',
        '{"event": "evaluation", "scores": {"": null}, "loss": true, "best": "yes", "seconds": {}}',
        '{"event": "evaluation", "scores": [1, 2], "best": true}',
        '{"event": "stop", "reason": null, "message": 3}',
        '{"event": "decision", "name": "total_steps", "value": "x"}',
        '{"event": ["step"], "resumed_from": -5}',
        "[" * 100_000,
        "\x00\x01\x02",
        '"\ud800"'.encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_no_line_of_a_log_breaks_the_table_or_the_page(board: Board, line: str) -> None:
    write_log(board.shelf.root / "odd", line, '{"event": "step", "step": 4, "loss": 2.0}')
    answer = ask(board, "/api/runs")
    assert answer.status == 200
    row = json.loads(answer.read(), parse_constant=pytest.fail)["items"]["odd"]
    assert row["loss"] == 2.0
    page = ask(board, "/api/run?run=odd")
    assert page.status == 200
    assert json.loads(page.read(), parse_constant=pytest.fail)["items"]


def test_what_only_looks_like_a_log_is_left_alone(board: Board, tmp_path: Path) -> None:
    root = board.shelf.root
    for name in ("pipe", "link", "folder", "loop"):
        (root / name).mkdir()
    os.mkfifo(root / "pipe" / "metrics.jsonl")  # to open it would wait for ever
    (root / "link" / "metrics.jsonl").symlink_to(tmp_path / "secret.txt")
    (root / "folder" / "metrics.jsonl").mkdir()
    (root / "loop" / "around").symlink_to(root)
    (root / "outside").symlink_to(tmp_path / "outside")
    assert list(rows(board)) == ["good"]


def test_files_that_are_no_text_do_not_break_a_page(board: Board) -> None:
    folder = board.shelf.root / "good"
    for name in ("recipe.toml", "scores.json", "fill_mask.json", "predictions-test.jsonl"):
        (folder / name).write_bytes(b"\xff\xfe\x00[[[{{{" + os.urandom(64))
    parts = json.load(ask(board, "/api/run?run=good&run=good"))["items"]
    assert "header" in parts


def test_a_run_that_vanishes_between_two_looks_is_gone_and_the_rest_stays(board: Board) -> None:
    write_log(board.shelf.root / "short-lived")
    first = json.load(ask(board, "/api/runs"))
    assert ask(board, "/api/run?run=short-lived").status == 200
    (board.shelf.root / "short-lived" / "metrics.jsonl").unlink()
    assert json.load(ask(board, "/api/runs?since=" + first["version"]))["gone"] == ["short-lived"]
    assert ask(board, "/api/run?run=short-lived").status == 404
    assert ask(board, "/api/run?run=good").status == 200
