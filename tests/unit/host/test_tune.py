"""Measuring other numbers of workers, on a host without systemd: the order, the refusals, the load, what is left."""

from __future__ import annotations

import argparse
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host import tune, tune_load, tune_slot
from plugins.module_utils.host.config import Config, HostError
from plugins.module_utils.host.cutover import RefusedError
from plugins.module_utils.host.gate import GateError
from plugins.module_utils.host.proc import ancestors
from plugins.module_utils.host.systemd import UnitState
from plugins.module_utils.host.tune import Measurement, measure
from plugins.module_utils.host.tune_lease import LEASE_SECONDS, POLL_SECONDS, Lease
from plugins.module_utils.host.tune_slot import Slot, clean, drop_in
from plugins.module_utils.workers.plan import WorkerPlan
from tests.unit.host.fake_systemd import Host
from tests.unit.rendering import template, unit


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which aaa is live in the blue slot."""
    host = Host(tmp_path)
    host.config.live_link.symlink_to(host.config.socket("blue"))
    slots = host.config.root / "slots"
    slots.mkdir()
    record = {"release": "aaa", "workers": 3, "plan": {"workers": 3, "inputs": {}}, "slot": "blue"}
    (slots / "blue.json").write_text(json.dumps(record))
    (slots / "blue.env").write_text("FLEET_RELEASE=aaa\nFLEET_WORKERS=3\n")
    for kind, path in host.config.slot_files("blue").items():
        path.write_bytes(host.config.wanted_files()[kind].read_bytes())
    units = tmp_path / "run-units"
    units.mkdir()
    monkeypatch.setattr(tune_slot, "UNITS", units)
    monkeypatch.setattr(host.systemd, "_wanted_workers", lambda _: 1)
    return host


def given(**changes: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    tune.add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **changes})


def wanted(host: Host, **changes: Any) -> Measurement:
    return Measurement.read(host.config, given(**{"workers": [1, 2, 3], "rounds": 3, **changes}))


class FakeSlot:
    """A private slot that memory allows `fits` workers."""

    def __init__(self, fits: int = 99, begins: int = 99) -> None:
        self.fits, self.begins = fits, begins
        self.sizes: list[int] = []
        self.gone = False

    def __call__(self, *_: object) -> FakeSlot:
        return self

    def __enter__(self) -> FakeSlot:
        return self

    def __exit__(self, *_: object) -> None:
        self.gone = True

    def check(self, path: str) -> None:
        if path == "/missing":
            raise HostError("/missing answers 404")

    def resize(self, number: int) -> bool:
        self.sizes.append(number)
        return number <= (self.fits if len(self.sizes) > self.begins else 99)


@pytest.fixture
def slot(monkeypatch: pytest.MonkeyPatch) -> FakeSlot:
    found = FakeSlot()
    monkeypatch.setattr(tune, "Slot", found)
    figures = {"throughput": 10.0}
    monkeypatch.setattr(tune, "measure_once", lambda slot, *_: {"workers": slot.sizes[-1], **figures})
    return found


def run(host: Host, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = measure(host.context(), wanted(host, **changes))["tuned"]
    return found


def test_rounds_go_up_and_down_in_turn(host: Host, slot: FakeSlot) -> None:
    found = run(host)
    assert slot.sizes == [1, 2, 3, 3, 2, 1, 1, 2, 3]
    assert [(entry["round"], entry["workers"]) for entry in found["rounds"]][:5] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 3),
        (2, 2),
    ]
    assert (found["release"], found["load"], found["connections"]) == ("aaa", (("/health", 1),), 32)
    assert slot.gone


def test_number_that_memory_does_not_hold_is_left_out_of_all_rounds(host: Host, slot: FakeSlot) -> None:
    """2 and 3 were measured in the first round; later, 3 does not fit any more."""
    slot.fits, slot.begins = 2, 3
    found = run(host)
    assert found["numbers"] == [1, 2]
    assert [entry["workers"] for entry in found["rounds"]] == [1, 2, 2, 1, 1, 2]
    assert "3 workers and more were not tried: memory" in found["notes"][0]


def test_path_that_is_not_answered_well_ends_it(host: Host, slot: FakeSlot) -> None:
    with pytest.raises(HostError, match="/missing answers 404"):
        run(host, load=["/health", "/missing"])
    assert slot.sizes == []
    assert slot.gone


def requests(host: Host, count: int) -> None:
    """What nginx notes when requests have reached the live slot."""
    with Path(host.config.proxy_log).open("a") as log:
        log.write(f"{time.time():.3f} 0.010 200\n" * count)


@pytest.fixture
def serving(host: Host, tmp_path: Path) -> Host:
    """The same, with nginx's log."""
    config = host.config
    host.config = Config(**{**vars(config), "proxy_log": str(tmp_path / "watch.log")})
    requests(host, 500)
    return host


def test_host_that_served_before_but_not_now_is_drained(serving: Host, slot: FakeSlot) -> None:
    assert len(run(serving)["rounds"]) == 9


