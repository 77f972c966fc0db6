"""An app that writes down what it was asked, as it saw it: the judge of what a proxy lets through.

One line of JSON for each request in `$STATE_DIRECTORY/seen.jsonl`, once its body is whole or its client is gone. Plain
ASGI, so that no framework's idea of a request comes between. What it answers is the record itself, so that a client can
tell whose answer it got.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

FILE = Path(os.environ.get("STATE_DIRECTORY", "/tmp"), "seen.jsonl")  # noqa: S108 (only where no unit runs it)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Where a health check asks: not written down.
HEALTH = "/health"


def text(value: bytes) -> str:
    """Return bytes as JSON can have them, none lost."""
    return value.decode("latin-1")


def write(record: Message) -> None:
    """Append one line, in one write: workers share the file."""
    handle = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, (json.dumps(record) + "\n").encode())
    finally:
        os.close(handle)


def seen(scope: Message) -> dict[str, Any]:
    """Return what a request says of itself and of its client."""
    query = scope["query_string"]
    return {
        "kind": scope["type"],
        "method": scope.get("method", "GET"),
        "target": text((scope.get("raw_path") or scope["path"].encode()) + (b"?" + query if query else b"")),
        "client": (scope.get("client") or [None])[0],
        "scheme": scope["scheme"],
        "headers": [[text(name), text(value)] for name, value in scope["headers"]],
    }


async def http(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole body, write the record down, answer with it."""
    record = seen(scope)
    size, digest, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        size += len(message.get("body", b""))
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    record |= {"bytes": size, "sha256": digest.hexdigest(), "whole": not more}
    if record["target"] != HEALTH:
        write(record)
    body = json.dumps(record).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def websocket(scope: Message, receive: Receive, send: Send) -> None:
    """Send every text back until the client hangs up. One whose path says so is turned away."""
    write(seen(scope) | {"bytes": 0, "sha256": "", "whole": True})
    await receive()
    if scope["path"].endswith("/refused"):
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or ""})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await (websocket if scope["type"] == "websocket" else http)(scope, receive, send)
