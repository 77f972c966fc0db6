"""An engine whose containers can have limits of CPU and memory."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import machine
from .definition import LabError
from .engine import Engine

#: Where the controllers are on a machine with the old hierarchies; the lab's own engine, on cgroup2, has none there.
_V1 = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_START_SECONDS, _STOP_SECONDS = 45, 60


def can_limit(engine: Engine) -> bool:
    """Say whether the engine's containers can have limits of both."""
    return engine.call("info", "--format", "{{.CPUCfsQuota}} {{.MemoryLimit}}") == "true true"


@contextlib.contextmanager
def limiting(engine: Engine) -> Iterator[Engine | None]:
    """Yield the engine where it can set limits, else a second one that can and ends here, else None."""
    if can_limit(engine):
        yield engine
    elif engine.own and all(Path(path).exists() for path in _V1):
        with _second() as other:
            yield other if can_limit(other) else None
    else:
        yield None


@contextlib.contextmanager
def _second() -> Iterator[Engine]:
    """Run an engine on the machine's own control groups, in a network of its own: nothing reaches out of it.

    In the machine's network it would take the first engine's bridge and rules for its own.
    """
    (machine.cache() / "engine").mkdir(parents=True, exist_ok=True)
    with (
        # A Unix socket's path holds 107 bytes.
        tempfile.TemporaryDirectory(prefix="fleet-", dir="/run", ignore_cleanup_errors=True) as run,
        tempfile.TemporaryDirectory(prefix="limits-", dir=machine.cache() / "engine") as data,
    ):
        argv = [
            "dockerd",
            f"--data-root={data}",
            f"--exec-root={run}/exec",
            f"--pidfile={run}/dockerd.pid",
            f"--host=unix://{run}/docker.sock",
            "--group=root",
        ]
        # It ends with this process, however that ends.
        script = f"ip link set lo up && exec setpriv --pdeathsig TERM {shlex.join(argv)}"
        engine = Engine(own=True, socket=Path(run, "docker.sock"))
        with Path(run, "log").open("wb") as log:
            process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        try:
            end = time.monotonic() + _START_SECONDS
            while not (Path(run, "docker.sock").exists() and engine.answers()):
                if process.poll() is not None or time.monotonic() > end:
                    text = Path(run, "log").read_text(errors="replace")
                    raise LabError(f"the engine for limits did not start; the end of its log:\n{machine.tail(text)}")
                time.sleep(0.1)
            yield engine
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            finally:
                process.kill()


def copy_image(tag: str, source: Engine, target: Engine) -> None:
    """Give another engine an image. LabError when that fails."""
    if source == target:
        return
    with subprocess.Popen(source.argv("save", tag), stdout=subprocess.PIPE, env=source.env()) as saved:
        done = subprocess.run(
            target.argv("load", "--quiet"), stdin=saved.stdout, capture_output=True, text=True, check=False,
            timeout=300, env=target.env(),
        )  # fmt: skip
    if saved.returncode or done.returncode:
        raise LabError(f"image {tag} could not be copied:\n{machine.tail(done.stderr)}")
