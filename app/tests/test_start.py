"""The sample app as its container starts it: real servers, two workers, ended by SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

APP = Path(__file__).parents[1]


def ask(address: str) -> int:
    """Return the pid that answers, 0 while nobody does."""
    try:
        pid: int = httpx2.get(f"{address}/health", timeout=5).json()["pid"]
    except httpx2.TransportError:
        return 0
    return pid


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def check_two_workers(command: list[str], port: int, **environment: str) -> list[str]:
    """Start, have each of two workers answer, end; return the first lines that it said."""
    process = subprocess.Popen(
        command,
        cwd=APP,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        said = [process.stdout.readline(), process.stdout.readline()]
        pids: set[int] = set()
        deadline = time.monotonic() + 60
        while len(pids - {0}) < 2 and time.monotonic() < deadline:
            pids.add(ask(f"http://127.0.0.1:{port}"))
            time.sleep(0.02)
        assert len(pids - {0}) == 2, "each worker answers"
        assert process.pid not in pids
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert ask(f"http://127.0.0.1:{port}") == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids - {0})
    finally:
        process.kill()
        process.communicate()
    return said


@pytest.mark.parametrize("engine", ["gunicorn", "asgi", "uvicorn"])
def test_container_serves_with_two_workers_and_sigterm_ends_them_cleanly(engine: str) -> None:
    port = free_port()
    environment = {"PYTHONPATH": str(APP.parent), "FLEET_ENGINE": engine, "FLEET_BIND": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "plugins.module_utils.worker_start", "main:app"]
    said = check_two_workers(command, port, WEB_CONCURRENCY="2", **environment)
    assert said[0].startswith("2 workers as set (the rule says ")


def test_script_dev_serves_with_two_workers_and_says_where() -> None:
    if not (APP.parent / ".venv/bin/uv").exists():
        pytest.skip("needs the project's environment: script/bootstrap")
    port = free_port()
    said = check_two_workers([str(APP.parent / "script/dev"), "--workers", "2", "--port", str(port)], port)
    assert said[0].startswith(f"http://127.0.0.1:{port}/ ")
    assert said[1].startswith("2 workers as set (the rule says ")
