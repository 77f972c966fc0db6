"""Recycling by memory against a fake systemd: which worker is replaced when, and what stops it."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host import cli, history, recycle, status
from plugins.module_utils.host.commands import VERBS, Call
from plugins.module_utils.host.config import HostError
from plugins.module_utils.host.locks import locked
from plugins.module_utils.host.proc import seconds_old
from plugins.module_utils.host.recycle import RecycleError
from plugins.module_utils.host.slots import adopt
from plugins.module_utils.host.sockets import Answers
from plugins.module_utils.host.systemd import UnitState
from tests.unit.host.fake_systemd import Host
from tests.unit.host.test_switch import do
from tests.unit.rendering import host as facts
from tests.unit.rendering import template, unit, value

LIMIT = 100


class Slot:
    """The live slot's workers, with MiB and age in seconds. Whoever is asked to retire leaves, and a new one comes.

    By the host's clock: one leaves `leaving` seconds after it was asked to, the new one is up `coming` seconds later
    (None: never), and a new one takes `fresh` MiB.
    """

    def __init__(self, host: Host, sizes: dict[int, float], fresh: float = 30, leaving: float = 0) -> None:
        self.host, self.sizes, self.fresh, self.leaving = host, sizes, fresh, leaving
        self.coming: float | None = 0.1
        self.ages = dict.fromkeys(sizes, 5000.0)
        self.retired: list[tuple[int, signal.Signals]] = []
        self.fewest = len(sizes)
        self.deaf, self.restarts = False, 0
        self.silent: set[int] = set()
        self.states = host.systemd.state
        #: What happens at a moment of the clock.
        self.later: list[tuple[float, Callable[[], object]]] = []

    def kill(self, pid: int, number: int) -> None:
        with pytest.raises(HostError, match="the lock is held: recycle"), locked(self.host.config, "activate", "bob"):
            pass
        self.retired.append((pid, signal.Signals(number)))
        if not self.deaf:
            now = self.host.clock.now
            self.later.append((now + self.leaving, lambda: self.sizes.pop(pid)))
            if self.coming is not None:
                self.later.append((now + self.leaving + self.coming, self.come))

    def come(self) -> None:
        new = max([*self.sizes, *(pid for pid, _ in self.retired)]) + 1
        self.sizes[new], self.ages[new] = self.fresh, 2.0

    def pids(self, *_: object) -> list[int]:
        for moment, happens in [entry for entry in self.later if entry[0] <= self.host.clock.now]:
            self.later.remove((moment, happens))
            happens()
        self.fewest = min(self.fewest, len(self.sizes))
        return sorted(self.sizes)

    def state(self, unit: str) -> UnitState:
        return dataclasses.replace(self.states(unit), restarts=self.restarts)

    def ask(self, path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        return Answers([200] * count, set(self.sizes) - self.silent)

    def install(self, patch: pytest.MonkeyPatch) -> Slot:
        kernel = dataclasses.replace(
            self.host.kernel(),
            worker_pids=self.pids,
            memory_mib=lambda pid: self.sizes.get(pid, 0.0),
            seconds_old=lambda pid: self.ages[pid],
            release_of=lambda _: "aaa",
            kill=self.kill,
        )
        patch.setattr(self.host, "kernel", lambda: kernel)
        patch.setattr(self.host, "ask", self.ask)
        patch.setattr(self.host.systemd, "state", self.state)
        return self


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, worker_memory_max_mib=LIMIT, boot_timeout=5.0)
    service = made.folder / "units" / "counter@.service"
    worker_class = unit(template("service", "app@.service.j2", **ON))["Service.ExecStart"][0].split()[5]
    service.write_text(f"{service.read_text()} -k {worker_class}\n")
    do(made, "aaa")
    return made


ON = {"service_worker_memory_max_mib": LIMIT}


def run(host: Host) -> list[str]:
    said: list[str] = []
    recycle.recycle(host.context(said.append), "timer")
    return said


def lines(host: Host) -> list[tuple[int, str]]:
    return [(line["worker"], line["result"]) for line in history.entries(host.config, history.RECYCLED)]


def test_each_worker_over_the_limit_is_replaced_and_no_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot(host, {1: 101, 2: 100, 3: 300}).install(monkeypatch)
    said = run(host)
    assert slot.retired == [(3, signal.SIGWINCH), (1, signal.SIGWINCH)], "the largest first"
    assert (slot.fewest, sorted(slot.sizes)) == (2, [2, 4, 5]), "one at a time"
    assert lines(host) == [(3, "replaced"), (1, "replaced")]
    assert "replacing one: worker 3 takes 300 MiB, more than 100 (service_worker_memory_max_mib)" in said
    assert run(host) == ["no worker takes more than 100 MiB"]


def test_without_a_limit_nobody_is_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.config = dataclasses.replace(host.config, worker_memory_max_mib=0)
    slot = Slot(host, {1: 9999}).install(monkeypatch)
    assert run(host) == ["off: service_worker_memory_max_mib is 0"]
    assert not slot.retired


def test_limit_that_new_workers_pass_at_once_costs_one_worker_until_something_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = Slot(host, {1: 150, 2: 150, 3: 150}, fresh=200).install(monkeypatch)
    with pytest.raises(RecycleError, match="only 2 s after it was started: the limit is too small for this app"):
        run(host)
    for _ in range(3):
        slot.ages = dict.fromkeys(slot.ages, 5000.0)
        with pytest.raises(RecycleError, match="stopped: worker 4 takes 200 MiB, more than 100"):
            run(host)
    assert [pid for pid, _ in slot.retired] == [1]
    assert "worker 4 takes 200 MiB" in status.recycling(host.context())["stopped"]
    host.config = dataclasses.replace(host.config, worker_memory_max_mib=160)
    slot.fresh = 30
    run(host)
    assert [pid for pid, _ in slot.retired] == [1, 4], "another limit"
    host.config = dataclasses.replace(host.config, worker_memory_max_mib=LIMIT)
    monkeypatch.setattr(host.clock, "time", lambda: 4e9)
    do(host, "bbb")
    assert recycle.stopped(host.config) == "", "another release"


def test_worker_that_does_not_come_back_stops_it_and_no_other_is_touched(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = Slot(host, {1: 150, 2: 150, 3: 30}).install(monkeypatch)
    slot.coming = None
    with pytest.raises(RecycleError, match=r"worker 1 was asked to leave, but not ready .*: 2 of 3 workers run"):
        run(host)
    with pytest.raises(RecycleError, match="but only 2 of 3 workers answer: not now"):
        run(host)
    assert lines(host) == [(1, "failed")]
    slot.come()
    slot.coming = 0.1
    slot.silent = {3}
    with pytest.raises(RecycleError, match="but only 2 of 3 workers answer: not now"):
        run(host)
    slot.silent = set()
    run(host)
    assert lines(host) == [(1, "failed"), (2, "replaced")]


def test_worker_that_stays_is_given_up_on_after_the_drain_and_the_heartbeat(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.config = dataclasses.replace(host.config, drain_timeout=5, worker_timeout=3)
    adopt(host.config, "aaa")
    slot = Slot(host, {1: 150, 2: 30, 3: 30}).install(monkeypatch)
    slot.deaf, before = True, host.clock.now
    with pytest.raises(RecycleError, match="worker 1 was asked to leave, but worker 1 has not left within 18 s"):
        run(host)
    assert host.clock.now - before == pytest.approx(18, abs=0.2)
    assert (lines(host), slot.fewest) == ([(1, "failed")], 3)


def test_one_that_left_before_it_was_asked_to_is_replaced_all_the_same(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = Slot(host, {1: 150, 2: 30, 3: 30}).install(monkeypatch)

    def gone(pid: int, number: int) -> None:
        slot.kill(pid, number)
        raise ProcessLookupError

    kernel = dataclasses.replace(host.kernel(), kill=gone)
    monkeypatch.setattr(host, "kernel", lambda: kernel)
    run(host)
    assert lines(host) == [(1, "replaced")]


def test_how_long_it_took_to_leave_and_in_all_is_written_down(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restarts of before are not held against it."""
    host.config = dataclasses.replace(host.config, drain_timeout=5, worker_timeout=3)
    slot = Slot(host, {1: 150.4, 2: 30, 3: 30}, leaving=1.25).install(monkeypatch)
    slot.coming, slot.restarts = 2.0, 4
    steps = run(host)
    record = host.config.live_record()
    assert history.entries(host.config, history.RECYCLED)[-1].items() >= {
        "verb": "recycle", "by": "timer", "release": "aaa", "switch": record.at, "worker": 1, "mib": 150,
        "limit": LIMIT, "result": "replaced", "reason": "", "left": 1.3, "seconds": 3.3,
    }.items()  # fmt: skip
    assert steps == [
        "replacing one: worker 1 takes 150 MiB, more than 100 (service_worker_memory_max_mib)",
        "it left after 1.3 s; 3 workers run and each has answered /health",
    ]


