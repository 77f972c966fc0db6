"""Uvicorn workers of this project. They run inside the app's own server, as the app's user.

RetiringWorker can leave without losing a request. On SIGTERM, Uvicorn closes connections that were accepted and not
read yet. Here, SIGWINCH (which every other worker ignores) has a worker stop accepting first, as its siblings share the
socket, and leave when its last connection is done, or the graceful timeout is over. Meanwhile it keeps its heartbeat,
so that gunicorn does not take it for dead.

Whoever keeps connections to it (nginx with proxy_keepalive) is told to open a new one with each answer, once the worker
retires or traffic has moved to the other slot. The link that nginx connects through says so: no signal has to arrive,
and going back needs nothing undone. Idle connections are left to the proxy to close: it alone knows that it has not
just sent a request on one.

EvenWorker can do that, too, and begins with a connection's request before it looks for the next connection. Uvicorn's
event loop goes round three times in between, and each time may take one more from the shared socket: where a request
blocks the loop, the next one then waits behind it, while other workers have nothing to do.

Both write down with each heartbeat how many threads of the pool for `def` routes are busy, how many there are, how many
requests wait for one, and for how long that has been so (host/proc.py reads it). A health route that is `async`
answers all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import fleet_preload
from gunicorn.arbiter import Arbiter
from uvicorn.config import Config
from uvicorn.server import Server

READ_BYTES = 65536
BEAT_SECONDS = 1.0
#: A note of the thread pool; always as long, so that none is mixed with the one before.
NOTE_BYTES = 64
#: The link that names the live slot's socket; only where connections are kept.
LIVE_LINK = os.environ.get("FLEET_LIVE_LINK", "")
#: The host's command sees by the connections that it keeps which worker has answered (host/workers.py).
GATE = (b"user-agent", b"release-gate")
Message = MutableMapping[str, Any]
#: How long a worker that has nothing else to do waits for the request of who has just connected. A proxy on the same
#: host sends it at once.
WAIT_MS = 1
#: asyncio.Task's, since Python 3.12.
EAGER: dict[str, Any] = {"eager_start": True}


class CloseConnections:
    """ASGI middleware: adds `Connection: close` to every response while `draining` is set."""

    def __init__(self, app: Callable[[Message, Any, Any], Awaitable[None]]) -> None:
        self.app = app
        self.draining = False

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        """Serve one request or WebSocket."""
        if self.draining and scope["type"] == "http" and GATE not in scope["headers"]:
            send = partial(self._say, send)
        await self.app(scope, receive, send)

    @staticmethod
    async def _say(send: Callable[[Message], Awaitable[None]], message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)


class RetiringServer(Server):  # type: ignore[misc]
    """Uvicorn's server that can retire: `patience` is how many seconds open connections have then.

    `config` is loaded. `beats`: descriptor of the file whose time is the worker's sign of life.
    """

    def __init__(self, config: Config, patience: float, beats: int = -1) -> None:
        super().__init__(config)
        self._beats, self._full_since = beats, 0.0
        self._app = config.loaded_app = CloseConnections(config.loaded_app)
        self._own = ""
        self._beat = 0.0
        self._patience = patience
        self._leave_by: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as ever; only then there is something to retire from."""
        await super().startup(sockets=sockets)
        self._own = sockets[0].getsockname() if sockets else ""
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self.retire)

    def _moved(self) -> bool:
        """Whether another slot gets the traffic."""
        try:
            return bool(LIVE_LINK) and os.readlink(LIVE_LINK) != self._own
        except OSError:
            return False

    def retire(self) -> None:
        """Stop accepting: new connections wait for another worker, open connections are kept."""
        if self._leave_by is None:
            self._leave_by = time.monotonic() + self._patience
            for server in self.servers:
                server.close()

    async def on_tick(self, counter: int) -> bool:
        """Drain once traffic has moved; exit, where asked to, once no connection is open. Called ten times a second."""
        self._app.draining = self._leave_by is not None or self._moved()
        # Uvicorn looks whether it is time for a sign of life at each tenth tick only. In a worker that blocks for a
        # second now and then, ten of them may take longer than gunicorn waits.
        if self.config.callback_notify and time.monotonic() > self._beat + BEAT_SECONDS:
            self._beat = time.monotonic()
            self._note_pool()  # before the sign of life: to write sets another time
            await self.config.callback_notify()
        if self._leave_by is not None:
            over = time.monotonic() >= self._leave_by
            self.should_exit: bool = self.should_exit or over or not self.server_state.connections
        return bool(await super().on_tick(counter))

    def _note_pool(self) -> None:
        """Write down how full the thread pool is: busy, all, waiting, for how many seconds."""
        with contextlib.suppress(Exception):  # whatever becomes of it, the worker serves on
            # Only what the app has loaded itself: one without Starlette may have no such pool, and no anyio.
            pool = sys.modules["anyio.to_thread"].current_default_thread_limiter().statistics()
            is_full = pool.tasks_waiting > 0 and pool.borrowed_tokens >= pool.total_tokens
            self._full_since = (self._full_since or self._beat) if is_full else 0.0
            seconds = self._beat - self._full_since if is_full else 0.0
            text = f"{pool.borrowed_tokens:.0f} {pool.total_tokens:.0f} {pool.tasks_waiting} {seconds:.0f}\n"
            os.pwrite(self._beats, text.encode().ljust(NOTE_BYTES), 0)


