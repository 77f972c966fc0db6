"""This project's own workers: replaced one at a time when their memory creeps up, and even where bursts come."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fleettest import App, assert_nothing_lost, playbook, wait_until

from bench.four_workers import at_once

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample", "leaking")

#: MiB. A worker of the sample app takes some 30.
LIMIT = 60
DRAIN = 4
#: Seconds without a sign of life.
TIMEOUT = 5
#: In the sample app's main.py: just before it answers anything.
ANSWER = "        await self.app(scope, receive, stamped)\n"
LEAK = "        kept.append(bytearray(os.urandom(1024)) * {})\n"
MIX = "get-new=40,get-keep=40,post-keep=10,post-new=8,download=1,long=1"


#: Clients at the app's own socket, as slow as no proxy is: each connects, and asks a second later. Prints what came.
SLOW = """
import socket, sys, threading, time
end, seen = time.monotonic() + float(sys.argv[2]), []
def ask():
    while time.monotonic() < end:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(sys.argv[1])
        time.sleep(1)
        try:
            client.sendall(b'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')
            seen.append(client.recv(12) == b'HTTP/1.1 200')
        except OSError:
            seen.append(False)
threads = [threading.Thread(target=ask) for _ in range(15)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(seen.count(True), seen.count(False))
"""


@pytest.fixture(scope="module")
def leaking(app: App, sample: str) -> Iterator[str]:
    """A release that keeps 160 KiB of each request, on a host that recycles, and looks every second."""
    timer = f"/etc/systemd/system/{app.name}-release-recycle.timer.d"
    app.host.check_output(f"mkdir -p {timer}")
    app.write(f"{timer}/test.conf", "[Timer]\nOnActiveSec=1\nOnUnitInactiveSec=1\nAccuracySec=100ms\n")
    settings = {
        "service_worker_memory_max_mib": LIMIT,
        "service_even_bursts": True,
        "service_drain_timeout": DRAIN,
        "service_worker_timeout": TIMEOUT,
        "service_watch_seconds": 1,
    }
    done = playbook("deploy.yml", "--limit", "web1", variables=settings)
    assert done.returncode == 0, done.stdout
    app.copy_release(
        sample, {"class Stamp:\n": "kept = []\n\n\nclass Stamp:\n", ANSWER: LEAK.format(160) + ANSWER}, "leaking"
    )
    with app.settings(recycle_least_seconds=3):
        yield "leaking"
    app.host.check_output(f"rm -r {timer}")


def recycled(app: App) -> list[dict[str, Any]]:
    """Return what the host wrote down of it since the last switch."""
    lines = app.command("history")[1]["recycled"]
    return [line for line in lines if line["switch"] == app.live["at"]]


def counted(app: App, seconds: float) -> Counter[int]:
    """Count the workers on the host ten times a second: how often there were how many."""
    loop = f"for i in $(seq {int(seconds * 10)}); do pgrep --count --parent {app.master}; sleep 0.1; done"
    return Counter(map(int, app.host.run(loop).stdout.split()))


@pytest.mark.fault(29)
def test_workers_whose_memory_creeps_up_are_recycled_one_at_a_time_and_nothing_is_lost(app: App, leaking: str) -> None:
    rc, said = app.command("activate", leaking)
    assert rc == 0, said
    first, planned = app.workers, app.live["workers"]
    assert len(first) == planned > 1
    with ThreadPoolExecutor(2) as pool, app.load(rate=60, mix=MIX, long_seconds=3, websockets=6) as load:
        counts = pool.submit(counted, app, 30)
        slow = pool.submit(app.host.check_output, "python3 -c %s /run/%s/%s.sock 30", SLOW, app.name, app.slot)
        wait_until(lambda: not first & app.workers and slow.done(), 240)
        report = load.stop()
    print(report.table())
    assert len(report.requests) > 600
    assert Counter(each.reason for each in report.requests) == {"": len(report.requests)}
    assert {each.kind for each in report.requests} == {part.partition("=")[0] for part in MIX.split(",")}
    answered, lost = map(int, slow.result().split())
    assert (answered > 100, lost) == (True, 0), (answered, lost)
    # WebSockets were told so; a worker that had some did not close them before the drain time was over.
    assert {each.code for each in report.websockets if each.closed_by == "server"} == {1012}
    # A text that is on its way while the server closes has no echo.
    assert {each.reason for each in report.websockets} <= {"", "no echo before it was closed with 1012"}
    assert min(counts.result()) >= planned - 1, counts.result()
    lines = recycled(app)
    assert first <= {line["worker"] for line in lines}
    assert {(line["result"], line["limit"], line["release"]) for line in lines} == {("replaced", LIMIT, leaking)}
    assert min(line["mib"] for line in lines) >= LIMIT
    assert DRAIN - 0.5 < max(line["left"] for line in lines) < DRAIN + 5
    wait_until(lambda: app.command("verify")[0] == 0)
    assert (len(app.workers), app.host.check_output(f"systemctl show -P NRestarts {app.unit}")) == (planned, "0")


@pytest.mark.skipif(not os.environ.get("FLEET_FULL"), reason="FLEET_FULL is not set; unit/host/test_recycle.py has it")
def test_lone_worker_is_replaced_by_a_switch_to_the_same_release(app: App, leaking: str) -> None:
    with app.settings(plan={**app.live["plan"], "workers": 1}, recycle_least_seconds=3):
        rc, said = app.command("activate", leaking)
        assert rc == 0, said
        first, slot = app.workers, app.slot
        assert len(first) == 1
        with app.load(rate=60, mix=MIX, long_seconds=3) as load:
            wait_until(lambda: app.slot != slot, 120)
            report = load.stop()
        wait_until(lambda: app.command("status")[1]["lock"] is None)
    assert_nothing_lost(report, 100)
    assert not first & app.workers
    last = app.command("history")[1]["history"][-1]
    assert (last["verb"], last["from"], last["to"], last["result"]) == ("restore", leaking, leaking, "switched")
    assert "MiB, more than 60 (service_worker_memory_max_mib)" in last["by"]


def test_limit_that_new_workers_pass_at_once_recycles_nothing_and_says_so(app: App, sample: str) -> None:
    rc, said = app.command("activate", sample)
    assert rc == 0, said
    with app.settings(worker_memory_max_mib=10, recycle_least_seconds=3600):
        before = app.workers
        for expected in ("the limit is too small for this app, or it leaks too fast", "stopped: worker"):
            rc, said = app.command("recycle")
            assert rc == 1, said
            assert expected in said["error"]
        assert app.workers == before
        assert "the limit is too small" in app.command("status")[1]["recycling"]["stopped"]
    assert app.command("recycle")[0] == 0, "another limit, another try"


def test_blocking_requests_that_come_at_once_go_to_different_workers(app: App, sample: str) -> None:
    """With Uvicorn's own worker, two of them meet in most rounds on a busy machine."""
    with app.settings(plan={**app.live["plan"], "workers": 4}, watch_seconds=0):
        rc, said = app.command("activate", sample)
        assert rc == 0, said
    rounds = []
    for _ in range(10):
        rounds.append(at_once(app.address, "/serve/blocking?seconds=1", 4))
        time.sleep(0.3)
    assert sum(not each.met for each in rounds) >= 7, rounds


@pytest.mark.fault(24)
def test_worker_whose_event_loop_stands_still_is_replaced_and_nobody_else_notices(app: App, sample: str) -> None:
    if app.live["release"] != sample:
        rc, said = app.command("activate", sample)
        assert rc == 0, said
    before, master, began = app.workers, app.master, time.monotonic()
    with app.load(rate=20, mix="get-new=1,get-keep=1") as load:
        status, _, _ = app.get("/serve/blocking?seconds=10")
        ended = time.monotonic() - began
        wait_until(lambda: len(app.workers - before) == 1 and len(app.workers) == len(before), 10)
        report = load.stop()
    assert status == 502
    # Its last sign of life came up to half of the timeout before it stood still.
    assert TIMEOUT / 2 - 0.5 < ended < TIMEOUT + 2, ended
    assert_nothing_lost(report, 80)
    assert app.master == master
