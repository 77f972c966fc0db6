"""Which workers a slot runs, and which of them answer: seen from outside, for any app."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..workers.engines import Engine, Process

PROC = Path("/proc")
#: A third of the weight of others, by the kernel's table: more would have a boot starve on a host that is full.
QUIET_NICE = 5
_CAP_SYS_NICE = 1 << 23

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
#: States in /proc/net/unix (linux/net.h): in the queue, not yet accepted by a worker; accepted.
_CONNECTING, _CONNECTED = "02", "03"


def worker_pids(main_pid: int, engine: Engine) -> list[int]:
    """Return the workers of a server, as its engine tells them from other children of its main process."""
    children = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything, so read from behind it: state, then parent.
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == main_pid and state != "Z":
            children.append(Process(int(folder.name), command))
    main = b""
    with contextlib.suppress(OSError):
        main = (PROC / str(main_pid) / "cmdline").read_bytes()
    return sorted(engine.workers(Process(main_pid, main), children))


def be_quiet(main_pid: int, quiet: bool) -> None:
    """Give a server and its workers less of the CPU than others get, or as much again.

    A release that boots takes all cores for some seconds; those who are served meanwhile are not to wait for it.
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        allowed = int((PROC / "self/status").read_text().partition("CapEff:")[2].split()[0], 16)
        # Only who can take it back may do it; and only to a group of processes that is the server's own.
        if allowed & _CAP_SYS_NICE and os.getpgid(main_pid) == main_pid:
            os.setpriority(os.PRIO_PGRP, main_pid, QUIET_NICE if quiet else 0)


def oldest_first(pids: Iterable[int]) -> list[int]:
    """Return processes in the order in which they were started; those that are gone are left out."""
    started = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            # Field 22, in clock ticks since boot: 20th behind the name.
            started[pid] = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    return sorted(started, key=lambda pid: (started[pid], pid))


def seconds_old(pid: int) -> float:
    """Return how long ago a process was started, in seconds by the clock that never jumps; 0 once it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        ticks = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
        return float((PROC / "uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return 0.0


def memory_mib(pid: int) -> float:
    """Return what a process takes of the memory, its part of shared pages counted in (PSS), in MiB; 0 once it is gone.

    PSS, not RSS: what forks share would be counted once for each of them.
    """
    return _rollup_mib(pid, "Pss:")


def anonymous_mib(pid: int) -> float:
    """Return what a process takes beside the files that it has mapped, in MiB, as if no fork shared it; 0 once gone."""
    return _rollup_mib(pid, "Anonymous:")


def _rollup_mib(pid: int, figure: str) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith(figure):
                return int(line.split()[1]) / 1024
    return 0.0


def release_of(pid: int) -> str:
    """Return the release that a process was started with, as its own environment says."""
    try:
        variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    values = [value for name, _, value in (v.partition(b"=") for v in variables) if name == b"FLEET_RELEASE"]
    return values[-1].decode() if values else ""


def connections(path: Path) -> int:
    """Return how many clients are connected to a Unix socket, those still in its queue included."""
    return len(_server_ends(path))


def is_idle(pid: int, path: Path) -> bool:
    """Return whether a worker serves no connection of this socket."""
    return not set(_server_ends(path)) & set(_socket_inodes(pid))


def _server_ends(path: Path) -> list[int]:
    """Return the inodes of a Unix socket's connections, as the server holds them; the client's end has no path."""
    rows = [line.split() for line in (PROC / "net/unix").read_text().splitlines()]
    # Columns 6, 7 and 8 are state, inode and path.
    return [int(row[6]) for row in rows if row[7:] == [str(path)] and row[5] in {_CONNECTING, _CONNECTED}]


@dataclass
class Answers:
    """What came back on a slot's private socket.

    statuses: the HTTP status of each request, 0 where there was no answer in time.
    pids: workers that answered a request with a good status.
    """

    statuses: list[int] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    error: str = ""

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


def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int] = ()) -> Answers:
    """Send `count` GET requests at once and say who answered.

    Who: the connections stay open until all have answered; the kernel (sock_diag) then names the inode
    at the other end of each, and the worker that has this inode among its files is the one. An app can
    also say it by itself, with a header X-Worker-Pid: for those that close their connections.
    """
    answers = Answers()
    with contextlib.ExitStack() as stack:
        sent: list[UnixConnection] = []
        for _ in range(count):
            connection = UnixConnection(path, host, timeout)
            stack.callback(connection.close)
            try:
                connection.request("GET", url, headers={"User-Agent": "release-gate"})
                sent.append(connection)
            except OSError as error:
                answers.statuses.append(0)
                answers.error = str(error)
        deadline = time.monotonic() + timeout
        answered: list[UnixConnection] = []
        for connection in sent:
            try:
                connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                answers.statuses.append(0)
                # Of what is no HTTP, the kind: the text would be the app's own words.
                said = str(error) if isinstance(error, OSError) else ""
                answers.error = said or type(error).__name__
                continue
            answers.statuses.append(response.status)
            if is_good(response.status):
                if connection.sock:
                    answered.append(connection)
                if (said := response.headers.get("X-Worker-Pid", "")).isdigit():
                    answers.pids.add(int(said))
        owners = _socket_owners(pids)
        peers = (_peer_inode(os.fstat(connection.sock.fileno()).st_ino) for connection in answered)
        answers.pids.update(owners[inode] for inode in peers if inode in owners)
    return answers


def _socket_owners(pids: Iterable[int]) -> dict[int, int]:
    """Map the inodes of the sockets that these processes hold to the process."""
    return {inode: pid for pid in pids for inode in _socket_inodes(pid)}


def _socket_inodes(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(entry)
                if target.startswith("socket:["):
                    yield int(target[8:-1])


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
