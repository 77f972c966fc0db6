"""Send cases to a host, then compare line by line what its app wrote down with what nginx logged."""

from __future__ import annotations

import base64
import collections
import contextlib
import hashlib
import json
import re
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .corpus import Case

LOG = "/var/log/nginx/judge.log"
CONFIGURATION = "/etc/nginx/conf.d/zz-judge.conf"
#: A log of the tests' own beside nginx's: what it passed on, to whom, for whom.
FIELDS = {
    "method": "request_method", "target": "request_uri", "host": "host", "port": "http_host", "client": "remote_addr",
    "upstream": "upstream_addr", "status": "status", "server": "server_name",
}  # fmt: skip
_JSON = ",".join(f'"{name}":"${variable}"' for name, variable in FIELDS.items())
LOG_FORMAT = f"log_format judge escape=json '{{{_JSON}}}';\naccess_log {LOG} judge;\n"
PATIENCE = 20.0  # seconds for the answer to a request that is whole, on a machine that has other things to do
IMPATIENCE = 1.0  # seconds for one that may never be answered
PAUSE = 0.002  # seconds between two writes
SENDERS = 48  # most of them wait for an answer that will not come


@dataclass(frozen=True)
class Answer:
    """What came back of a case: the statuses in their order."""

    case: Case
    statuses: tuple[int, ...]


def send(address: str, case: Case, port: int = 80) -> Answer:
    """Send one case over a connection of its own, and read what comes back."""
    received = b""
    with socket.create_connection((address, port), timeout=PATIENCE) as end, contextlib.suppress(OSError):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, data in enumerate(case.writes):
            if number:
                time.sleep(PAUSE)
            end.sendall(data)
        end.settimeout(PATIENCE if case.served else IMPATIENCE)
        only_head = case.writes[0].startswith(b"HEAD ")
        while not whole(received, only_head) and (data := end.recv(65536)):
            received += data
        end.settimeout(0.1)
        while data := end.recv(65536):
            received += data
    # 100 Continue is no answer yet.
    return Answer(case, tuple(map(int, re.findall(rb"HTTP/1\.1 ([2-5][0-9]{2}) ", received))))


def whole(received: bytes, only_head: bool) -> bool:
    """Return whether one answer is there as a whole; one to HEAD ends with its head."""
    received = re.sub(rb"^HTTP/1\.1 100 [^\r]*\r\n\r\n", b"", received)
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return bool(end) and (only_head or length is None or len(body) >= int(length[1]))


def send_all(address: str, cases: Iterable[Case], port: int = 80) -> list[Answer]:
    """Send cases, several at a time."""
    with ThreadPoolExecutor(SENDERS) as pool:
        return list(pool.map(lambda case: send(address, case, port), cases))


@dataclass(frozen=True)
class Seen:
    """What the app wrote down and what nginx logged of one server name."""

    records: list[dict[str, Any]]
    passed: list[dict[str, Any]]


def begin(host: Any) -> None:
    """Have nginx log what the judge reads; return once every worker that takes connections does so."""
    host.check_output("printf %%s %s > %s", LOG_FORMAT, CONFIGURATION)
    before = workers(host)
    host.check_output("nginx -t && systemctl reload nginx")
    # The signal is sent, no more: until the new workers are there the old ones answer, and log nothing of it.
    deadline = time.monotonic() + PATIENCE
    while not (now := workers(host)) or now & before:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nginx's workers {sorted(now & before)} still take connections")
        time.sleep(0.1)


def workers(host: Any) -> set[str]:
    """Return the process ids of nginx's workers but for those that shut down, which take no connections any more."""
    return set(host.run("pgrep --full '^nginx: worker process$'").stdout.split())


def read(host: Any, app: str, server: str) -> Seen:
    """Read both from a host, once nothing is under way any more: nginx logs a request when it has ended."""
    wait_until_quiet(host, [LOG, f"/var/lib/{app}/seen.jsonl"])
    records = lines_of(host, f"/var/lib/{app}/seen.jsonl")
    logged = [line for line in lines_of(host, LOG) if line["server"] == server]
    return Seen(records, [line for line in logged if line["upstream"]])


def wait_until_quiet(host: Any, paths: list[str]) -> None:
    """Wait until nginx has no connection of a client's and the files have not grown for a second."""
    deadline = time.monotonic() + PATIENCE
    before = ""
    while time.monotonic() < deadline:
        open_ones = host.check_output("ss --no-header --tcp state established state close-wait '( sport = :80 )'")
        sizes = host.check_output("stat --format=%%s %s %s", *paths)
        if not open_ones and sizes == before:
            return
        before = sizes
        time.sleep(1)


def lines_of(host: Any, path: str) -> list[dict[str, Any]]:
    """Return a file's lines, each an object; bytes that are no text are kept."""
    # Not as text: nginx logs some bytes as they came.
    return parse(base64.b64decode(host.check_output("base64 --wrap=0 %s", path)))


def parse(text: bytes) -> list[dict[str, Any]]:
    """Return the objects of which each line is one."""
    return [json.loads(line.decode("latin-1"), strict=False) for line in text.split(b"\n") if line]


def identity(line: dict[str, Any]) -> tuple[str, str]:
    """Return by what a record and a line of the log are the same request; no client's `#` reaches a server."""
    return line["method"], line["target"].partition("#")[0]


def host_of(record: dict[str, Any]) -> list[str]:
    """Return the Host headers that the app got."""
    return [value for name, value in record["headers"] if name == "host"]


def judge(seen: Seen, cases: Iterable[Case]) -> list[str]:
    """Return what is wrong, each with the case: requests that nginx did not log, lost bodies, made-up clients."""
    wrong: list[str] = []
    by_target = {case.target: case for case in cases}
    passed = collections.Counter(map(identity, seen.passed))
    lines = {identity(line): line for line in seen.passed}
    got = collections.Counter(map(identity, seen.records))
    wrong += [f"nginx did not log {key}: {got[key]} seen, {passed[key]} logged" for key in got - passed]
    wrong += [f"the app did not see {key}" for key in (passed - got) if lines[key]["status"] == "200"]
    for record in seen.records:
        if line := lines.get(identity(record)):
            wrong += compare(record, line)
    return wrong + judge_records(seen.records, by_target)


def compare(record: dict[str, Any], line: dict[str, Any]) -> list[str]:
    """Return where the app and nginx saw another client or another Host in one request."""
    port = re.search(r":[0-9]{1,5}$", line["port"])
    pairs = {
        "client": (record["client"], line["client"]),
        "Host": (host_of(record), [line["host"] + (port[0] if port else "")]),
    }
    return [
        f"{identity(record)}: the app saw the {what} {seen}, nginx {logged}"
        for what, (seen, logged) in pairs.items()
        if seen != logged
    ]


def judge_records(records: list[dict[str, Any]], by_target: dict[str, Case]) -> list[str]:
    """Return which cases lost a part of their body, or reached the app, or did not, against what they ask for."""
    wrong: list[str] = []
    there = {record["target"].partition("#")[0].partition("?")[0]: record for record in records}
    for target, case in by_target.items():
        record = there.get(target)
        if record is None:
            wrong += [f"{case.name}: did not reach the app"] if case.served else []
        elif case.refused:
            wrong.append(f"{case.name}: reached the app")
        elif case.body is not None and record["sha256"] != hashlib.sha256(case.body).hexdigest():
            wrong.append(f"{case.name}: {record['bytes']} of {len(case.body)} bytes arrived")
    return wrong
