"""Which workers a server runs: seen from outside, for any app."""

from __future__ import annotations

from ..workers.engines import Engine, Process
from . import proc


def worker_pids(main_pid: int, engine: Engine) -> list[int]:
    """Return the workers of a server, as its engine tells them from other children of its main process."""
    children = [Process(pid, command) for pid in proc.children(main_pid) if (command := proc.command(pid))]
    return sorted(engine.workers(Process(main_pid, proc.command(main_pid)), children))
