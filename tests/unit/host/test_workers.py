"""Counting who answers on a Unix socket, against real processes that share one."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.module_utils.host.proc import release_of
from plugins.module_utils.host.sockets import ask, connections, is_good
from plugins.module_utils.host.workers import worker_pids
from plugins.module_utils.workers.engines import DEFAULT, ENGINES

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve(listener: socket.socket, answer: bytes, keep_open: bool) -> None:
    """Answer each connection once, one at a time with a short pause, so that both processes get some."""
    held = []
    while True:
        peer, _ = listener.accept()
        peer.recv(4096)
        time.sleep(0.01)
        peer.sendall(answer)
        if keep_open:
            held.append(peer)
        else:
            peer.close()


class Pool:
    """Forked processes that serve one socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.pids: set[int] = set()

    def fork(self, answer: bytes = ANSWER, keep_open: bool = True) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                serve(self.listener, answer, keep_open)
            finally:
                os._exit(1)
        self.pids.add(pid)
        return pid


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json", b'{"detail": "redis is away"}\n', '{"detail": "redis is away"}'),
        ("text/plain; charset=utf-8", b"no redis", "no redis"), ("text/plain", b"x" * 9000, "x" * 9000),
        ("text/plain", b"Service Unavailable", ""), ("text/html", b"<p>sorry", ""), ("application/json", b"null", ""),
        ("text/plain", b"x" * 70000, ""),
    ],
)  # fmt: skip
def test_what_a_bad_answer_says_is_kept_whole(pool: Pool, kind: str, body: bytes, said: str) -> None:
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    pool.fork(head.encode() + body)
    found = ask(pool.path, "/", "localhost", 5, 2)
    assert (found.statuses, found.said) == ([503, 503], said)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"no connection to canary-1\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 canary-1 OK\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nca", "IncompleteRead"),
    ],
)
def test_what_is_no_answer_is_told_by_its_kind_not_by_its_words(pool: Pool, answer: bytes, said: str) -> None:
    pool.fork(answer, keep_open=False)
    found = ask(pool.path, "/", "localhost", 5, 1)
    assert (found.statuses, found.error) == ([0], said)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool(tmp_path / "s.sock")
    yield made
    for pid in made.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("command", "children", "workers"),
    [
        ("python3 -m gunicorn --workers 2 main:app", {11: "python3 -m gunicorn", 12: "python3 -m gunicorn"}, [11, 12]),
        ("python3 -m gunicorn --workers 1 main:app", {}, []),
        (
            "python3 -m uvicorn --workers 2 main:app",
            {11: "python3 -c from multiprocessing.resource_tracker import main;main(4)", 12: "spawn", 13: "spawn"},
            [12, 13],
        ),
        ("python3 -m uvicorn --workers 2 main:app", {11: "from multiprocessing.resource_tracker"}, []),
        ("python3 -m uvicorn --workers 1 main:app", {}, [10]),
    ],
)
def test_workers_are_the_main_processs_children_or_uvicorns_main_process_where_it_is_alone(
    command: str, children: dict[int, str], workers: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid, words in {10: command, **children, 20: "other"}.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a ) b) S {10 if pid in children else 1} 10 0")
        (tmp_path / str(pid) / "cmdline").write_bytes(words.replace(" ", "\0").encode())
    monkeypatch.setattr("plugins.module_utils.host.proc.PROC", tmp_path)
    engine = next(engine for engine in ENGINES.values() if f"-m {engine.name}" in command)
    assert worker_pids(10, engine) == workers


def test_each_process_that_answered_is_named_by_the_kernel(pool: Pool) -> None:
    pool.fork()
    pool.fork()
    answers = ask(pool.path, "/health", "localhost", 5, 12, pool.pids)
    assert answers.statuses == [200] * 12
    assert answers.pids == pool.pids


def test_a_process_that_does_not_answer_is_not_counted(pool: Pool) -> None:
    answering, stopped = pool.fork(), pool.fork()
    os.kill(stopped, signal.SIGSTOP)
    answers = ask(pool.path, "/health", "localhost", 5, 8, pool.pids)
    assert answers.pids == {answering}


def test_an_app_that_closes_its_connections_can_name_its_worker(pool: Pool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Worker-Pid: 4711\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    pool.fork(answer, keep_open=False)
    assert ask(pool.path, "/", "localhost", 5, 2, pool.pids).pids == {4711}


def test_a_bad_status_is_no_answer(pool: Pool) -> None:
    pool.fork(ANSWER.replace(b"200 OK", b"500 Oh"))
    answers = ask(pool.path, "/health", "localhost", 5, 2, pool.pids)
    assert (answers.statuses, answers.pids, answers.good) == ([500, 500], set(), False)


def test_silence_ends_at_the_time_limit(pool: Pool) -> None:
    began = time.monotonic()
    answers = ask(pool.path, "/health", "localhost", 0.2, 3, pool.pids)
    assert answers.statuses == [0, 0, 0]
    assert not answers.good
    assert time.monotonic() - began < 5, "one limit for all, not one each"


def test_a_socket_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    answers = ask(tmp_path / "none.sock", "/", "localhost", 1, 1)
    assert not answers.good
    assert "No such file" in answers.error


def test_connections_are_counted_until_they_close(pool: Pool) -> None:
    assert connections(pool.path) == 0
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.connect(str(pool.path))
    assert connections(pool.path) == 3, "clients in the queue count, too"
    for client in clients:
        client.close()
    for _ in clients:
        pool.listener.accept()[0].close()
    assert connections(pool.path) == 0


def test_children_are_workers_and_release_is_read_from_their_environment(pool: Pool) -> None:
    child = pool.fork()
    assert child in worker_pids(os.getpid(), DEFAULT)
    assert release_of(child) == os.environ.get("FLEET_RELEASE", "")
    assert release_of(2**30) == ""


@pytest.mark.parametrize(("status", "good"), [(199, False), (200, True), (399, True), (400, False), (503, False)])
def test_good_is_200_to_399(status: int, good: bool) -> None:
    assert is_good(status) is good