def test_server_that_falls_over_meanwhile_ends_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.config = dataclasses.replace(host.config, drain_timeout=5, worker_timeout=3)
    slot = Slot(host, {1: 150, 2: 150, 3: 30}, leaving=1.0).install(monkeypatch)
    slot.later.append((host.clock.now + 0.5, lambda: setattr(slot, "restarts", 1)))
    with pytest.raises(RecycleError, match=r"worker 1 was asked to leave, but counter@blue\.service failed"):
        run(host)
    assert [pid for pid, _ in slot.retired] == [1]


@pytest.mark.parametrize(("age", "replaced"), [(299, False), (300, True)])
def test_worker_younger_than_five_minutes_is_not_replaced(
    host: Host, monkeypatch: pytest.MonkeyPatch, age: float, replaced: bool
) -> None:
    slot = Slot(host, {1: 150, 2: 30, 3: 30}).install(monkeypatch)
    slot.ages[1] = age
    if not replaced:
        with pytest.raises(RecycleError, match=f"only {age} s after it was started"):
            run(host)
    else:
        run(host)
    assert lines(host) == [(1, "replaced" if replaced else "stopped")]


def test_never_beside_a_switch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot(host, {1: 150, 2: 30, 3: 30}).install(monkeypatch)
    with locked(host.config, "activate bbb", "alice"), pytest.raises(HostError, match="the lock is held: activate bbb"):
        run(host)
    host.config.transaction.write_text("{}")
    with pytest.raises(HostError, match="a switch was cut off"):
        run(host)
    assert not slot.retired


