"""WebSockets that are held open: a text each second, which has to come back, and how each of them ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

import aiohttp

from bench.load.report import WebSocketSession
from bench.load.settings import Settings
from bench.load.traffic import Answer, Client, reason

PAUSE = 1.0  # seconds between two texts, and before the next handshake after one that failed
CLOSE_WITHIN = 5.0  # seconds for the server's own close frame, after the client's
ECHO_WITHIN = 10.0  # seconds in which a text has to come back
NORMAL = (1000, 1001, 1012)  # close codes by which a server says: done, going away, restarting
BROKEN_OFF = 1006  # what RFC 6455 calls an end without a close frame
NO_CODE = 1005  # and a close frame without a code

Record = Callable[[WebSocketSession, str], None]  # the session and a detail


class Session:
    """One WebSocket, from handshake to end."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.sent = 0
        self.echoed = 0
        self.pending: deque[tuple[str, float]] = deque()  # texts that have not come back, and when they were sent
        self.closed_by, self.code = "", BROKEN_OFF
        self.reason = self.detail = ""

    async def run(self, name: str, over: asyncio.Event) -> None:
        """Send and compare until the server closes or the run is over."""
        reader = asyncio.create_task(self._read())
        waiter = asyncio.create_task(over.wait())
        try:
            while not reader.done() and not over.is_set() and not self.reason:
                text = f"{name} {self.sent}"
                self.pending.append((text, time.monotonic()))
                self.sent += 1
                await self.socket.send_str(text)
                await asyncio.wait({reader, waiter}, timeout=PAUSE, return_when=asyncio.FIRST_COMPLETED)
                self._check_pending()
            while self.pending and not reader.done() and not self.reason:
                await asyncio.wait({reader}, timeout=0.05)
                self._check_pending()
        except ConnectionError as error:  # the socket closed as a text was sent; the reader knows how
            self.detail = str(error)
        finally:
            waiter.cancel()
            if not reader.done() or self.reason:
                self.closed_by, self.code = "client", aiohttp.WSCloseCode.OK.value
            await self.socket.close()
            await reader

    def _check_pending(self) -> None:
        if self.pending and time.monotonic() - self.pending[0][1] > ECHO_WITHIN:
            self.reason = "no echo"

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                if not self.pending or message.data != self.pending.popleft()[0]:
                    self.reason, self.detail = "wrong echo", repr(message.data)[:200]
                    return
                self.echoed += 1
                continue
            # aiohttp's own close_code says 1000 for a connection that just broke off; the message tells them apart.
            if message.type is aiohttp.WSMsgType.CLOSE:
                self.closed_by, self.code, self.detail = "server", message.data or NO_CODE, str(message.extra or "")
            elif self.closed_by != "client":
                self.detail = repr(message.data or self.socket.exception())
            return

    def verdict(self) -> str:
        """Return why this session failed, or nothing where it lost nothing and whoever closed it said so."""
        if self.reason:
            return self.reason
        if not self.closed_by:
            return "broke off"
        if self.code not in NORMAL:
            return f"closed with {self.code}"
        return f"no echo before it was closed with {self.code}" if self.pending else ""


async def hold(settings: Settings, url: str, name: str, over: asyncio.Event, record: Record) -> None:
    """Hold a WebSocket open until the run is over, a new one whenever it ends. Each of them is recorded."""
    while not over.is_set():
        failed = await _once(settings, url, name, over, record)
        if failed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), PAUSE)


async def _once(settings: Settings, url: str, name: str, over: asyncio.Event, record: Record) -> bool:
    """Connect, hold and record one WebSocket; return whether it failed."""
    answer = Answer()

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)  # the socket does not show the handshake's headers
        answer.read(response)
        return response

    began, opened = time.monotonic(), 0.0
    client = Client(settings, True, note)
    session: Session | None = None
    why = detail = ""
    try:
        socket = await client.session.ws_connect(url, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_WITHIN))
        opened = time.monotonic()
        session = Session(socket)
        await session.run(name, over)
        why, detail = session.verdict(), session.detail
    except aiohttp.WSServerHandshakeError as error:
        why, detail = f"status {error.status}", str(error)
    except (asyncio.CancelledError, Exception) as error:  # cancelled only when the grace time is over
        why, detail = reason(error)
    finally:
        await client.session.close()
    counts = (session.sent, session.echoed, session.closed_by, session.code) if session else (0, 0, "", BROKEN_OFF)
    record(WebSocketSession(began, opened, time.monotonic(), answer.release, answer.worker, *counts, why), detail)
    return bool(why)
