"""The load generator counts right: every kind of loss is noticed, with its reason, and nothing is asked twice."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bench.load import Load, Report
from bench.load.settings import KINDS
from tests.integration.faulty_server import Server


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
