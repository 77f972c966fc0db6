"""The servers of a container, which clients reach directly: an upgrade that is ignored costs no body."""

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.sync.client import connect

APP = Path(__file__).parents[1]
HIDDEN = b"GET /whoami HTTP/1.1\r\nHost: evil.example\r\n\r\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module", params=["gunicorn", "asgi", "uvicorn"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server as the container starts it, with one worker."""
    found = free_port()
    environment = {"FLEET_ENGINE": request.param, "FLEET_BIND": f"127.0.0.1:{found}", "WEB_CONCURRENCY": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "plugins.module_utils.workers.start", "main:app"],
        cwd=APP,
        env={**os.environ, "PYTHONPATH": str(APP.parent), **environment},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", found)).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait(60)


def exchange(port: int, *writes: bytes) -> bytes:
    """Send what is given, a moment apart, and return all that comes until nothing more does."""
    received = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as end:
        for data in writes:
            end.sendall(data)
            time.sleep(0.05)
        while b"\r\n\r\n" not in received and (data := end.recv(65536)):
            received += data
        end.settimeout(0.2)
        try:
            while data := end.recv(65536):
                received += data
        except TimeoutError:
            pass
    return received


def head(*lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} /echo HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def assert_whole(answer: bytes, body: bytes) -> None:
    """One answer, to the request whose body this is."""
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200"], answer
    assert hashlib.sha256(body).hexdigest().encode() in answer
    assert b'"bytes":%d' % len(body) in answer


@pytest.mark.parametrize("size", [0, 1_000, 200_000, 1_000_000])
@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "foo"])
def test_body_of_a_request_with_an_upgrade_arrives_whole_and_hides_no_other(port: int, size: int, upgrade: str) -> None:
    body = b"\r\n" * (size // 2) + HIDDEN
    lines = (f"Upgrade: {upgrade}", "Connection: keep-alive, Upgrade", f"Content-Length: {len(body)}")
    assert_whole(exchange(port, head(*lines) + body), body)
    assert_whole(exchange(port, head(*lines), body[:500], body[500:]), body)
    whole = head(*lines) + body
    assert_whole(exchange(port, whole[:40], whole[40:]), body)


def test_body_in_chunks_arrives_whole(port: int) -> None:
    text = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    lines = ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "Transfer-Encoding: chunked")
    assert_whole(exchange(port, head(*lines) + text), HIDDEN)


def test_connection_that_ends_with_the_answer_does_so(port: int) -> None:
    lines = ("Upgrade: h2c", "Connection: upgrade, close", f"Content-Length: {len(HIDDEN)}")
    assert_whole(exchange(port, head(*lines) + HIDDEN), HIDDEN)


def test_requests_behind_one_with_an_upgrade_are_answered_in_turn(port: int) -> None:
    one = head("Upgrade: h2c", "Connection: Upgrade", "Content-Length: 3") + b"abc"
    plain = head("Content-Length: 3") + b"xyz"
    answer = exchange(port, one + plain + one * 40 + plain)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200"] * 43, answer[-500:]


def test_websocket_opens(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/ws") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


def test_connect_is_refused_and_what_follows_is_not_served(port: int) -> None:
    answer = exchange(port, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert statuses
    assert statuses[0][:1] == b"4"
    assert b"evil.example" not in answer
