"""Unix sockets: HTTP over one, who answered, and who is connected."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import proc

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
#: States in /proc/net/unix (linux/net.h): in the queue, not yet accepted by a worker; accepted.
_CONNECTING, _CONNECTED = "02", "03"


def connections(path: Path) -> int:
    """Return how many clients are connected to a Unix socket, those still in its queue included."""
    return len(_server_ends(path))


def is_idle(pid: int, path: Path) -> bool:
    """Return whether a worker serves no connection of this socket."""
    return not set(_server_ends(path)) & proc.socket_inodes(pid)


def _server_ends(path: Path) -> list[int]:
    """Return the inodes of a Unix socket's connections, as the server holds them; the client's end has no path."""
    rows = [line.split() for line in (proc.PROC / "net/unix").read_text().splitlines()]
    # Columns 6, 7 and 8 are state, inode and path.
    return [int(row[6]) for row in rows if row[7:] == [str(path)] and row[5] in {_CONNECTING, _CONNECTED}]


@dataclass
class Answers:
    """What came back on a slot's private socket.

    statuses: the HTTP status of each request, 0 where there was no answer in time.
    pids: workers that answered a request with a good status. refused: those that answered with another one, and which.
    said: what the first of those answers had in it, where that is a text for people; whole, as a mask finds no half of
    a secret, and not yet masked.
    """

    statuses: list[int] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    error: str = ""
    refused: dict[int, int] = field(default_factory=dict)
    said: str = ""

    def note(self, pid: int, status: int) -> None:
        """Note which worker gave an answer."""
        if is_good(status):
            self.pids.add(pid)
        else:
            self.refused[pid] = status

    @property
    def bad(self) -> list[int]:
        """The statuses that are not good, each once; where there was no answer, there is none."""
        return sorted({status for status in self.statuses if status and not is_good(status)})

    @property
    def good(self) -> bool:
        """Whether there was an answer and every answer was good."""
        return bool(self.statuses) and all(map(is_good, self.statuses))


def is_good(status: int) -> bool:
    """Return whether a status says that the app is well: 200 to 399."""
    return http.HTTPStatus.OK <= status < http.HTTPStatus.BAD_REQUEST


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, host: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket's path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


#: Bytes of a bad answer from which on it is no text for people.
BODY_SIZE = 64 << 10
#: A worker that the kernel lets wait on a busy machine is no dead slot: so often is one asked of which that is to be
#: said.
TRIES = 3


def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int] = ()) -> Answers:
    """Send `count` GET requests at once and say who answered.

    Who: the connections stay open until all have answered; the kernel (sock_diag) then names the inode
    at the other end of each, and the worker that has this inode among its files is the one. An app can
    also say it by itself, with a header X-Worker-Pid: for those that close their connections.
    """
    answers = Answers()
    with contextlib.ExitStack() as stack:
        sent: list[UnixConnection] = []
        for _unused in range(count):
            connection = UnixConnection(path, host, timeout)
            stack.callback(connection.close)
            try:
                connection.request("GET", url, headers={"User-Agent": "release-gate"})
                sent.append(connection)
            except OSError as error:
                answers.statuses.append(0)
                answers.error = str(error)
        deadline = time.monotonic() + timeout
        answered: list[tuple[UnixConnection, int]] = []
        for connection in sent:
            try:
                connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                answers.statuses.append(0)
                # Of what is no HTTP, the kind: the text would be the app's own words.
                text = str(error) if isinstance(error, OSError) else ""
                answers.error = text or type(error).__name__
                continue
            answers.statuses.append(response.status)
            if not is_good(response.status):
                answers.said = answers.said or _words(response, body)
            if connection.sock:
                answered.append((connection, response.status))
            if (pid := response.headers.get("X-Worker-Pid", "")).isdigit():
                answers.note(int(pid), response.status)
        owners = {inode: pid for pid in pids for inode in proc.socket_inodes(pid)}
        for connection, status in answered if owners else ():
            peer = _peer_inode(os.fstat(connection.sock.fileno()).st_ino)
            if peer in owners:
                answers.note(owners[peer], status)
    return answers


def _words(response: http.client.HTTPResponse, body: bytes) -> str:
    """Return what an answer says: a text or JSON; "" where it is long, or says no more than its status does."""
    kind = response.headers.get_content_type()
    if kind not in ("text/plain", "application/json", "application/problem+json") or len(body) > BODY_SIZE:
        return ""
    text = body.decode("utf-8", "replace").strip()
    return "" if text in ("", "null", "{}", response.reason) else text


def _peer_inode(inode: int) -> int:
    """Return the inode at the other end of a Unix connection, 0 where the kernel does not tell."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, _UDIAG_SHOW_PEER, *[0xFFFFFFFF] * 2)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
            link.settimeout(1)
            link.send(header + request)
            data = link.recv(4096)
    except OSError:
        return 0
    length, kind = struct.unpack_from("=IH", data)
    offset = 32  # behind nlmsghdr and unix_diag_msg
    while kind == _SOCK_DIAG_BY_FAMILY and offset + 8 <= length:
        size, attribute = struct.unpack_from("=HH", data, offset)
        if attribute == _UNIX_DIAG_PEER:
            return int(struct.unpack_from("=I", data, offset + 4)[0])
        offset += (max(size, 4) + 3) & ~3
    return 0
