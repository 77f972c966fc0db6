"""This project's worker class with the sample app in a real gunicorn: nobody who is connected is lost."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

APP = Path(__file__).parents[1]
WORKER = APP.parent / "plugins/module_utils/workers/server"
SHORT = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
KEEP = SHORT.replace(b"Connection: close\r\n", b"")
LONG = SHORT.replace(b"/health", b"/serve/awaiting?seconds=3")


class Gunicorn:
    """Workers on a Unix socket, one by default. `patience` is their graceful timeout, in seconds."""

    def __init__(self, folder: Path, patience: int, beats: int = 60, workers: int = 1, **variables: str) -> None:
        self.path, self.link = folder / "app.sock", folder / "live.sock"
        self.link.symlink_to(self.path)
        words = f"--workers {workers} --graceful-timeout {patience} --timeout {beats} --keep-alive 75"
        words += f" --bind unix:{self.path} main:app"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                "-k",
                "own_worker.EvenWorker",
                "--pythonpath",
                WORKER,
                *words.split(),
            ],
            cwd=APP,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FLEET_LIVE_LINK": str(self.link), **variables},
        )

    def point(self, path: Path) -> None:
        """Move the link that the proxy connects through; the worker looks at it ten times a second."""
        new = self.link.with_suffix(".new")
        new.symlink_to(path)
        new.rename(self.link)
        time.sleep(0.5)

    def connect(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(30)
        end.connect(str(self.path))
        return end

    def ask(self) -> int:
        """Return the pid that answers; waits in the socket's queue where nobody accepts now."""
        with closing(self.connect()) as end:
            end.sendall(SHORT)
            return pid_in(whole(end))


def whole(end: socket.socket) -> bytes:
    """Return all that comes until the other end closes."""
    return b"".join(iter(lambda: end.recv(65536), b""))


