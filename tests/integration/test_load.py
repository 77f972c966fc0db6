"""The load generator counts right: every kind of loss is noticed, and a healthy run has none."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bench.load import Load, LoadError, Report, Settings
from bench.load.settings import KINDS, docker_networks, target

REPOSITORY = Path(__file__).parents[2]
APP = REPOSITORY / "app"


class Server:
    """A server that does what its `faults` say: one is taken from the list by each request, "" is a right answer."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.always = ""  # where the list is empty
        self.release = "one"
        self.asked: Counter[str] = Counter()  # requests by path
        self.hosts: set[str] = set()
        self.connections: Counter[int] = Counter()  # requests by connection
        self.sockets: list[web.WebSocketResponse] = []
        self.loop = asyncio.new_event_loop()
        self.url = ""

    def __enter__(self) -> Server:
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/ws", self.websocket)
        app.router.add_route("*", "/{path:.*}", self.answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    @property
    def stamp(self) -> dict[str, str]:
        return {"X-Release": self.release, "X-Worker-Pid": str(os.getpid())}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.hosts.add(request.host)
        transport = request.transport
        assert transport
        self.connections[id(transport)] += 1
        body = await request.read()
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == "unless reused":
            fault = "close" if self.connections[id(transport)] > 1 else ""
        match fault:
            case "status":
                return web.Response(status=502, text="bad gateway")
            case "close":
                transport.close()
            case "reset":
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                transport.abort()
            case "cut":
                response = web.StreamResponse(headers={**self.stamp, "Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b"half")
                transport.close()
            case "no http":
                transport.write(b"what?\r\n\r\n")
                transport.close()
            case "stall":
                time.sleep(1)  # the whole server: nobody is answered meanwhile
            case "slow":
                await asyncio.sleep(30)
            case "idle close":
                asyncio.get_running_loop().call_later(0.03, transport.close)
        return self.whole(request, body, fault)

    def whole(self, request: web.Request, body: bytes, fault: str) -> web.Response:
        """An answer with status 200, as the sample app gives it, or with one thing wrong in it."""
        garbled, pid = fault == "garbled", os.getpid() + (fault == "foreign")
        said: dict[str, Any] = {"pid": pid, "release": self.release}
        match request.path:
            case "/echo":
                said |= {"bytes": len(body), "sha256": hashlib.sha256(b"" if garbled else body).hexdigest()}
            case "/serve/awaiting":
                said["seconds"] = 0 if garbled else float(request.query["seconds"])
            case "/download":
                whole = b"".join(bytes([number]) * 16384 for number in range(int(request.query["chunks"])))
                return web.Response(body=whole[:-1] + (b"?" if fault else whole[-1:]), headers=self.stamp)
            case _ if garbled:
                return web.Response(text="<html>", headers=self.stamp)
        return web.json_response(said, headers=self.stamp)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        self.asked["/ws"] += 1
        self.hosts.add(request.host)
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == "status":
            return web.Response(status=503)
        connection = web.WebSocketResponse()
        connection.headers.update(self.stamp)
        await connection.prepare(request)
        self.sockets.append(connection)
        async for message in connection:
            match fault:
                case "foreign":
                    await connection.send_str("somebody else's")
                case "close":
                    assert request.transport
                    request.transport.close()
                case "1011":
                    await connection.send_str(message.data)
                    await connection.close(code=1011)
                case "1012":
                    await connection.send_str(message.data)
                    await connection.close(code=1012)
                case "early":
                    await connection.close(code=1012)
                case _:
                    await connection.send_str(message.data)
        return connection


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def run(url: str, **settings: Any) -> Report:
    """Let a load run to its end."""
    with Load(url, **{"seconds": 0.5, "rate": 40, "mix": "get-keep=1", "connections": 4, **settings}) as load:
        return load.wait()


# --- Losses: each kind is counted, with its reason ------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_to_lose_a_request_is_counted_once_and_nothing_is_asked_twice(server: Server, kind: str) -> None:
    faults = {
        "status": "status 502",
        "close": "closed without an answer",
        "reset": "reset",
        "cut": "cut short",
        "no http": "not an HTTP answer",
        "foreign": "wrong body",
        "garbled": "wrong body",
    }
    server.faults = [fault for name in faults for fault in ("", "", name)]
    report = run(server.url, seconds=0.6, mix=f"{kind}=1", details=4, connections=1)
    assert report.reasons == Counter(faults.values())
    assert (report.sent, report.ok, report.failed, report.lost) == (24, 17, 7, 7)
    assert server.asked.total() == 24
    assert len(report.failures) == 4
    assert report.failures[0].detail == "bad gateway"
    assert all(report.began < failure.at < report.ended for failure in report.failures)
    assert {each.release for each in report.requests if each.reason == "cut short"} == {"one"}
    assert "failed: 1 × cut short" in report.table()


@pytest.mark.parametrize("kind", ["get-keep", "post-keep"])
def test_a_kept_connection_closed_under_a_request_is_a_loss_and_not_repeated(server: Server, kind: str) -> None:
    """This is where aiohttp, left to itself, asks again, and the loss is never seen."""
    server.always = "unless reused"
    report = run(server.url, rate=20, seconds=1, mix=f"{kind}=1")
    assert report.reasons == {"closed without an answer": 8}  # 4 clients, 5 requests each, every second is lost
    assert server.asked.total() == report.sent == 20
    assert report.reconnected == 0


def test_kept_connections_closed_while_idle_are_counted_apart(server: Server) -> None:
    server.always = "idle close"
    report = run(server.url, rate=20, seconds=1)
    assert (report.sent, report.failed, report.reconnected, report.connections) == (20, 0, 16, 20)


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, so that nobody else listens there, and refused: it does not listen
        report = run(f"http://127.0.0.1:{unused.getsockname()[1]}", mix="get-new=1,post-keep=1", websockets=1)
    assert report.reasons == {"connection refused": report.sent}
    assert report.ok == 0


def test_no_answer_in_time(server: Server) -> None:
    server.faults = ["slow"]
    report = run(server.url, timeout=0.5)
    assert report.reasons == {"timeout": 1}
    assert report.sent == 20


def test_what_is_open_after_the_grace_time_counts_as_failed(server: Server) -> None:
    server.faults = ["", "slow", "slow"]
    report = run(server.url, grace=0.5)
    assert report.reasons == {"unfinished": 2}
    assert (report.unfinished, report.sent) == (2, 20)


def test_a_request_that_finds_no_room_is_not_dropped_silently(server: Server) -> None:
    server.always = "slow"
    report = run(server.url, max_open=5, timeout=0.9)
    assert report.reasons == {"timeout": 5, "not sent: too many connections are open": 15}
    assert server.asked.total() == 5


# --- The open loop --------------------------------------------------------------------------------


def test_requests_start_on_time_while_the_server_stalls_and_their_wait_is_counted(server: Server) -> None:
    server.faults = [""] * 20 + ["stall"]
    report = run(server.url, rate=100, seconds=2, mix="get-new=1,post-keep=1")
    assert (report.sent, report.failed) == (200, 0)
    assert report.max_lag < 0.5
    began = report.requests[0].scheduled
    stalled = [each for each in report.requests if 0.25 <= each.scheduled - began < 1.1]
    assert len(stalled) >= 80  # they were started, though none was answered
    for each in stalled:
        assert each.scheduled + each.latency == pytest.approx(began + 1.2, abs=0.4)
    assert report.p99((began + 0.2, began + 1.2)) > 0.8
    assert report.p50((began + 1.6, began + 2)) < 0.3
    with pytest.raises(ValueError, match="no answer"):
        report.p99((began + 5, began + 6))


def test_a_generator_that_falls_behind_says_so_and_catches_up(server: Server) -> None:
    with Load(server.url, rate=100, seconds=2, mix="get-new=1") as load:
        time.sleep(0.5)
        load.process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)
        load.process.send_signal(signal.SIGCONT)
        report = load.wait()
    assert (report.sent, report.ok) == (200, 200)
    assert 30 <= report.late <= 100
    assert 0.5 < report.max_lag < 1.5
    assert report.max() >= report.max_lag  # counted from when it was due
    assert "THE GENERATOR FELL BEHIND" in report.table()


# --- Who answered, and WebSockets -----------------------------------------------------------------


def test_a_switch_of_releases_is_seen(server: Server) -> None:
    mix = "get-new=2,get-keep=1,post-new=1,post-keep=1"
    with Load(server.url, rate=100, mix=mix, websockets=1, host_header="shop.example.org") as load:
        time.sleep(1)
        server.release, switched = "two", time.monotonic()
        time.sleep(1)
        report = load.stop()
    assert report.stopped_by == "stdin"
    assert report.failed == 0
    one, two = report.releases["one"], report.releases["two"]
    assert one.answers + two.answers == report.sent - 1  # the WebSocket
    assert one.first < one.last <= switched + 0.05
    assert switched <= two.first < two.last
    assert sum(report.per_second(), Counter()) == {"one": one.answers, "two": two.answers}
    assert report.started_after(two.first, "one") == []
    assert server.hosts == {"shop.example.org"}
    assert {each.worker for each in report.requests} == {os.getpid()}


def test_websockets_are_recorded_with_how_they_ended(server: Server) -> None:
    server.faults = ["", "status", "foreign", "close", "1011", "1012", "early"]
    report = run(server.url, rate=1, seconds=3.5, websockets=7, mix="post-new=1", timeout=1)
    assert report.failed == 5
    assert report.reasons == {
        "status 503": 1,
        "wrong echo": 1,
        "broke off": 1,
        "closed with 1011": 1,
        "no echo before it was closed with 1012": 1,
    }
    ended = Counter((each.closed_by, each.code) for each in report.websockets if each.opened)
    assert ended["server", 1012] == 2
    assert ended["", 1006] == 1
    assert ended["client", 1000] == 1 + 7  # the wrong echo, and the 7 that were open at the end
    longest = max(report.websockets, key=lambda each: each.echoed)
    assert longest.sent == longest.echoed == 4
    assert longest.release == "one"
    assert longest.closed_by == "client"
    assert server.asked["/ws"] == len(report.websockets) == 7 + 6  # each that ended was followed by another


# --- The command ----------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.load", *arguments],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_early_with_its_report(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    started = command(server.url, "--rate=50", "--seconds=3000", f"--json={tmp_path / 'report.json'}")
    assert started.stdout
    assert started.stdout.readline() == "load: started\n"
    time.sleep(0.5)
    started.send_signal(number)
    said, error = started.communicate(timeout=20)
    assert (started.returncode, error) == (0, "")
    written = json.loads((tmp_path / "report.json").read_text())
    report = Report.read(tmp_path / "report.json")
    assert written["summary"]["sent"] == report.sent == server.asked.total()
    assert written["summary"]["cpu_per_1000"] > 0
    assert f"sent {report.sent} = ok {report.ok} + failed {report.failed}" in said
    assert report.stopped_by == "signal"


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--seconds=3601", "allowed is 0.1 to 3600"),
        ("--rate=2001", "allowed is 0.1 to 2000"),
        ("--rate=nan", "allowed is 0.1 to 2000"),
        ("--mix=get-old=1", "mix has 'get-old'"),
        ("--mix=get-new=0", "has to be a positive number"),
        ("--mix=long=1 --long-seconds=30", "timeout (30 s) has to be longer"),
        ("--rate=1000 --seconds=2000", "rate × seconds is 2e+06"),
    ],
)
def test_what_is_out_of_bounds_is_refused(argument: str, reason: str) -> None:
    settings: dict[str, Any] = {}
    for part in argument.split(" "):
        name, _, value = part.removeprefix("--").partition("=")
        settings[name.replace("-", "_")] = value if name == "mix" else float(value)
    with pytest.raises(ValueError, match=re.escape(reason)):
        Settings("http://127.0.0.1", **settings)