class RetiringWorker(fleet_preload.UvicornWorker):
    """gunicorn's side of it; as UvicornWorker but for the server."""

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.load()
        self.adapt()
        patience = fleet_preload.patience(self.cfg.graceful_timeout)
        server = RetiringServer(self.config, patience, self.tmp.fileno())
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def adapt(self) -> None:
        """Change what Uvicorn has just loaded."""


def at_once(protocol: type[Any]) -> type[Any]:
    """Return an HTTP protocol of Uvicorn's that begins with a request as soon as it is there."""

    class AtOnce(protocol):  # type: ignore[misc]
        _reading = False
        _begun: tuple[Any, Any] | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            end = transport.get_extra_info("socket").fileno()
            with contextlib.suppress(BlockingIOError, ConnectionError):
                # The loop reads only once it has looked for new connections again; nothing was read yet.
                if data := self._first(end):
                    self.data_received(data)

        def _first(self, end: int) -> bytes:
            try:
                return os.read(end, READ_BYTES)
            except BlockingIOError:
                poll = select.poll()
                poll.register(end, select.POLLIN)
                idle = not self.tasks and len(self.connections) == 1
                return os.read(end, READ_BYTES) if idle and poll.poll(WAIT_MS) else b""

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            if self._reading:
                self._begun = cycle, app
            else:  # one that was sent before the answer to the one before it was there
                super()._start_asgi_task(cycle, app)

        def data_received(self, data: bytes) -> None:
            self._reading = True
            super().data_received(data)
            self._reading = False
            if self._begun:
                (cycle, app), self._begun = self._begun, None
                # It runs here until it waits for something; with all of the request that has come so far.
                task = asyncio.Task(cycle.run_asgi(app), loop=self.loop, **EAGER)
                if not task.done():
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)

    return AtOnce


class EvenWorker(RetiringWorker):
    """A worker that begins with a request before it takes the next one."""

    def adapt(self) -> None:
        """Give it the protocol that does so, where that is possible."""
        protocol = self.config.http_protocol_class
        missing = "" if hasattr(protocol, "_start_asgi_task") else "httptools, and an Uvicorn as new as this project's"
        if sys.version_info < (3, 12):
            missing = "Python 3.12 or newer"
        if self.cfg.is_ssl:
            missing = "a proxy that ends TLS: what comes here is not to be read past it"
        if missing:
            self.log.warning("service_even_bursts has no effect: it needs %s", missing)
        else:
            self.config.http_protocol_class = at_once(protocol)