def pid_in(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    return int(answer.lower().partition(b"x-worker-pid:")[2].split()[0])


def wait_until_open(server: Gunicorn) -> None:
    """Wait until the socket takes connections: its file is there a moment earlier, and refuses them until then."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return server.connect().close()
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def running(folder: Path, patience: int, beats: int = 60, workers: int = 1, **variables: str) -> Iterator[Gunicorn]:
    """Start gunicorn, and end it whatever happens."""
    made = Gunicorn(folder, patience, beats, workers, **variables)
    try:
        wait_until_open(made)
        yield made
    finally:
        made.process.terminate()
        made.process.wait(60)


@pytest.fixture(params=[(20, 60)], ids=["patient"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    with running(tmp_path, *request.param) as made:
        yield made


def test_who_is_connected_is_answered_by_the_worker_that_leaves_and_others_by_the_next(server: Gunicorn) -> None:
    old = server.ask()
    with closing(server.connect()) as silent, closing(server.connect()) as half, closing(server.connect()) as busy:
        half.sendall(SHORT[:20])
        busy.sendall(LONG)
        time.sleep(0.5)  # all three are accepted
        os.kill(old, signal.SIGWINCH)
        time.sleep(0.5)
        with closing(server.connect()) as late:
            late.sendall(SHORT)
            silent.sendall(SHORT)
            half.sendall(SHORT[20:])
            assert [pid_in(whole(end)) for end in (silent, half, busy)] == [old] * 3
            assert pid_in(whole(late)) != old
    assert not Path(f"/proc/{old}").exists()


@pytest.mark.parametrize("server", [(2, 60)], indirect=True, ids=["patience of 2 s"])
def test_who_says_nothing_keeps_no_worker_longer_than_the_graceful_timeout(server: Gunicorn) -> None:
    old = server.ask()
    with closing(server.connect()) as silent:
        time.sleep(0.5)
        os.kill(old, signal.SIGWINCH)
        time.sleep(0.5)
        assert server.ask() != old
        assert silent.recv(1) == b"", "closed"


@pytest.mark.parametrize("server", [(20, 3)], indirect=True, ids=["heartbeat of 3 s"])
def test_worker_that_leaves_is_not_taken_for_dead(server: Gunicorn) -> None:
    old = server.ask()
    with closing(server.connect()) as silent:
        time.sleep(0.5)
        os.kill(old, signal.SIGWINCH)
        time.sleep(6)
        silent.sendall(SHORT)
        assert pid_in(whole(silent)) == old


@pytest.mark.parametrize("server", [(20, 3)], indirect=True, ids=["heartbeat of 3 s"])
def test_worker_that_blocks_for_a_second_again_and_again_is_not_taken_for_dead(server: Gunicorn) -> None:
    old = server.ask()
    for _ in range(6):
        with closing(server.connect()) as end:
            end.sendall(SHORT.replace(b"/health", b"/serve/blocking?seconds=1"))
            assert pid_in(whole(end)) == old
        time.sleep(0.25)


def pool_of(pid: int) -> list[int]:
    """Return what a worker has noted of its thread pool: busy, all, waiting, for how many seconds."""
    files = [file for file in Path(f"/proc/{pid}/fd").iterdir() if "/wgunicorn-" in os.readlink(file)]
    return [int(word) for word in files[0].read_bytes().split()]


def test_worker_notes_how_long_its_thread_pool_is_full_and_is_not_taken_for_dead(tmp_path: Path) -> None:
    with running(tmp_path, 20, 3) as server:
        pid = server.ask()
        ends = [server.connect() for _ in range(60)]
        for end in ends:
            end.sendall(SHORT.replace(b"/health", b"/serve/threads?seconds=8"))
        deadline = time.monotonic() + 60
        while (noted := pool_of(pid))[3] < 3:
            assert time.monotonic() < deadline, noted
            time.sleep(0.1)
        assert noted[:3] == [40, 40, 20]
        assert server.ask() == pid, "an async health route answers all the while"
        for end in ends:
            assert pid_in(whole(end)) == pid
            end.close()
        while pool_of(pid) != [0, 40, 0, 0]:
            assert time.monotonic() < deadline, pool_of(pid)
            time.sleep(0.1)


@pytest.mark.parametrize("length", [0, 200_000])
def test_requests_in_one_go_and_bodies_in_pieces_are_answered_in_turn(server: Gunicorn, length: int) -> None:
    server.ask()
    body = b"x" * length
    post = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length
    with closing(server.connect()) as end:
        end.sendall(KEEP + KEEP + post + body[:1000])
        time.sleep(0.3)
        end.sendall(body[1000:] + SHORT)
        answer = whole(end)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert b'"bytes":%d' % length in answer


def parts(end: socket.socket, request: bytes = KEEP) -> bool:
    """Ask on a connection that is kept; return whether the answer says that it was the last one."""
    end.sendall(request)
    answer = b""
    while not answer.endswith(b"}"):
        answer += end.recv(65536)
    pid_in(answer)
    return b"\r\nconnection: close\r\n" in answer.lower()


def test_kept_connections_end_with_an_answer_while_the_link_names_another_slot(server: Gunicorn) -> None:
    with closing(server.connect()) as busy, closing(server.connect()) as idle:
        assert not any(parts(end) for end in (busy, busy, idle))
        server.point(server.path.with_name("other.sock"))
        assert not parts(busy, KEEP[:-2] + b"User-Agent: release-gate\r\n\r\n"), "this is how a gate sees who answers"
        assert parts(busy)
        assert busy.recv(1) == b"", "closed"
        # Only its other end knows whether a request is on its way here.
        time.sleep(1)
        server.point(server.path)
        assert not parts(idle), "it is asked again: the other slot was not well"
    with closing(server.connect()) as end:
        assert not any(parts(end) for _ in range(3))


def test_kept_connections_end_with_an_answer_when_their_worker_is_to_leave(server: Gunicorn) -> None:
    with closing(server.connect()) as end:
        assert not parts(end)
        old = server.ask()
        os.kill(old, signal.SIGWINCH)
        time.sleep(0.5)
        assert parts(end)
        assert end.recv(1) == b"", "closed"
    assert server.ask() != old


def test_without_a_link_to_look_at_connections_stay(server: Gunicorn) -> None:
    server.link.unlink()
    time.sleep(0.5)
    with closing(server.connect()) as end:
        assert not any(parts(end) for _ in range(2))


def worker_mib(folder: Path, **variables: str) -> float:
    """Return what a worker takes of the memory (PSS), the mean of three that have all answered."""
    folder.mkdir()
    with running(folder, 5, 60, 3, **variables) as server:
        pids: set[int] = set()
        deadline = time.monotonic() + 60
        while len(pids) < 3:
            assert time.monotonic() < deadline, pids
            pids.add(server.ask())
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rollups) / 3 / 1024


def test_workers_share_the_libraries_that_the_main_process_has_loaded(tmp_path: Path) -> None:
    shared, alone = worker_mib(tmp_path / "shared"), worker_mib(tmp_path / "alone", FLEET_PRELOAD="no")
    assert shared < 0.8 * alone, (shared, alone)


def test_where_gunicorn_itself_ends_tls_nothing_is_read_past_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even bursts begin with what a connection has brought as it comes, which would be ciphertext here."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with running(tmp_path, 5, GUNICORN_CMD_ARGS=f"--certfile={certificate} --keyfile={key}") as server:
        context = ssl.create_default_context(cafile=str(certificate))
        with context.wrap_socket(server.connect(), server_hostname="localhost") as end:
            end.sendall(SHORT)
            pid_in(whole(end))
    assert "service_even_bursts has no effect: it needs a proxy that ends TLS" in capfd.readouterr().err
