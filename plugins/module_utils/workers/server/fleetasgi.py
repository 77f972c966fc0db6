"""gunicorn's own asgi worker, with what the other engines do and it leaves out. Runs in the app's processes.

An app may pin a gunicorn of its own: where that one has changed inside, what is added here has no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from fleet_preload import patience
from gunicorn.workers.gasgi import ASGIWorker

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
SERVICE_RESTART = 1012  # RFC 6455's registry: the client may come back at once


class Worker(ASGIWorker):  # type: ignore[misc]
    """For a server behind nginx on a Unix socket."""

    asgi: Any

    def _setup_event_loop(self) -> None:
        """Keep the socket's queue as long as it was: asyncio would cut it to 100, and nginx answers 502 to the rest."""
        super()._setup_event_loop()
        self.loop.create_server = partial(self.loop.create_server, backlog=self.cfg.backlog)

    def load_wsgi(self) -> None:
        """Load the app."""
        super().load_wsgi()
        self._app = self.asgi
        self._websockets: set[Send] = set()
        self.asgi = self._serve_one

    async def _serve_one(self, scope: Message, receive: Receive, send: Send) -> None:
        """Tell the app who the client is, which nginx says and the socket does not; keep an eye on WebSockets."""
        if scope["type"] in ("http", "websocket") and not scope.get("client"):
            addresses = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            scope["client"] = (addresses[-1].decode("latin-1").strip(), 0) if addresses else None
        if scope["type"] == "websocket":
            self._websockets.add(send)
        try:
            await self._app(scope, receive, send)
        finally:
            self._websockets.discard(send)

    async def _shutdown(self) -> None:
        """Tell WebSockets that the service restarts; they would be cut off when the time to end is over."""
        closing = [send({"type": "websocket.close", "code": SERVICE_RESTART}) for send in self._websockets]
        closed = asyncio.gather(*closing, return_exceptions=True)
        # How long it waits for requests: until gunicorn kills it, nothing would be left for the app's own shutdown.
        self.cfg.set("graceful_timeout", patience(self.cfg.graceful_timeout))
        await super()._shutdown()
        closed.cancel()
