"""A Uvicorn worker that can leave without losing a request. Runs inside the app's own server, as the app's user.

On SIGTERM, Uvicorn closes connections that were accepted and not read yet. Here, SIGWINCH (which every other worker
ignores) has a worker stop accepting first, as its siblings share the socket, and leave when its last connection is
done, or the graceful timeout is over. Meanwhile it keeps its heartbeat, so that gunicorn does not take it for dead.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time

import fleet_preload  # noqa: F401 - for what it does
from gunicorn.arbiter import Arbiter
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker


class RetiringServer(Server):  # type: ignore[misc]
    """Uvicorn's server, and a way out for it: `patience` is how many seconds open connections have then."""

    def __init__(self, config: Config, patience: float) -> None:
        super().__init__(config)
        self._patience = patience
        self._leave_by: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as ever; only then there is something to retire from."""
        await super().startup(sockets=sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self.retire)

    def retire(self) -> None:
        """Accept nobody any more: who connects now waits for another worker. Who is connected stays."""
        if self._leave_by is None:
            self._leave_by = time.monotonic() + self._patience
            for server in self.servers:
                server.close()

    async def on_tick(self, counter: int) -> bool:
        """Leave once nobody is connected."""
        if self._leave_by is not None:
            over = time.monotonic() >= self._leave_by
            self.should_exit: bool = self.should_exit or over or not self.server_state.connections
        return bool(await super().on_tick(counter))


class RetiringWorker(UvicornWorker):  # type: ignore[misc]
    """gunicorn's side of it; as UvicornWorker but for the server."""

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = RetiringServer(self.config, self.cfg.graceful_timeout)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
