"""Fetch the parts of a release that a host lacks from a web server, into files that vanish with their process."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import os
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .unpack import Order, UnpackError, check_space, needs, unpack

CHUNK = 1 << 16  # bytes
MOST = 1 << 30  # bytes, of a response without Content-Length
STALL = 30.0  # seconds without a byte, after which a server counts as dead
SLOWEST = 20_000  # bytes per second on average, below which a fetch is given up: it would hold the deploy for ever
PAUSES = (1.0, 4.0)  # seconds before a second and a third try, of what may pass by itself
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_HINTS = {
    401: "The server wants a login: put it into {}, as in https://USER:PASSWORD@HOST/PATH",
    403: "The server refuses it: give access, or put a login into {}",
    404: "The file is not there",
}


class _TransientError(Exception):
    """What went wrong may go right a second later."""


@dataclass(frozen=True)
class Server:
    """Where to fetch from: `url` without a login, `login` as "USER:PASSWORD" or empty, the setting that names it.

    Times are in seconds, `slowest` is in bytes per second.
    """

    url: str
    login: str = ""
    setting: str = "release_url"
    stall: float = STALL
    slowest: float = SLOWEST
    pauses: tuple[float, ...] = PAUSES

    def address(self, name: str) -> str:
        """Return the URL of a part; what a message may show."""
        return f"{self.url.rstrip('/')}/{name}"


def part_name(app: str, sha256: str) -> str:
    """Return a part's name below release_url and release_publish: the same bytes always have the same name."""
    return f"{app}/{sha256}.tar.gz"


@contextlib.contextmanager
def fetched(order: Order, server: Server) -> Iterator[dict[str, Path]]:
    """Fetch what the host lacks of a release; give the files, by part. Raises UnpackError, then nothing was created.

    The files have no name: whatever ends this process, nothing of them stays.
    """
    parts = needs(order)
    with contextlib.ExitStack() as stack:
        files = {}
        if parts:
            check_space(order, parts, extra=sum(order.artifact[f"{part}_size"] for part in parts))
            stack.callback(os.umask, os.umask(0o022))
            folder = order.folder.parent
            folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            out = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            _fetch_part(order, part, server, out)
            files[part] = Path(f"/proc/self/fd/{out.fileno()}")
        yield files


def pull(order: Order, server: Server) -> bool:
    """Fetch and unpack a release; return whether anything was lacking. Raises UnpackError."""
    if not server.url.startswith(("http://", "https://")):
        raise UnpackError(f"release_url is {server.url}, which is neither http:// nor https://. Nothing was changed.")
    for _unused in range(2):
        with fetched(order, server) as files:
            if not unpack(order, files):
                return bool(files)
    raise UnpackError(f"Somebody removes releases from {order.root} at this moment. Deploy again when that is done.")


def _fetch_part(order: Order, part: str, server: Server, out: IO[bytes]) -> None:
    """Fetch one part. That its bytes are right is checked once more by `unpack`."""
    sha256, size = order.artifact[f"{part}_sha256"], order.artifact[f"{part}_size"]
    address = server.address(part_name(order.app, sha256))
    try:
        digest = download(address, size, server, out)
    except ValueError as error:
        raise _refusal(order, part, address, str(error)) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise UnpackError(f"{order.root} is full: {error}. Nothing was changed. Make room.") from error
        raise
    if digest != sha256:
        reason = f"its bytes are other ones (sha256 {digest[:12]}…) than were built"
        raise _refusal(order, part, address, reason)