def test_host_that_is_not_drained_is_refused(serving: Host, slot: FakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(seconds: float) -> None:
        serving.clock.now += seconds
        requests(serving, 9)

    monkeypatch.setattr(serving.clock, "sleep", busy)
    with pytest.raises(HostError, match=r"not drained: \d+ requests in .* Nothing was changed.*--while-serving"):
        run(serving)
    assert slot.sizes == []
    assert len(run(serving, while_serving=True)["rounds"]) == 9


def test_connection_that_stays_open_is_a_user(serving: Host, slot: FakeSlot) -> None:
    serving.clients["blue"] = 2
    with pytest.raises(HostError, match="not drained: 2 open connections"):
        run(serving)


def test_traffic_that_comes_meanwhile_ends_it(serving: Host, slot: FakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> dict[str, Any]:
        requests(serving, 50)
        return {"workers": slot.sizes[-1], "throughput": 1.0}

    monkeypatch.setattr(tune, "measure_once", measured)
    with pytest.raises(HostError, match="got traffic again, 50 requests"):
        run(serving)
    assert slot.gone


def test_it_ends_when_it_is_not_wanted_any_more(host: Host, slot: FakeSlot) -> None:
    with pytest.raises(HostError, match="the caller ended or stopped polling"):
        measure(host.context(), wanted(host), lambda: len(slot.sizes) < 2)
    assert (slot.gone, slot.sizes) == (True, [1, 2])


def test_caller_on_the_host_is_known_by_its_processes() -> None:
    caller = subprocess.Popen(["sleep", "60"])
    before = ancestors(caller.pid)
    assert before[:2] == [caller.pid, os.getpid()]
    assert ancestors(caller.pid) == before
    caller.kill()
    caller.wait()
    assert ancestors(caller.pid) != before


def test_detached_run_ends_when_nobody_polls_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever polls hears what is new and, once it has ended, the outcome; then nothing is left of it."""
    context = host.context()
    lease = Lease(context)
    output = lease.begin()
    report = lease.reporter(lambda _: None)
    monkeypatch.setattr(host.systemd, "state", lambda _: UnitState("active", "success", 1, 0))
    assert lease.is_polled()
    report("one")
    assert lease.poll(0) == {"new": ["one"], "running": True, "outcome": ""}
    before = host.clock.now
    assert lease.poll(1)["new"] == []
    assert POLL_SECONDS <= host.clock.now - before < POLL_SECONDS + 1, "a poll waits for a step, for a while"

    # Polled: it goes on, whatever time has passed.
    host.clock.now += 1000
    assert lease.is_polled()
    host.clock.now += LEASE_SECONDS
    assert lease.is_polled()
    host.clock.now += 0.1
    assert not lease.is_polled()
    assert os.listdir(host.config.run) == []

    lease.begin()
    report("two")
    output.write_text("{}")
    monkeypatch.setattr(host.systemd, "state", lambda _: UnitState("inactive", "success", 0, 0))
    assert lease.poll(0) == {"new": ["two"], "running": False, "outcome": "{}"}
    assert os.listdir(host.config.run) == []


def test_load_tool_that_is_missing(host: Host, slot: FakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "LOAD", Path("/nowhere/tune_load.py"))
    with pytest.raises(HostError, match=r"load tool is missing .*deploy once more"):
        run(host)


def test_host_without_a_live_release_and_one_with_a_switch_cut_off(host: Host, slot: FakeSlot) -> None:
    host.config.transaction.write_text("{}")
    with pytest.raises(HostError, match="a switch was cut off"):
        run(host)
    host.config.live_link.unlink()
    with pytest.raises(HostError, match="no live release"):
        run(host)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": ["http://web1/health"]}, "never in the live one"),
        ({"load": ["0 /health"]}, "weight from 1"),
        ({"load": ["/a b"]}, "allowed are paths"),
        ({"workers": [0, 2]}, "each has to be 1 or more"),
        ({"rounds": 0}, "rounds is 0"),
        ({"seconds": 0.1}, "seconds is 0.1"),
    ],
)
def test_bad_command_line(host: Host, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HostError, match=message):
        wanted(host, **changes)


def test_paths_add_up(host: Host) -> None:
    assert wanted(host, load=["3 /a?x=1", "/b", "2 /a?x=1"]).load == (("/a?x=1", 5), ("/b", 1))


# --- The private slot ------------------------------------------------------------------------------


def test_private_slot_runs_what_the_live_one_runs() -> None:
    text = template("service", "app@.service.j2")
    places = (Path("/srv/counter"), Path("/run/counter"), Path("/etc/counter"), Path("/etc/systemd/system"))
    config = Config("counter", *places, plan=WorkerPlan(5), fingerprint="")
    live, own = unit(text), unit(drop_in(config, "green", 300))
    assert own == {
        "Service.Restart": ["no"],
        "Service.RuntimeMaxSec": ["300"],
        "Service.WorkingDirectory": ["/srv/counter/slots/green/app"],
        "Service.EnvironmentFile": ["", "/etc/counter/environment.green", "/run/counter/tune.env"],
    }
    named = {key for key, values in live.items() if any("%i" in value for value in values)}
    assert named <= {*own, "Unit.Description", "Unit.Requires", "Unit.After", "Service.SyslogIdentifier"}, (
        "all that would be another slot's"
    )


def test_slot_leaves_nothing_behind(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(tune_slot, "prove", lambda *_: seen.append(sorted(os.listdir(tune_slot.UNITS))))
    with Slot(host.context(), "blue", 60):
        assert seen == [["counter@tune.service", "counter@tune.service.d", "counter@tune.socket"]]
        started = host.config.slot_environment("tune").read_text()
        assert started.startswith("FLEET_RELEASE=aaa\n")
        assert started.endswith("FLEET_WORKERS=1\n")
        assert {"counter@tune.service", "counter@tune.socket"} <= host.systemd.active
    assert os.listdir(tune_slot.UNITS) == []
    assert not host.config.slot_environment("tune").exists()
    assert not {unit for unit in host.systemd.active if "tune" in unit}
    assert host.config.live_slot() == "blue"


def test_slot_that_does_not_start_is_removed_and_shows_its_log(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise GateError("it fell over")

    monkeypatch.setattr(tune_slot, "prove", fails)
    with pytest.raises(RefusedError, match="did not start: it fell over") as caught:
        Slot(host.context(), "blue", 60).__enter__()
    assert caught.value.log
    assert os.listdir(tune_slot.UNITS) == []
    assert not host.config.slot_environment("tune").exists()


def test_clean_without_a_slot_asks_for_no_reload(host: Host) -> None:
    clean(host.context())
    assert ("reload",) not in host.systemd.calls


# --- The load program ------------------------------------------------------------------------------


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers each path with what `answers` has for it, and counts."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, answers: dict[str, bytes]) -> None:
        self.answers, self.asked = answers, list[str]()
        super().__init__(str(path), Handler)


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            part = self.request.recv(4096)
            if not part:
                return
            request += part
        path = request.split(b" ")[1].decode()
        self.server.asked.append(path)
        assert b"\r\nHost: shop\r\n" in request
        assert b"\r\nConnection: close\r\n" in request
        time.sleep(0.002)
        self.request.sendall(self.server.answers[path])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    def answer(status: int, body: bytes, length: int | None = None) -> bytes:
        size = len(body) if length is None else length
        return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, size, body)

    answers = {
        "/a": answer(200, b"good"),
        "/b": answer(307, b""),
        "/bad": answer(503, b""),
        "/cut": answer(200, b"x", 9),
    }
    with Server(tmp_path / "s.sock", answers) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def settings(server: Server, paths: list[tuple[str, int]], **changes: Any) -> dict[str, Any]:
    return {
        "socket": server.server_address, "load": paths, "pids": [os.getpid()], "connections": 4, "warm": 0.2,
        "seconds": 0.6, "drain": 5, "headers": {"Host": "shop"}, **changes,
    }  # fmt: skip


def test_load_asks_in_the_given_shares_and_counts_what_came(server: Server) -> None:
    found = tune_load.run(settings(server, [("/a", 3), ("/b", 1)]))
    assert found["bad"] == {}
    assert len(found["took"]) > 8
    # What it saw while it warmed up is not in it.
    assert len(found["took"]) < len(server.asked)
    share = server.asked.count("/a") / len(server.asked)
    assert share == pytest.approx(0.75, abs=0.1)
    assert found["seconds"] == pytest.approx(0.6, abs=0.4)
    assert found["cpu"] > 0
    assert 0 < found["own"] < 2


def test_load_counts_errors_and_answers_that_were_cut_off(server: Server) -> None:
    found = tune_load.run(settings(server, [("/bad", 1), ("/cut", 1)]))
    assert found["took"] == []
    assert found["bad"].keys() == {503, 0}


def test_load_runs_as_programs_of_their_own(server: Server) -> None:
    seen = tune.fire([settings(server, [("/a", 1)], skip=number) for number in range(2)], lambda: None)
    assert [len(one["took"]) > 3 for one in seen] == [True, True]


def test_load_on_a_socket_that_is_not_there_ends(tmp_path: Path, server: Server) -> None:
    found = tune_load.run(settings(server, [("/a", 1)], socket=str(tmp_path / "none"), drain=0))
    assert found["took"] == []
    assert found["bad"][0] > 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", 0),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-le", 0),
        (b"", 0),
        (b"rubbish\r\n\r\n", 0),
    ],
)
def test_answers(answer: bytes, status: int) -> None:
    assert tune_load.status_of(answer) == status


def test_weights_are_mixed_evenly() -> None:
    assert tune_load.order([("a", 6), ("b", 2)]) == ["a", "a", "b", "a"]
    assert tune_load.order([("a", 1)]) == ["a"]


def test_load_program_needs_nothing_of_ours() -> None:
    """The path to it is all that the host's Python is given."""
    subprocess.run([sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(tune.LOAD)!r})"], check=True)
