"""The load of `APP-release tune`: so many requests at a time on a slot's own socket, for some seconds.

Run as a program of its own, with its settings as JSON on the command line; prints what it saw as JSON. It asks as nginx
does: HTTP/1.1, a new connection for each request, closed by the app. A closed loop: where one request has ended, the
next begins, so the slot always has `connections` of them; how many it answers in a second is what is measured.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from http import HTTPStatus
from itertools import cycle, islice
from math import gcd
from pathlib import Path
from typing import Any

PROC = Path("/proc")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_TICKS = os.sysconf("SC_CLK_TCK")


def order(load: Sequence[tuple[str, int]]) -> list[str]:
    """Return paths in the order in which to ask for them, each as often as its weight says, evenly mixed."""
    least = reduce(gcd, (weight for _unused, weight in load))
    weights = {path: weight // least for path, weight in load}
    total, due, sequence = sum(weights.values()), dict.fromkeys(weights, 0), []
    for _unused in range(total):
        # Smooth weighted round robin, as nginx chooses among servers.
        due = {path: due[path] + weight for path, weight in weights.items()}
        path = max(due, key=lambda name: due[name])
        due[path] -= total
        sequence.append(path)
    return sequence


def status_of(answer: bytes) -> int:
    """Return the HTTP status of an answer; 0 where it is none, or was cut off."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end or not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
        return 0
    length = _LENGTH.search(head)
    if (length and len(body) < int(length[1])) or (_CHUNKED.search(head) and not body.endswith(b"0\r\n\r\n")):
        return 0
    return int(head[9:12])


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used so far, all their threads counted in."""
    total = 0
    for pid in pids:
        try:
            words = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(words[11]) + int(words[12])  # utime and stime, see proc(5)
    return total / _TICKS


class Loop:
    """The requests that are under way, by file descriptor: connection, time of start, what has come of the answer."""

    def __init__(self, path: str, requests: Iterator[bytes]) -> None:
        self.path, self.requests = path, requests
        self.poll = select.epoll()
        self.open: dict[int, tuple[socket.socket, float, bytearray]] = {}

    def begin(self) -> bool:
        """Send one request; False where the socket takes none."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self.path)
            connection.send(next(self.requests))
        except OSError:
            connection.close()
            return False
        self.poll.register(connection.fileno(), select.EPOLLIN)
        self.open[connection.fileno()] = connection, time.monotonic(), bytearray()
        return True

    def ended(self, seconds: float) -> Iterator[tuple[int, float]]:
        """Wait for answers; return the status of each request that has ended, and the seconds that it took."""
        for descriptor, _unused in self.poll.poll(seconds):
            connection, began, answer = self.open[descriptor]
            try:
                while part := connection.recv(1 << 16):
                    answer += part
            except BlockingIOError:
                continue
            except OSError:
                answer.clear()
            del self.open[descriptor]
            connection.close()
            yield status_of(bytes(answer)), time.monotonic() - began


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Send the load; return what was answered between `warm` and `warm` + `seconds` seconds from now.

    Once no new requests are sent, those that have begun have `drain` seconds to end; they do not count. Result: `bad`
    (how often each status that is not 200 to 399 came; 0 is no whole answer), `took` (seconds of each good one), `cpu`
    (seconds that the processes `pids` used meanwhile), `own` (this program's share of one CPU).
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in settings["headers"].items())
    asked = [f"GET {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode() for path in order(settings["load"])]
    loop = Loop(settings["socket"], islice(cycle(asked), settings.get("skip", 0) % len(asked), None))
    begin = time.monotonic() + settings["warm"]
    end = begin + settings["seconds"]
    bad: dict[int, int] = {}
    took: list[float] = []
    before, own = None, 0.0
    while (now := time.monotonic()) < end:
        if before is None and now >= begin:
            begin, before, own = now, cpu_seconds(settings["pids"]), time.process_time()
        while len(loop.open) < settings["connections"]:
            if not loop.begin():
                bad[0] = bad.get(0, 0) + 1
                time.sleep(0.01)
                break
        for status, seconds in loop.ended(min(0.05, max(0.0, end - now))):
            if HTTPStatus.OK <= status < HTTPStatus.BAD_REQUEST:
                if before is not None:
                    took.append(seconds)
            else:
                bad[status] = bad.get(status, 0) + 1
    seconds = time.monotonic() - begin
    figures = {
        "bad": bad, "took": took, "seconds": seconds,
        "cpu": cpu_seconds(settings["pids"]) - (before or 0.0), "own": (time.process_time() - own) / seconds,
    }  # fmt: skip
    while loop.open and time.monotonic() < end + settings["drain"]:
        list(loop.ended(0.05))
    return figures


if __name__ == "__main__":
    json.dump(run(json.loads(sys.argv[1])), sys.stdout)
