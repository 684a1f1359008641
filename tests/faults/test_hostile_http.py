"""Clients that are slow, broken or many, against a server in a process of its own; others are served."""

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve_case import running

SECONDS = 1.0
"""That a client of this server has to send a request."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with running(tmp_path_factory.mktemp("models"), SECONDS) as found:
        yield found


def opened(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(address).port), timeout=20)


def said_until_closed(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /embed HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"HTTP/1.1 408"),
        (
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
            b"HTTP/1.1 408",
        ),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000, b"HTTP/1.1 431"),
        (b"\x16\x03\x01 this is no HTTP\r\n\r\n", b"HTTP/1.1 400"),
    ],
    ids=["nothing", "half a header", "half a body", "endless header", "no HTTP"],
)
def test_it_is_cut_off_and_others_are_served(
    server: tuple[str, subprocess.Popen[str]], sent: bytes, answer: bytes
) -> None:
    address, _ = server
    began = time.monotonic()
    clients = [opened(address) for _ in range(20)]
    for client in clients:
        client.sendall(sent)
    assert httpx.post(f"{address}/embed", json={"inputs": "kind"}).status_code == 200
    for client in clients:
        try:
            found = said_until_closed(client)
        except ConnectionResetError:  # it sent more than was read
            found = answer
        assert found.startswith(answer)
        client.close()
    assert time.monotonic() - began < 15


def test_a_slow_second_request_is_told_so_too(server: tuple[str, subprocess.Popen[str]]) -> None:
    client = opened(server[0])
    client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    client.sendall(b"GET /health HTTP/1.1\r\n")
    assert said_until_closed(client).startswith(b"HTTP/1.1 408")


def test_one_that_sends_a_byte_now_and_then_is_cut_off(server: tuple[str, subprocess.Popen[str]]) -> None:
    client = opened(server[0])
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in itertools.chain(b"GET / HTTP/1.1\r\nX: ", itertools.repeat(ord("a"), 150)):
            client.sendall(bytes([byte]))
            time.sleep(0.1)
    client.close()
    assert SECONDS - 0.2 < time.monotonic() - began < 10


def test_a_crowd_gets_answers_or_is_told_to_wait(server: tuple[str, subprocess.Popen[str]]) -> None:
    address, statuses = server[0], []

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            body = {"inputs": ["so kind"] * 20}
            statuses.extend(client.post(f"{address}/embed", json=body).status_code for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(statuses) == 240
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) > 20


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    from bertsmith.serve.app import serve
    from serve_case import service_of, write_models

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = service_of({"embed": write_models(tmp_path)["embed"]})
        assert serve(service, "127.0.0.1", taken.getsockname()[1]) is False


def test_told_to_end_it_finishes_and_leaves_without_a_fault(tmp_path: Path) -> None:
    with running(tmp_path, 10.0) as (address, process):
        done: list[int] = []
        with httpx.Client(timeout=30) as client:
            body = {"inputs": ["so kind and very lovely today"] * 300}
            thread = threading.Thread(
                target=lambda: done.append(client.post(f"{address}/embed", json=body).status_code)
            )
            thread.start()
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            thread.join(30)
        assert done == [200]
        _, said = process.communicate(timeout=40)
        assert process.returncode == 0, said
        events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert any(one["event"] == "ending" and one["signal"] == "SIGTERM" for one in events)
        assert "Traceback" not in said
