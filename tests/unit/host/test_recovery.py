"""A switch that is killed at any step: the host ends on one good release, by itself.

Every effect that a switch has (a file opened to be written, renamed or removed, a link, a folder, a call of systemd) is
an interruption point. For each of them the switch runs and ends right before the effect, with no effect after it, as if
killed; then the recovery runs, at once or after a reboot.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host import history
from plugins.module_utils.host.config import Config
from plugins.module_utils.host.cutover import ACTIVATE, ROLLBACK, RefusedError, Request, cut_over
from plugins.module_utils.host.prune import prune
from plugins.module_utils.host.recover import recover
from tests.unit.host.fake_systemd import APP, Host

EFFECTS = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir"}


@dataclass
class Scenario:
    """A host that serves, and a switch on it. `good` are the releases that may be live in the end."""

    name: str
    verb: str
    release: str
    good: set[str]
    before: tuple[str, ...] = ("aaa",)
    settings: dict[str, Any] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()

    def host(self, folder: Path) -> Host:
        """Return the host, with whatever is broken about it."""
        made = Host(folder, **{**self.settings, "plan": dict(self.settings.get("plan", {}))})
        made.broken = set(self.broken)
        made.trouble = dict.fromkeys(self.trouble, "not well")
        return made

    def run(self, host: Host) -> None:
        """Switch as the command does; a refusal is an answer."""
        with contextlib.suppress(RefusedError):
            order = Request(self.verb, self.release, "alice@laptop")
            host.switch(order)
            prune(host.config, keep=2)


TIGHT = {"plan": {"inputs": {"memory_mib": 476, "reserve_mib": 256}}}
SCENARIOS = [
    Scenario("the first release", ACTIVATE, "aaa", {"", "aaa"}, before=()),
    Scenario("the next release", ACTIVATE, "bbb", {"aaa", "bbb"}),
    Scenario("a refused release", ACTIVATE, "bbb", {"aaa"}, broken=("bbb",)),
    Scenario("a release that goes back", ACTIVATE, "bbb", {"aaa"}, trouble=("bbb",)),
    Scenario("a rollback", ROLLBACK, "aaa", {"aaa", "bbb"}, before=("aaa", "bbb")),
    Scenario("little memory", ACTIVATE, "bbb", {"aaa", "bbb"}, settings=TIGHT),
    Scenario("the third release", ACTIVATE, "ccc", {"bbb", "ccc"}, before=("aaa", "bbb")),
]
each = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written; thousands of syncs take minutes."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class KilledError(BaseException):
    """The process is gone: no handler of the switch's own catches this, and no effect comes after it."""


class Killer:
    """Lets a number of effects pass, and none after them, until it is told to stop."""

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in EFFECTS:
            self.left -= 1
            if self.left < 0:
                raise KilledError

    def killed_at(self, point: int, run: Callable[[], None]) -> bool:
        """Run something that dies right before its effect number `point`; return whether it came to that."""
        self.left = point
        try:
            run()
        except KilledError:
            return True
        finally:
            self.left = None
        return False


#: One for all tests: an audit hook stays for good.
KILLER = Killer()


def check(config: Config, host: Host, good: set[str], at: str) -> None:
    """One good release is live, and nothing is left of the switch."""
    live, slot = host.live, config.live_slot()
    assert live.get("release", "") in good, at
    assert not config.transaction.exists(), at
    units = {f"{APP}@{slot}.service"} if slot else set()
    assert host.systemd.enabled == units, at
    assert {unit for unit in host.systemd.active if unit.endswith("service")} == units, at
    if slot:
        assert host.release_in(slot) == live["release"], at
        assert f"FLEET_RELEASE={live['release']}" in (config.root / "slots" / f"{slot}.env").read_text(), at
        for path, digest in live["files"].items():
            content = Path(path).read_bytes()
            secret = Path(path).parent == config.etc
            found = f"keyed:{config.digest(content)}" if secret else hashlib.sha256(content).hexdigest()
            assert found == digest, f"{at}: {path}"
        assert len(host.systemd.workers(1 + (slot == "green"))) == live["workers"], at
    assert set(history.bad(config)) <= {"bbb"}, at


@pytest.mark.fault(2)
@each
@pytest.mark.parametrize("then", ["recovered at once", "rebooted"])
def test_killed_at_any_step(scenario: Scenario, then: str, tmp_path: Path) -> None:
    _everywhere(scenario, then, tmp_path)


@pytest.mark.fault(9)
@each
def test_recovery_that_is_killed_at_any_step_is_taken_up_again(scenario: Scenario, tmp_path: Path) -> None:
    """Two kills: some points of the switch, all points of the recovery from there."""
    _everywhere(scenario, "killed again", tmp_path, every=7)


