"""A customer service counter: each worker process is a person at the counter.

The four ``/serve`` endpoints take the same time and differ only in what the worker can do meanwhile.
That decides how many customers one worker serves at once, and so how many workers an app needs.
``/`` is a page to see it. The rest, from ``/health`` to ``/ws``, is what a deployment is tested with.
"""

import asyncio
import hashlib
import os
import re
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RELEASE = os.environ.get("FLEET_RELEASE") or "dev"
PAGE = Path(__file__).with_name("index.html").read_text(encoding="utf-8")
CHUNK = 16 * 1024  # bytes per piece of /download
FORWARDED = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
    "x-real-ip",
)  # fmt: skip


def stamp() -> dict[str, str]:
    """Say who answers. The pid is read each time: workers of a preloaded app are forks of one import."""
    return {"X-Worker-Pid": str(os.getpid()), "X-Release": RELEASE}


class Stamp:
    """Put the stamp on every response and WebSocket handshake. Plain ASGI: streams pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers where its response starts."""

        async def stamped(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                headers = MutableHeaders(scope=message)
                headers.update(stamp())
            await send(message)

        await self.app(scope, receive, stamped)


app = FastAPI(title="The counter", version=RELEASE)
app.add_middleware(Stamp)


@app.exception_handler(Exception)
async def failed(_request: Request, _error: Exception) -> JSONResponse:
    """Stamp crashes too: Starlette makes this response outside of all middleware."""
    return JSONResponse({"detail": "Internal Server Error"}, status_code=500, headers=stamp())


# --- Four ways to serve a customer ----------------------------------------------------------------

Seconds = Annotated[float, Query(ge=0, le=10, description="how long one customer takes")]
Units = Annotated[int, Query(ge=1, le=100, description="amount of work; one unit is about 20 ms of one core")]


class Served(BaseModel):
    """Who served a customer, and when: epoch seconds, and how long by the clock that never jumps."""

    pid: int
    host: str
    release: str
    kind: str
    started: float
    finished: float
    seconds: float


class Visit:
    """One customer at the counter, from now until ``done``."""

    def __init__(self, kind: str) -> None:
        self.kind, self.started, self.clock = kind, time.time(), time.monotonic()

    def done(self) -> Served:
        """Close the visit and say who served it."""
        return Served(
            pid=os.getpid(),
            host=socket.gethostname(),
            release=RELEASE,
            kind=self.kind,
            started=self.started,
            finished=time.time(),
            seconds=time.monotonic() - self.clock,
        )


@app.get("/serve/blocking")
async def serve_blocking(seconds: Seconds = 2.0) -> Served:
    """Block the event loop. The mistake to see: this worker serves nobody else until it is done."""
    visit = Visit("blocking")
    time.sleep(seconds)
    return visit.done()


@app.get("/serve/threads")
def serve_threads(seconds: Seconds = 2.0) -> Served:
    """Block a thread. FastAPI runs a plain ``def`` in a pool of 40 threads per worker."""
    visit = Visit("threads")
    time.sleep(seconds)
    return visit.done()


@app.get("/serve/cpu")
def serve_cpu(units: Units = 10) -> Served:
    """Compute. The threads of one worker share one interpreter, so only more workers use more cores."""
    visit = Visit("cpu")
    for _unused in range(units):
        sum(number * number for number in range(250_000))
    return visit.done()


@app.get("/serve/awaiting")
async def serve_awaiting(seconds: Seconds = 2.0) -> Served:
    """Wait without holding anybody up: one worker does this for thousands at once."""
    visit = Visit("awaiting")
    await asyncio.sleep(seconds)
    return visit.done()


# --- What a deployment is tested with -------------------------------------------------------------


@app.get("/health")
async def health() -> dict[str, str | int]:
    """Answer when this worker can serve. The deploy tool asks here before it lets traffic in."""
    return {"status": "ok", "pid": os.getpid(), "release": RELEASE}


@app.get("/whoami")
async def whoami(request: Request) -> dict[str, str | dict[str, str] | None]:
    """Show the caller as the app sees it through its proxies. A repeated header is joined by commas."""
    seen = {name: ", ".join(request.headers.getlist(name)) for name in FORWARDED if name in request.headers}
    return {
        "client": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "host": request.headers.get("host"),
        "forwarded": seen,
    }


@app.post("/echo")
async def echo(request: Request) -> dict[str, str | int]:
    """Count and digest a body as it comes in, in constant memory."""
    size, digest = 0, hashlib.sha256()
    async for part in request.stream():
        size += len(part)
        digest.update(part)
    return {"pid": os.getpid(), "release": RELEASE, "bytes": size, "sha256": digest.hexdigest()}


@app.get("/download")
async def download(
    chunks: Annotated[int, Query(ge=1, le=100)] = 20,
    pause: Annotated[float, Query(ge=0, le=1, description="seconds per chunk")] = 0.1,
) -> StreamingResponse:
    """Send 16 KiB at a time, slowly. The length is announced: a client notices a download cut short."""

    async def parts() -> AsyncIterator[bytes]:
        for number in range(chunks):
            await asyncio.sleep(pause)
            yield bytes([number]) * CHUNK

    headers = {"content-length": str(chunks * CHUNK)}
    return StreamingResponse(parts(), media_type="application/octet-stream", headers=headers)


@app.websocket("/ws")
async def websocket_echo(websocket: WebSocket) -> None:
    """Send every text back until the client hangs up."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


# --- The page -------------------------------------------------------------------------------------


def content_policy(page: str) -> str:
    """Allow exactly the page's own style and script, by their hashes, and requests to this origin."""

    def sources(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; style-src {sources('style')}; script-src {sources('script')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


PAGE_HEADERS = {
    "content-security-policy": content_policy(PAGE),
    "cache-control": "no-cache",  # a new release is seen at once
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@app.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """Show the counter."""
    return HTMLResponse(PAGE, headers=PAGE_HEADERS)
