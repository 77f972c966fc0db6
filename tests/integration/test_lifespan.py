"""The app's own shutdown runs in each worker, although streams and background tasks are open; with the real engines."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.module_utils.build.uv import Uv, UvError
from plugins.module_utils.workers.engines import ENGINES, Start

REPOSITORY = Path(__file__).parents[2]
WORKERS = 5
CONNECTIONS_MAX = 200

APP = """
import asyncio, os, time
def note(word):
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{word} {os.getpid()}\\n")
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        note("up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(0.3)
        note("down")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    stream = scope["path"] == "/stream"
    await send({"type": "http.response.body", "body": b"%d\\n" % os.getpid(), "more_body": stream})
    for _ in range(600):  # a stream that does not end, or a background task
        await asyncio.sleep(0.1)
        if stream:
            await send({"type": "http.response.body", "body": b".", "more_body": True})
"""

#: As systemd passes a socket.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what the engines need, as a release has it."""
    target = tmp_path_factory.mktemp("packages")
    lock = str(REPOSITORY / "roles/release/files/engine.txt")
    try:
        Uv().run("pip", "install", "--quiet", "--require-hashes", "--target", str(target), "-r", lock, cwd=target)
        # Starlette brings it to every app; own_worker.py counts its threads.
        Uv().run("pip", "install", "--quiet", "--target", str(target), "anyio", cwd=target)
    except UvError as error:
        pytest.skip(f"no package index is reachable: {str(error)[-200:]}")
    return target


@pytest.fixture
def server(request: pytest.FixtureRequest, packages: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run an engine as its unit does: on a socket that was made before."""
    name, options = request.param
    (tmp_path / "main.py").write_text(APP)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen(2048)
    start = Start(
        python=[sys.executable], app="main:app", attribute="main:app", workers=str(WORKERS), timeout="60", drain="1",
        classes=str(REPOSITORY / "plugins/module_utils/workers/server"), version=sys.version_info[:2], **options,
    )  # fmt: skip
    words = [word for group in ENGINES[name].command(start) for word in group]
    environment = {**os.environ, "PYTHONPATH": f"{packages}:{tmp_path}", "LOG": str(tmp_path / "log")}
    with subprocess.Popen(
        [sys.executable, "-c", HAND_OVER, str(listener.fileno()), *words],
        cwd=tmp_path,
        env=environment,
        pass_fds=[listener.fileno()],
    ) as process:
        yield process
        process.kill()


def workers(folder: Path, word: str) -> set[str]:
    """Return the process ids that the app noted with a word."""
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return {line.split()[1] for line in lines if line.split()[0] == word}


async def hold_all(folder: Path, path: str) -> list[asyncio.StreamWriter]:
    """Connect until each worker has a request; return the connections, which stay open."""
    held: list[asyncio.StreamWriter] = []
    seen: set[bytes] = set()
    while len(seen) < WORKERS:
        assert len(held) < CONNECTIONS_MAX, f"only {len(seen)} workers answer"
        reader, writer = await asyncio.open_unix_connection(str(folder / "socket"))
        held.append(writer)
        writer.write(b"GET %s HTTP/1.1\r\nHost: app\r\n\r\n" % path.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        await reader.readline()  # the chunk's length
        seen.add(await reader.readline())
        await asyncio.sleep(0.05)  # on a busy machine, a worker that is still starting would get none of them
    return held


async def stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End the server while each worker has a stream and a background task."""
    async with asyncio.timeout(120):
        while len(workers(folder, "up")) < WORKERS:
            await asyncio.sleep(0.1)
        held = [*await hold_all(folder, "/stream"), *await hold_all(folder, "/job")]
        process.terminate()
        while process.poll() is None:
            await asyncio.sleep(0.1)
        for writer in held:
            writer.close()


@pytest.mark.fault(67)
@pytest.mark.parametrize(
    "server",
    [
        ("gunicorn", {"even_bursts": True}),
        ("gunicorn", {"recycles": True}),
        ("gunicorn", {}),
        ("asgi", {}),
        ("uvicorn", {}),
    ],
    ids=["even", "retiring", "gunicorn", "asgi", "uvicorn"],
    indirect=True,
)
def test_shutdown_of_the_app_runs_in_each_worker(server: subprocess.Popen[bytes], tmp_path: Path) -> None:
    asyncio.run(stop(server, tmp_path))
    up, down = workers(tmp_path, "up"), workers(tmp_path, "down")
    assert len(up) == WORKERS
    assert down == up