class Snapshot:
    """A host's files as they are now, to be brought back. What is the same file still is left alone: that is quick."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files: dict[str, bytes | str] = {}
        self.folders: dict[str, int] = {}
        self.seen: dict[str, tuple[int, ...]] = {}
        for path, entry in self._walk():
            if entry.is_symlink():
                self.files[path] = os.readlink(path)
            elif entry.is_dir():
                self.folders[path] = entry.stat().st_mode
            else:
                self.files[path] = Path(path).read_bytes()
            self.seen[path] = self._identity(path)

    def _walk(self) -> list[tuple[str, os.DirEntry[str]]]:
        found, todo = [], [str(self.place)]
        while todo:
            for entry in os.scandir(todo.pop()):
                found.append((entry.path, entry))
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
        return found

    @staticmethod
    def _identity(path: str) -> tuple[int, ...]:
        found = os.lstat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode

    def bring_back(self) -> None:
        """Make everything as it was."""
        there = dict(self._walk())
        for path in sorted(there.keys() - self.files.keys() - self.folders.keys(), reverse=True):
            os.rmdir(path) if there[path].is_dir(follow_symlinks=False) else os.unlink(path)
        for path in sorted(self.folders.keys() - there.keys()):
            os.mkdir(path)
        for path, content in self.files.items():
            if path in there and self._identity(path) == self.seen[path]:
                continue
            Path(path).unlink(missing_ok=True)
            if isinstance(content, str):
                os.symlink(content, path)
            else:
                Path(path).write_bytes(content)
                os.chmod(path, self.seen[path][3] & 0o7777)
            old = self.seen[path][2]
            os.utime(path, ns=(old, old), follow_symlinks=False)
            self.seen[path] = self._identity(path)


def _everywhere(scenario: Scenario, then: str, tmp_path: Path, every: int = 1) -> None:
    ready = Host(tmp_path)
    for release in scenario.before:
        Scenario("", ACTIVATE, release, set()).run(ready)
    start = Snapshot(tmp_path)
    point = 0
    while True:
        start.bring_back()
        host = scenario.host(tmp_path)
        if not KILLER.killed_at(point, functools.partial(scenario.run, host)):
            break
        at = f"{scenario.name}, killed at effect {point}, {then}"
        slot = host.config.live_slot()
        assert slot is None or f"{APP}@{slot}.service" in host.systemd.active, f"{at}: nobody serves"
        assert slot is None or f"{APP}@{slot}.service" in host.systemd.enabled, f"{at}: a reboot brings nobody"
        if then == "rebooted":
            host.systemd.reboot()
        inner, killed = 0, Snapshot(tmp_path) if then == "killed again" else None
        while killed and KILLER.killed_at(inner, functools.partial(_recovered, host)):
            _recovered(host)
            check(host.config, host, scenario.good, f"{at} at effect {inner} of the recovery")
            killed.bring_back()
            inner += 1
        _recovered(host)
        check(host.config, host, scenario.good, at)
        converges(scenario, host, at)
        point += every
    assert point > 20, "so few effects: are they seen?"


def _recovered(host: Host) -> None:
    with contextlib.suppress(RefusedError):
        recover(host.context())


def converges(scenario: Scenario, host: Host, at: str) -> None:
    """The next run does what this one should have."""
    host.broken, host.trouble = set(), {}
    if host.live.get("release") != scenario.release:
        order = Request(scenario.verb, scenario.release, "bob", force=True)
        host.switch(order)
    check(host.config, host, {scenario.release}, f"{at}, run again")


def test_nothing_to_recover_changes_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    SCENARIOS[0].run(host)
    calls = len(host.systemd.calls)
    recover(host.context())
    assert len(host.systemd.calls) == calls


def test_a_damaged_journal_leaves_the_slot_that_serves(tmp_path: Path) -> None:
    host = Host(tmp_path)
    SCENARIOS[0].run(host)
    host.config.transaction.write_text("{")
    recover(host.context())
    check(host.config, host, {"aaa"}, "damaged journal")


def test_a_release_that_is_not_well_after_a_reboot_goes_back(tmp_path: Path) -> None:
    """It had proved itself before the power went; now it does not start."""
    host = Host(tmp_path)
    SCENARIOS[0].run(host)
    with contextlib.suppress(RefusedError):
        cut_over(host.context(), Request(ACTIVATE, "bbb", "alice"))
    assert host.live["release"] == "bbb"
    host.broken.add("bbb")
    host.systemd.reboot()
    _recovered(host)
    check(host.config, host, {"aaa"}, "broken after the reboot")
    assert "bbb" in history.bad(host.config)
