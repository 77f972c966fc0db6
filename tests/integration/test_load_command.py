"""The load generator's command and its bounds, and what it counts on the sample app: nothing lost, until it is."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.load import Load, LoadError, Report, Settings
from bench.load.settings import docker_networks, target
from tests.integration.faulty_server import Server

REPOSITORY = Path(__file__).parents[2]
APP = REPOSITORY / "app"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


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
    load: dict[str, Any] = {"mix": EVERYTHING, "long_seconds": 1, "download_chunks": 5, "timeout": 2, "seconds": 3}
    with Load(url, rate=100, websockets=3, **load) as running:
        report = running.wait()
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
