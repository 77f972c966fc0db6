"""`uvicorn --workers N`, without gunicorn."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Engine, Process, Start


class Uvicorn(Engine):
    """Uvicorn's own process manager."""

    name = "uvicorn"
    unit_type = "exec"  # it tells systemd nothing
    least_workers = 2  # of one, its main process makes no worker: it serves by itself
    packages = ("uvicorn", "uvloop", "httptools", "websockets", "h11")
    death = r"Child process \[\d+\] died"
    lacks = frozenset({"service_worker_memory_max_mib", "proxy_keepalive"})

    def command(self, start: Start) -> list[list[str]]:
        """As the base class says. 3 is the descriptor of the socket that systemd passes."""
        host, _unused, port = start.bind.rpartition(":")
        return [
            # On a host, a program of ours, which lets packages' .pth files count.
            [*start.python, *([f"{start.classes}/fleet_uvicorn.py"] if start.classes else ["-m", "uvicorn"])],
            ["--workers", start.workers],
            *([["--loop", start.loop]] if start.loop != "auto" else []),
            *([["--host", host.strip("[]"), "--port", port]] if start.bind else [["--fd", "3"]]),
            ["--timeout-worker-healthcheck", start.timeout],
            *([["--timeout-graceful-shutdown", start.drain]] if start.drain else []),
            *([] if start.bind else [["--forwarded-allow-ips", "*"], ["--no-access-log"]]),
            *([["--http", f"{start.http}:Protocol"]] if start.http else []),
            [start.attribute],  # it calls what makes the app by itself
        ]

    def workers(self, main: Process, children: Sequence[Process]) -> list[int]:
        """Leave out multiprocessing's resource tracker; with one worker, the main process itself serves."""
        found = [child.pid for child in children if b"resource_tracker" not in child.command]
        return found or [main.pid] * (b"\0--workers\0001\0" in main.command)

    def may_end(self, workers: Sequence[int]) -> set[int]:
        """Return all: it ends the last of its list, where one that died is replaced at its place."""
        return set(workers)


ENGINE: Engine = Uvicorn()