def _refusal(order: Order, part: str, address: str, reason: str) -> UnpackError:
    """Say what could not be fetched, why, and what to do."""
    built = order.artifact.get(f"{part}_path", "what was built")
    return UnpackError(
        f"The {part} part of {order.app} {order.release} could not be fetched from {address}: {reason}. No release "
        f"was created. What must be there is {built} of the controller: upload it, "
        "or set release_publish to the folder that the server serves; or empty release_url, to send it over SSH."
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other servers, but never takes the login there."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request."""
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new and new.type not in {"http", "https"}:
            raise ValueError(f"it is redirected to {new.type}, not to http or https")
        if new and (new.type, new.host) == (req.type, req.host) and req.has_header("Authorization"):
            new.add_unredirected_header("Authorization", str(req.get_header("Authorization")))
        return new


def download(address: str, size: int, server: Server, out: IO[bytes]) -> str:
    """Write what a URL serves, with more tries where they may help; return its SHA-256.

    `size` are the bytes that it must have, 0 where that is not known. Raises ValueError with the reason, OSError when
    the disk takes no more.
    """
    for pause in (*server.pauses, None):
        out.seek(0)
        out.truncate()
        try:
            digest = _download(address, size, server, out)
        except _TransientError as error:
            if pause is None:
                raise ValueError(str(error)) from error
            time.sleep(pause)
        else:
            break
    out.flush()
    return digest


def _download(address: str, size: int, server: Server, out: IO[bytes]) -> str:
    """Do what `download` does, once; raise _TransientError where another try may help.

    A thread talks to the server and this one looks at the clock: so one limit holds for the name's look-up, connection,
    TLS, redirects, headers and body together. A socket's timeout begins anew with each byte, and SIGALRM is Ansible's.
    A thread that is given up goes with the process, which has nothing left to do by then.
    """
    most = 2 * server.stall + (size or MOST) / server.slowest  # one silence is told as such
    transfer = _Transfer(address, size, server, out)
    thread = threading.Thread(target=transfer.run, daemon=True)
    thread.start()
    thread.join(most)
    transfer.late = thread.is_alive()
    if transfer.late:
        raise ValueError(f"it took longer than {most:.0f} s, in which {transfer.got} of {size or 'its'} bytes came")
    if transfer.error:
        raise transfer.error
    return transfer.digest.hexdigest()


class _Transfer:
    """One try. `error` is what ended it; `late` tells it that nobody waits any more."""

    def __init__(self, address: str, size: int, server: Server, out: IO[bytes]) -> None:
        self.address, self.size, self.server, self.out = address, size, server, out
        self.got, self.digest, self.late = 0, hashlib.sha256(), False
        self.error: Exception | None = None

    def run(self) -> None:
        """Fetch it."""
        try:
            self.fetch()
        except Exception as error:  # raised again in the thread that waits
            self.error = error

    def fetch(self) -> None:
        """Write what the URL serves. Raises ValueError, _TransientError, and OSError when the disk takes no more."""
        headers = {"User-Agent": "fastapi-fleet", "Accept-Encoding": "identity"}
        request = urllib.request.Request(self.address, headers=headers)  # noqa: S310 (`pull` lets only http(s) through)
        if self.server.login:
            # Unredirected: urllib would send an ordinary header to whatever server the first one names.
            login = base64.b64encode(urllib.parse.unquote(self.server.login).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {login}")
        most = self.size or MOST
        with _reasons(self.server):
            answer = urllib.request.build_opener(_Redirects).open(request, timeout=self.server.stall)
        with answer:
            while not self.late:
                with _reasons(self.server):
                    chunk = answer.read1(CHUNK)
                if not chunk or self.late:
                    break
                self.got += len(chunk)
                if self.got > most:
                    raise ValueError(f"it is longer than {most} bytes")
                self.digest.update(chunk)
                self.out.write(chunk)
        if self.got < self.size:
            raise _TransientError(f"only {self.got} of {self.size} bytes came")


@contextlib.contextmanager
def _reasons(server: Server) -> Iterator[None]:
    """Turn what a connection can raise into words."""
    silent = f"the server sent nothing for {server.stall:g} s"
    try:
        yield
    except urllib.error.HTTPError as error:
        message = f"the server answers {error.code} {error.reason}"
        if error.code in _TRANSIENT:
            raise _TransientError(message) from error
        raise ValueError(
            f"{message}. {_HINTS.get(error.code, 'Its log may say why').format(server.setting)}"
        ) from error
    except (TimeoutError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        # A silent server keeps silent: waiting for it twice more would only take three times as long.
        message = silent if isinstance(reason, TimeoutError) else f"the server cannot be reached ({reason})"
        raise (ValueError if message == silent else _TransientError)(message) from error
    except (http.client.HTTPException, OSError) as error:
        raise _TransientError(f"the connection broke ({type(error).__name__})") from error
