"""The sample app as its container starts it: real servers, two workers, ended by SIGTERM."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

APP = Path(__file__).parents[1]


def ask(address: str, path: str = "/health") -> int:
    """Return the pid that answers, 0 while nobody does."""
    try:
        pid: int = httpx2.get(f"{address}{path}", timeout=5).json()["pid"]
    except httpx2.TransportError:
        return 0
    return pid


def release(address: str) -> str:
    """Return the release that answers, "" while none does."""
    try:
        return httpx2.get(f"{address}/health", timeout=5).headers["X-Release"]
    except httpx2.TransportError:
        return ""


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
    command = [sys.executable, "-m", "plugins.module_utils.workers.start", "main:app"]
    said = check_two_workers(command, port, WEB_CONCURRENCY="2", **environment)
    assert said[0].startswith("2 workers as set (the rule says ")


def children(pid: int) -> set[int]:
    """Return the processes below one, all the way down."""
    found: set[int] = set()
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in path.read_text().split():
            found |= {int(child)} | children(int(child))
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what script/dev needs, to change files in."""
    project = APP.parent
    if not (project / ".venv/bin/uv").exists():
        pytest.skip("needs the project's environment: script/bootstrap")
    if not Path("/proc/self/task").is_dir():
        pytest.skip("looks for processes in /proc")
    (tmp_path / ".venv").symlink_to(project / ".venv")
    for folder in ("app", "script", "plugins/module_utils"):
        shutil.copytree(project / folder, tmp_path / folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    return tmp_path


@contextlib.contextmanager
def script_dev(checkout: Path, port: int, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start it as a terminal does, in a process group of its own; Ctrl-C it in the end, and nothing is left."""
    process = subprocess.Popen(
        [str(checkout / "script/dev"), *options, "--port", str(port)],
        env={name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "WEB_CONCURRENCY")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    below: set[int] = set()
    try:
        assert process.stdout
        said = [process.stdout.readline(), process.stdout.readline()]
        yield process, said
        below = children(process.pid)
        assert below
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        deadline = time.monotonic() + 30
        while alive(below) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(below), "Ctrl-C ends all of them"
        assert ask(f"http://127.0.0.1:{port}") == 0
    finally:
        for pid in alive({process.pid} | below):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def test_script_dev_serves_with_four_workers_until_ctrl_c(checkout: Path) -> None:
    port = free_port()
    with script_dev(checkout, port, "--workers", "4") as (process, said):
        assert said[0].startswith(f"http://127.0.0.1:{port}/ ")
        assert said[1].startswith("4 workers as set (the rule says ")
        pids: set[int] = set()
        deadline = time.monotonic() + 60
        while len(pids - {0}) < 4 and time.monotonic() < deadline:
            # One at a time, most land in the same worker: several at once, which hold theirs for a moment.
            with ThreadPoolExecutor(8) as pool:
                pids |= set(
                    pool.map(lambda _: ask(f"http://127.0.0.1:{port}", "/serve/blocking?seconds=0.1"), range(8))
                )
        assert len(pids - {0}) == 4, "each worker answers"
        assert pids - {0} <= children(process.pid)


def test_script_dev_with_reload_takes_up_a_change_until_ctrl_c(checkout: Path) -> None:
    port = free_port()
    with script_dev(checkout, port, "--reload") as (_, said):
        assert said[1] == "uvicorn main:app --reload\n"
        deadline = time.monotonic() + 60
        while not (before := ask(f"http://127.0.0.1:{port}")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert before
        main = checkout / "app/main.py"
        main.write_text(
            main.read_text().replace('RELEASE = os.environ.get("FLEET_RELEASE") or "dev"', 'RELEASE = "new"')
        )
        while release(f"http://127.0.0.1:{port}") != "new" and time.monotonic() < deadline + 60:
            time.sleep(0.1)
        assert release(f"http://127.0.0.1:{port}") == "new"
        assert ask(f"http://127.0.0.1:{port}") != before, "a new process serves"


def test_script_dev_refuses_what_does_not_go_together(checkout: Path) -> None:
    done = subprocess.run(
        [str(checkout / "script/dev"), "--reload", "--workers", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--reload runs one process; leave out --workers" in done.stderr
