"""Uvicorn's HTTP, which upgrades to nothing but a WebSocket. For containers, where no nginx of ours stands in front.

Uvicorn takes any Upgrade for the end of HTTP on a connection: the part of the body that came with the head is dropped,
the app is told that there is none, and what comes later is read as the next request (uvicorn's issue 2722). So a client
that offers HTTP/2 by `Upgrade: h2c` loses its body, and behind a proxy that passes Upgrade on, the body of one request
can become a request of its own. RFC 9110 (7.8) has a server ignore an upgrade that it does not take part in.

Here, what is not a WebSocket's opening handshake (RFC 6455, 4.2.1) is parsed once more, without its Upgrade. It costs
nothing where there is none.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker

#: Names, in lower case, that a request is parsed without once its upgrade is ignored.
OF_UPGRADES = {b"upgrade", b"http2-settings"}


class _Parser(httptools.HttpRequestParser):  # type: ignore[misc]
    """Goes on behind the head of a request whose upgrade is ignored."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn has it

    def feed_data(self, data: bytes) -> None:
        """Parse what has come; HttpParserUpgrade is raised for a WebSocket only."""
        parser = self
        while True:
            try:
                httptools.HttpRequestParser.feed_data(parser, data)
            except httptools.HttpParserUpgrade as upgrade:
                head = self._protocol.head_without_upgrade()
                if not head:
                    raise
                data = head + data[upgrade.args[0] :]
                # A new one: this one has seen the end of HTTP on its connection.
                parser = self._protocol.parser = _Parser(self._protocol)
            else:
                return


class Protocol(HttpToolsProtocol):  # type: ignore[misc]
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser: _Parser = _Parser(self)
        self._ignored = False

    def on_headers_complete(self) -> None:
        """Begin with the request, unless it has to be parsed again."""
        self._ignored = self.parser.should_upgrade() and not self._is_handshake()
        if not self._ignored:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Tell the app that the body is whole; there is no app yet for a request that has to be parsed again."""
        if not self._ignored:
            super().on_message_complete()

    def _is_handshake(self) -> bool:
        named = dict(self.headers)
        return bool(
            (self.parser.get_method(), self.parser.get_http_version()) == (b"GET", "1.1")
            and self._should_upgrade()
            and b"sec-websocket-key" in named
            and b"transfer-encoding" not in named
            and not named.get(b"content-length", b"").strip(b"0")
        )

    def head_without_upgrade(self) -> bytes:
        """Return the head of the request whose upgrade is ignored; nothing where there is none."""
        if not self._ignored:
            return b""
        if self.parser.get_method() == b"CONNECT":
            # To a parser it is an upgrade by itself. A server that is no proxy has nothing to connect to.
            raise httptools.HttpParserError("CONNECT")
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                kept = b", ".join(token for token in tokens if token.lower() not in OF_UPGRADES)
                lines.append(name + b": " + kept)
            elif name not in OF_UPGRADES:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])


class Worker(UvicornWorker):  # type: ignore[misc]
    """gunicorn's worker with it."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "http": Protocol,
        "loop": os.environ.get("FLEET_EVENT_LOOP") or "auto",
    }