def test_workers_that_do_not_know_how_are_left_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot(host, {1: 150, 2: 30, 3: 30}).install(monkeypatch)
    service = host.config.slot_files("blue")["service"]
    service.write_text(service.read_text().replace("own_worker", "uvicorn_worker"))
    with pytest.raises(RecycleError, match="were started without recycling: deploy"):
        run(host)
    assert not slot.retired


def test_lone_worker_is_replaced_by_a_switch_with_the_settings_it_has(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(BaseException):
        """This process is systemd-run now."""

    called: list[str] = []

    def execute(program: str, words: list[str]) -> None:
        called.extend(words)
        raise Replaced

    slot = Slot(host, {1: 150}).install(monkeypatch)
    host.config = dataclasses.replace(host.config, plan=dataclasses.replace(host.config.plan, workers=1))
    record = host.config.slot_record("blue")
    record.write_text(record.read_text().replace('"workers": 3', '"workers": 1', 1))
    host.want("refused since")
    monkeypatch.setattr("plugins.module_utils.host.cli.os.execvp", execute)
    options = cli.read_words(["--config", "x", "recycle"])
    call = Call(options, "timer", functools.partial(cli._become, host.config, options))
    with pytest.raises(Replaced):
        VERBS["recycle"](host.context(), call)
    assert not slot.retired
    words = called[called.index("--config", 8) :]
    assert words[:4] == ["--config", "x", "restore", "aaa"]
    assert words[-3:-1] == ["--by", "timer, as worker 1 takes 150 MiB, more than 100 (service_worker_memory_max_mib)"]
    assert host.config.kept_files("aaa")["environment"].read_text().strip() == "first"
    candidates = history.rollback_candidates(host.config)
    do(host, "aaa", verb="restore")
    assert (host.live["release"], host.config.live_slot()) == ("aaa", "green")
    assert host.config.slot_files("green")["environment"].read_text().strip() == "first"
    assert history.rollback_candidates(host.config) == candidates, "it is no release to go back to"


def test_status_and_history_tell_of_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    Slot(host, {1: 150, 2: 30, 3: 40}).install(monkeypatch)
    run(host)
    recycling = status.recycling(host.context())
    found: dict[str, object] = {"recycling": recycling, "rollback_to": "x", "releases": [], "lock": None}
    assert status.as_text(found)[-1] == "recycling: a worker takes 40 MiB at most, 100 are allowed; 1 replaced so far"
    assert status.history_lines(host.config)[-1].endswith("recycle   worker 1 with 150 MiB: replaced")


def test_recycled_workers_do_not_push_switches_out_of_the_history(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_LINES", 3)
    monkeypatch.setattr(history, "FEWEST_LINES", 1)
    before = history.entries(host.config)
    Slot(host, dict.fromkeys(range(1, 7), 150.0)).install(monkeypatch)
    monkeypatch.setattr(type(host.config), "workers_of", lambda *_: 6)
    run(host)
    assert history.entries(host.config) == before
    assert 1 <= len(lines(host)) <= 3


def test_age_is_that_of_the_process() -> None:
    assert 0 < seconds_old(os.getpid()) < float(Path("/proc/uptime").read_text().split()[0])
    assert seconds_old(2**30) == 0.0


def test_timer_is_wanted_by_the_slots_only_where_there_is_a_limit() -> None:
    timer, service = unit(template("service", "recycle.timer.j2")), unit(template("service", "recycle.service.j2"))
    assert timer["Unit.StopWhenUnneeded"] == ["yes"]
    command, *words = service["Service.ExecStart"][0].split()
    assert command == value("service", "_service_command")
    given = cli.read_words(["--config", "x", *words])
    assert (given.verb, given.by) == ("recycle", "timer")
    off, on = (unit(template("service", "app@.service.j2", **more)) for more in ({}, ON))
    assert "counter-release-recycle.timer" not in off["Unit.Wants"]
    assert "counter-release-recycle.timer" in on["Unit.Wants"]
    for commands in (off["Service.ExecStart"], on["Service.ExecStart"]):
        assert " -k own_worker.EvenWorker " in commands[0]


@pytest.mark.parametrize(
    ("given", "worker"),
    [
        ({}, "own_worker.EvenWorker"),
        ({"python": "3.11"}, "fleet_preload.UvicornWorker"),
        ({"service_even_bursts": False}, "fleet_preload.UvicornWorker"),
        ({"service_even_bursts": False, "service_preload_libraries": False}, "fleet_preload.UvicornWorker"),
        ({"service_even_bursts": False, **ON}, "own_worker.RetiringWorker"),
        ({"service_even_bursts": False, "proxy_keepalive": 8}, "own_worker.RetiringWorker"),
        ({"service_engine": "asgi"}, "fleetasgi.Worker"),
    ],
)
def test_worker_class_is_the_plainest_that_does_what_is_wanted(given: dict[str, Any], worker: str) -> None:
    python = {"python": given.pop("python")} if "python" in given else {}
    text = template("service", "app@.service.j2", ansible_facts=facts(**python), **given)
    assert f" -k {worker} " in unit(text)["Service.ExecStart"][0]
    assert (recycle.WORKER_CLASS.decode() in text) == worker.startswith("own_worker.")
