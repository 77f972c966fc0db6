"""What is asked, over which connections, and whether the answer is right. Nothing is ever asked twice."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from bench.load.settings import Settings, target

CHUNK = 16 * 1024  # bytes per piece of the sample app's /download
FOREVER = 1e6  # seconds; a kept connection is for the server to close


class Lost(aiohttp.ClientError):
    """The connection broke under a request. Its cause is aiohttp's own error."""


class AnswerError(Exception):
    """An answer came, or was not asked for, and it is not a right one: the reason, then a detail."""


@dataclass
class Answer:
    """What is known of an answer so far; an answer that breaks off has said who it is from before."""

    status: int = 0
    release: str = ""
    worker: int = 0
    body: bytes = b""

    def read(self, response: aiohttp.ClientResponse) -> None:
        """Take what the headers say."""
        self.status, self.release = response.status, response.headers.get("X-Release", "")
        worker = response.headers.get("X-Worker-Pid", "")
        self.worker = int(worker) if worker.isdecimal() else 0


@dataclass(frozen=True)
class Ask:
    """How one kind of request is made, and what is wrong with its answer (raises AnswerError)."""

    method: str
    path: str
    check: Callable[[Answer, bytes], None]  # the answer, and the body that was posted
    keep: bool = False


async def ask_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:  # a client middleware
    """Keep aiohttp from asking again: after these two errors it would, silently, on a kept connection."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # nothing was connected; aiohttp does not repeat that
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Lost(str(error)) from error


class Client:
    """A client that has at most one connection at a time when it keeps it, as a browser's tab has."""

    def __init__(self, settings: Settings, keep: bool, *more: aiohttp.ClientMiddlewareType) -> None:
        self.keep = keep
        self.opened = 0  # connections made
        self.reconnected = 0  # of these, in place of one that the server closed while it was idle
        self.kept = False  # a connection should be there: the last answer was whole and did not say "close"
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(self._opening)
        if keep:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=FOREVER)
        else:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
            middlewares=(*more, ask_once),
            headers={"Host": settings.host_header} if settings.host_header else None,
            auto_decompress=False,
        )

    async def _opening(self, *_: object) -> None:
        self.opened += 1
        self.reconnected += self.kept
        self.kept = False

    async def ask(self, method: str, url: str, body: bytes | None, answer: Answer) -> None:
        """Ask, and fill in the answer as it comes. Raises what aiohttp raises, and Lost."""
        headers = {} if self.keep else {"Connection": "close"}
        request = self.session.request(method, url, data=body, headers=headers, allow_redirects=False)
        try:
            async with request as response:
                answer.read(response)
                answer.body = await response.read()
                self.kept = self.keep and response.headers.get("Connection", "").lower() != "close"
        except BaseException:
            self.kept = False  # aiohttp closes a connection on which anything went wrong
            raise


