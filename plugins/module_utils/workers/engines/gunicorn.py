"""gunicorn with Uvicorn's workers: what most FastAPI apps run with."""

from __future__ import annotations

from typing import ClassVar

from .base import SHUTDOWN_SECONDS, Engine, Start


class Gunicorn(Engine):
    """gunicorn, with a worker class of ours where a setting needs one."""

    name = "gunicorn"
    packages: ClassVar[tuple[str, ...]] = (
        "uvicorn-worker",
        "gunicorn",
        "uvicorn",
        "uvloop",
        "httptools",
        "websockets",
        "h11",
    )

    def worker_class(self, start: Start) -> str:
        """Return the worker class; all but Uvicorn's own are in server/ or http.py."""
        if start.http:
            return f"{start.http}.Worker"
        if start.even_bursts and start.version >= (3, 12):
            return "own_worker.EvenWorker"
        if start.recycles or start.keepalive:
            return "own_worker.RetiringWorker"
        # On a host it is Uvicorn's own but for one thing: it ends its requests in time for the app's shutdown.
        return "fleet_preload.UvicornWorker" if start.classes else "uvicorn_worker.UvicornWorker"

    def command(self, start: Start) -> list[list[str]]:
        """As the base class says. Gunicorn takes the socket that systemd passes by itself."""
        return [
            [*start.python, "-m", "gunicorn", "-k", self.worker_class(start)],
            *([["--pythonpath", start.classes]] if start.classes else []),
            *([["--bind", start.bind]] if start.bind else []),
            *self.own_options(start),
            ["--workers", start.workers],
            ["--timeout", start.timeout],
            *([["--graceful-timeout", str(int(start.drain) + SHUTDOWN_SECONDS)]] if start.drain else []),
            *([["--worker-tmp-dir", start.shared_memory]] if start.shared_memory else []),
            *([["--keep-alive", "75"]] if start.keepalive else []),
            # nginx alone reaches the socket, and overwrites the client's own headers.
            *([] if start.bind else [["--forwarded-allow-ips", "*"]]),
            ["--no-control-socket"],
            [start.app],
        ]

    def own_options(self, start: Start) -> list[list[str]]:  # noqa: ARG002
        """Return the options that only this engine has."""
        return []


ENGINE: Engine = Gunicorn()