def test_the_command_refuses_a_public_target() -> None:
    refused = command("http://192.0.2.1", "--seconds=1")
    said, error = refused.communicate(timeout=20)
    assert (refused.returncode, said) == (2, "")
    assert "http://192.0.2.1 is no target: allowed are only this machine's own test hosts (loopback" in error
    with pytest.raises(ValueError, match="no target"):
        Load("http://203.0.113.1")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "https://127.0.0.1",
        "127.0.0.1",
        "http://127.0.0.1/x",
        "http://10.0.0.1",
        "http://[fd00::1]",
    ],
)
def test_no_target(url: str) -> None:
    with pytest.raises(ValueError, match="is no target"):
        target(url)


def test_targets(tmp_path: Path) -> None:
    assert target("http://localhost:8081/") == ("127.0.0.1", 8081)
    assert target("http://[::1]") == ("::1", 80)
    routes = tmp_path / "route"
    routes.write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        "eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0\n"  # 10.0.0.0/8, the network outside
        "br-0123456789ab 000012AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n"  # 172.18.0.0/16
        "docker0 00000008 00000000 0001 0 0 0 000000FF 0 0 0\n"  # a public one
    )
    for name in ("eth0", "br-0123456789ab", "docker0"):
        (tmp_path / name / "bridge").mkdir(parents=True)
    assert docker_networks(routes, tmp_path) == [ipaddress.IPv4Network("172.18.0.0/16")]
    assert docker_networks(tmp_path / "none", tmp_path) == []