class Traffic:
    """All connections of a load, and the kinds of requests that go over them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        address, port = target(settings.url)
        self.root = f"http://{f'[{address}]' if ':' in address else address}:{port}"
        self.kinds = kinds(settings)
        self.open = settings.websockets  # connections in use, and kept ones
        self.filler = b"x" * settings.body_bytes

    async def __aenter__(self) -> Self:
        self.once = Client(self.settings, keep=False)
        self.keepers: list[Client] = []
        self.idle: deque[Client] = deque()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await client.session.close()

    @property
    def clients(self) -> list[Client]:
        """Every client that was made."""
        return [self.once, *self.keepers]

    async def ask(self, kind: str, number: int, answer: Answer) -> None:
        """Make one request. Raises AnswerError for an answer that is not right, else what went wrong."""
        how = self.kinds[kind]
        body = None
        if how.method == "POST":  # each body is another one: an answer meant for somebody else is noticed
            body = (b"%d " % number + self.filler)[: self.settings.body_bytes]
        client = self._take(how.keep)
        try:
            await client.ask(how.method, self.root + how.path, body, answer)
        finally:
            self._give_back(client)
        if answer.status != 200:  # noqa: PLR2004
            raise AnswerError(f"status {answer.status}", answer.body[:200])
        how.check(answer, body or b"")

    def _take(self, keep: bool) -> Client:
        """Return a client that is free. Kept ones come in turn, so that each is idle for a while."""
        if keep and self.idle and len(self.keepers) >= self.settings.connections:
            return self.idle.popleft()
        if self.open >= self.settings.max_open:
            if keep and self.idle:
                return self.idle.popleft()
            raise AnswerError("not sent: too many connections are open", b"")
        self.open += 1
        if not keep:
            return self.once
        self.keepers.append(Client(self.settings, keep=True))
        return self.keepers[-1]

    def _give_back(self, client: Client) -> None:
        if client.keep:
            self.idle.append(client)
        else:
            self.open -= 1


def kinds(settings: Settings) -> dict[str, Ask]:
    """Return how each kind of request is made with these settings."""

    def get(answer: Answer, _: bytes) -> None:
        if not settings.any_body:
            signed(answer)

    def echo(answer: Answer, body: bytes) -> None:
        said = signed(answer)
        if (said.get("bytes"), said.get("sha256")) != (len(body), hashlib.sha256(body).hexdigest()):
            raise AnswerError("wrong body", answer.body[:200])

    def long(answer: Answer, _: bytes) -> None:
        if not signed(answer).get("seconds", -1) >= settings.long_seconds * 0.99:
            raise AnswerError("wrong body", answer.body[:200])

    whole = b"".join(bytes([number]) * CHUNK for number in range(settings.download_chunks))

    def download(answer: Answer, _: bytes) -> None:
        if answer.body != whole:
            raise AnswerError("wrong body", b"%d bytes" % len(answer.body))

    slowly = f"chunks={settings.download_chunks}&pause={settings.download_pause:g}"
    return {
        "get-new": Ask("GET", settings.get_path, get),
        "get-keep": Ask("GET", settings.get_path, get, keep=True),
        "post-new": Ask("POST", "/echo", echo),
        "post-keep": Ask("POST", "/echo", echo, keep=True),
        "long": Ask("GET", f"/serve/awaiting?seconds={settings.long_seconds:g}", long),
        "download": Ask("GET", f"/download?{slowly}", download),
    }


def signed(answer: Answer) -> dict[str, Any]:
    """Return a JSON body in which the same worker and release name themselves as in the headers."""
    try:
        said = json.loads(answer.body)
        if (said["pid"], said["release"]) == (answer.worker, answer.release):
            return dict(said)
    except (ValueError, TypeError, KeyError):
        pass
    raise AnswerError("wrong body", answer.body[:200])


def reason(error: BaseException) -> tuple[str, str]:
    """Return why a request failed, in few words that can be counted, and the detail."""
    if isinstance(error, AnswerError):
        return error.args[0], error.args[1].decode(errors="backslashreplace")
    if isinstance(error, Lost) and error.__cause__:
        error = error.__cause__
    detail = f"{type(error).__name__}: {error}"[:300]
    number = getattr(error, "errno", None)
    known: list[tuple[bool, str]] = [
        (isinstance(error, asyncio.CancelledError), "unfinished"),
        (isinstance(error, TimeoutError), "timeout"),
        (number == errno.ECONNREFUSED, "connection refused"),
        (isinstance(error, aiohttp.ClientConnectorError), f"no connection: {errno.errorcode.get(number or 0, '?')}"),
        (isinstance(error, aiohttp.ClientPayloadError), "cut short"),
        (isinstance(error, aiohttp.ServerDisconnectedError), "closed without an answer"),
        (isinstance(error, ConnectionError) or number in (errno.ECONNRESET, errno.EPIPE), "reset"),
        (isinstance(error, aiohttp.ClientResponseError), "not an HTTP answer"),
    ]
    return next((name for true, name in known if true), f"other: {type(error).__name__}"), detail
