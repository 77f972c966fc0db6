"""The host's switch against a fake systemd: what happens in which order, and what is left when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fleet_host import switch
from fleet_host.config import Config, HostError
from fleet_host.gate import GateError
from fleet_host.switch import RefusedError, activate
from fleet_host.systemd import Systemd, SystemdError, UnitState


class FakeSystemd(Systemd):
    """Remembers what it was asked for, and where the live link pointed then."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.calls: list[tuple[str, ...]] = []
        self.link_at_call: list[str] = []

    def _note(self, *call: str) -> None:
        self.calls.append(call)
        self.link_at_call.append(self.link.readlink().name if self.link.is_symlink() else "")

    def start(self, *units: str) -> None:
        self._note("start", *units)

    def stop(self, *units: str) -> None:
        self._note("stop", *units)

    def enable(self, unit: str) -> None:
        self._note("enable", unit)

    def disable(self, unit: str) -> None:
        self._note("disable", unit)

    def state(self, unit: str) -> UnitState:
        return UnitState("active", "success", 1, 0)

    def journal(self, unit: str, since: float, lines: int = 60) -> list[str]:
        return ["ModuleNotFoundError: No module named 'nothing'"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    root = tmp_path / "srv"
    for release in ("aaa", "bbb"):
        folder = root / "releases" / release
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"path": ["app", "lib"], "module": "main:app"}))
        (folder / ".complete").write_text("{}")
    etc, units = tmp_path / "etc", tmp_path / "units"
    for folder in (etc, units):
        folder.mkdir()
    for wanted in (etc / "environment", units / "counter@.service", units / "counter@.socket"):
        wanted.write_bytes(b"first\r\n")
    run = tmp_path / "run"
    return Config("counter", root, run, etc, units, plan={"workers": 3}, fingerprint="f1", drain_timeout=0.2)


@pytest.fixture
def systemd(config: Config) -> FakeSystemd:
    return FakeSystemd(config.live_link)


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A gate that says yes, until a test makes it say no."""
    verdict: dict[str, Any] = {"error": None}

    def decide(*_: object) -> str:
        if verdict["error"]:
            raise GateError(verdict["error"])
        return "3 workers run"

    monkeypatch.setattr(switch, "wait_until_proven", decide)
    return verdict


def live(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.root / "live.json").read_text())
    return found


def test_the_first_release_goes_to_blue_and_the_next_to_green(config: Config, systemd: FakeSystemd) -> None:
    activate(config, systemd, "aaa", print)
    assert (config.live_slot(), live(config)["release"]) == ("blue", "aaa")
    activate(config, systemd, "bbb", print)
    assert (config.live_slot(), live(config)["release"], live(config)["previous"]) == ("green", "bbb", "aaa")
    assert (config.root / "slots" / "green").readlink() == config.release_dir("bbb")


def test_the_old_slot_is_stopped_only_after_traffic_has_moved(config: Config, systemd: FakeSystemd) -> None:
    activate(config, systemd, "aaa", print)
    systemd.calls.clear()
    systemd.link_at_call.clear()
    activate(config, systemd, "bbb", print)
    seen = list(zip(systemd.calls, systemd.link_at_call, strict=True))
    assert (("stop", "counter@blue.service", "counter@blue.socket"), "green.sock") in seen
    assert all(link == "green.sock" for call, link in seen if "counter@blue.service" in call)
    assert (("enable", "counter@green.service"), "blue.sock") in seen, "a reboot right after the link must find it"


def test_a_refused_release_never_gets_the_link(config: Config, systemd: FakeSystemd, gate: dict[str, Any]) -> None:
    activate(config, systemd, "aaa", print)
    systemd.calls.clear()
    gate["error"] = "0 of 3 workers run"
    with pytest.raises(RefusedError, match="0 of 3 workers run") as refused:
        activate(config, systemd, "bbb", print)
    assert refused.value.log == ["ModuleNotFoundError: No module named 'nothing'"]
    assert (config.live_slot(), live(config)["release"]) == ("blue", "aaa")
    assert systemd.calls[-1] == ("stop", "counter@green.service", "counter@green.socket")
    assert not any("counter@blue.service" in call for call in systemd.calls)


def test_the_slot_is_told_its_release_and_search_path(config: Config, systemd: FakeSystemd) -> None:
    activate(config, systemd, "aaa", print)
    folder = config.release_dir("aaa")
    assert (config.root / "slots" / "blue.env").read_text().splitlines() == [
        "FLEET_RELEASE=aaa",
        "FLEET_MODULE=main:app",
        f"PYTHONPATH={folder}/app:{folder}/lib",
    ]


def test_the_same_release_with_new_settings_keeps_what_was_before_it(config: Config, systemd: FakeSystemd) -> None:
    for release in ("aaa", "bbb", "bbb"):
        activate(config, systemd, release, print)
    assert live(config)["previous"] == "aaa"


@pytest.mark.parametrize("release", ["ccc", "../aaa", "", "-x"])
def test_an_unknown_release_changes_nothing(config: Config, systemd: FakeSystemd, release: str) -> None:
    with pytest.raises(HostError, match="is not on this host; there are: aaa, bbb"):
        activate(config, systemd, release, print)
    assert systemd.calls == []


def test_a_half_unpacked_release_is_no_release(config: Config, systemd: FakeSystemd) -> None:
    (config.release_dir("bbb") / ".complete").unlink()
    with pytest.raises(HostError, match="only half unpacked"):
        activate(config, systemd, "bbb", print)
    assert systemd.calls == []
    assert config.live_slot() is None


def test_a_refused_deploy_leaves_the_files_of_the_slot_that_serves_alone(
    config: Config, systemd: FakeSystemd, gate: dict[str, Any]
) -> None:
    activate(config, systemd, "aaa", print)
    for wanted in config.slot_files("blue").values():
        wanted.write_text("bad")
    gate["error"] = "the new settings are bad"
    with pytest.raises(RefusedError):
        activate(config, systemd, "bbb", print)
    assert {path.read_bytes() for path in config.slot_files("blue")} == {b"first\r\n"}
    assert {path.read_text() for path in config.slot_files("green")} == {"bad"}


def test_secrets_stay_readable_by_root_only(config: Config, systemd: FakeSystemd) -> None:
    activate(config, systemd, "aaa", print)
    assert (config.etc / "environment.blue").stat().st_mode & 0o777 == 0o600
    assert (config.root / "live.json").stat().st_mode & 0o777 == 0o600


def test_when_the_link_cannot_move_everything_is_as_before(
    config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(config, systemd, "aaa", print)
    before = live(config)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(switch, "stage", full)
    with pytest.raises(RefusedError, match="No space left"):
        activate(config, systemd, "bbb", print)
    assert (live(config), config.live_slot()) == (before, "blue")
    assert systemd.calls[-2:] == [
        ("disable", "counter@green.service"),
        ("stop", "counter@green.service", "counter@green.socket"),
    ]


def test_a_slot_that_cannot_be_stopped_does_not_undo_the_switch(
    config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(config, systemd, "aaa", print)
    said: list[str] = []

    def fail(unit: str) -> None:
        raise SystemdError(f"cannot disable {unit}")

    monkeypatch.setattr(systemd, "disable", fail)
    activate(config, systemd, "bbb", said.append)
    assert (live(config)["release"], config.live_slot()) == ("bbb", "green")
    assert any("could not be stopped: cannot disable counter@blue.service" in line for line in said)