def test_a_load_that_cannot_start_says_why() -> None:
    load = Load("http://127.0.0.1:1")
    object.__setattr__(load.settings, "rate", 5000)
    with pytest.raises(LoadError, match="rate is 5000"):
        load.__enter__()


# --- The sample app -------------------------------------------------------------------------------


@pytest.fixture
def counter() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The sample app, run by uvicorn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uv: list[str | Path] = [Path(sys.executable).with_name("uv"), "run", "-q", "--project", APP, "--group", "dev"]
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "FLEET_RELEASE": "abc"}
    subprocess.run([*uv, "--locked", "true"], check=True, env=environment)
    process = subprocess.Popen(
        [APP / ".venv/bin/python", "-m", "uvicorn", "main:app", f"--port={port}", "--no-access-log"],
        cwd=APP, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr
        while "running on" not in (line := process.stderr.readline()):
            assert line, "the sample app did not start"
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.communicate(timeout=30)


EVERYTHING = "get-new=30,get-keep=30,post-new=15,post-keep=20,long=3,download=2"


def test_the_sample_app_loses_nothing(counter: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = counter
    load = {"mix": EVERYTHING, "long_seconds": 1, "download_chunks": 5, "timeout": 2, "seconds": 3}
    report = run(url, rate=100, websockets=3, **load)
    assert report.failed == 0, report.table()
    assert report.sent == report.ok == 303
    assert Counter(each.kind for each in report.requests)["long"] == 9
    assert {each.worker for each in report.requests} == {each.worker for each in report.websockets} == {process.pid}
    assert report.releases["abc"].answers == 300
    assert report.cpu_per_1000 < 10
    assert report.reconnected == 0


def test_an_app_that_is_restarted_under_load_loses_requests(counter: tuple[str, subprocess.Popen[str]]) -> None:
    """The generator's own proof that it can fail: this is what every client sees when a plain unit is restarted."""
    url, process = counter
    with Load(url, rate=100, websockets=2, mix="get-new=1,post-keep=1") as load:
        time.sleep(1)
        process.terminate()
        process.wait(20)
        time.sleep(0.5)
        report = load.stop()
    assert report.reasons["connection refused"] > 10
    assert report.ok > 50
    assert [(each.closed_by, each.code) for each in report.websockets if each.opened] == [("server", 1012)] * 2
