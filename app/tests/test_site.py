"""What the app finds in its process: packages' .pth files, `exit`, and the event loop that is asked for."""

import os
import site
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from plugins.module_utils.workers.engines import ENGINES, Start

SERVER = Path(__file__).parents[2] / "plugins/module_utils/workers/server"
MAIN = """
import asyncio, builtins, os, sys, beside
print("imported", hasattr(builtins, "exit"), flush=True)
import nest_asyncio_like

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    loop = type(asyncio.get_running_loop()).__module__
    text = f"{os.environ.get('BY_PTH')} {hasattr(builtins, 'exit')} {loop} {sys.flags.no_site}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Return a folder as a release is: `lib` with a .pth file that runs code, and one that names a folder."""
    for folder in ("app", "lib/further", "site"):
        (tmp_path / folder).mkdir(parents=True)
    for path in Path(site.getsitepackages()[0]).iterdir():
        (tmp_path / "lib" / path.name).symlink_to(path)
    (tmp_path / "lib/code.pth").write_text("import os; os.environ['BY_PTH'] = 'executed'\n")
    (tmp_path / "lib/folder.pth").write_text("further\n")
    (tmp_path / "lib/further/beside.py").touch()
    (tmp_path / "site/nest_asyncio_like.py").touch()
    (tmp_path / "app/main.py").write_text(MAIN)
    return tmp_path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def answer(release: Path, engine: str, loop: str, workers: int = 2) -> list[str]:
    """Start a server as a host does, but for the port; return what the app says of its process."""
    port = free_port()
    start = Start(
        python=[sys.executable, "-S"], app="main:app", attribute="main:app", workers=str(workers), timeout="60",
        bind=f"127.0.0.1:{port}", classes=str(SERVER), loop=loop,
    )  # fmt: skip
    words = [word for group in ENGINES[engine].command(start) for word in group]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(str(release / folder) for folder in ("app", "site", "lib")),
        "FLEET_EVENT_LOOP": loop,
    }
    process = subprocess.Popen(words, cwd=release / "app", env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                return httpx2.get(f"http://127.0.0.1:{port}/", timeout=5).text.split()
            except httpx2.TransportError:
                time.sleep(0.05)
        raise AssertionError(process.communicate()[1] if process.poll() is not None else "no answer")
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize(
    ("loop", "module"), [("auto", "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio.unix_events")]
)
def test_event_loop_is_the_one_that_is_asked_for_and_packages_are_as_after_a_start(
    release: Path, engine: str, loop: str, module: str
) -> None:
    """With -S, so without what the distribution has; libraries that patch asyncio's loop refuse uvloop's."""
    assert answer(release, engine, loop) == ["executed", "True", module, "1"]


def test_uvicorn_with_one_worker_serves_in_its_main_process(release: Path) -> None:
    assert answer(release, "uvicorn", "asyncio", 1) == ["executed", "True", "asyncio.unix_events", "1"]
