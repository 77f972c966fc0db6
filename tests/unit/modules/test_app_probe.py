"""What app_probe reads of a host, where files and interpreters are as hosts leave them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.facts.hardware import linux
from ansible.module_utils.testing import patch_module_args

from plugins.module_utils.host import probe as probe_module
from plugins.module_utils.host.files import read_object
from plugins.module_utils.host.interpreter import python_version
from plugins.module_utils.host.probe import probe, releases_on_disk, unfit, user_exists
from plugins.module_utils.host.records import fleet_of
from plugins.module_utils.workers import limits as limits_module
from plugins.module_utils.workers.limits import Groups
from plugins.modules import app_probe

DAMAGED = {
    "missing": None,
    "empty": b"",
    "cut off": b'{"release": "abc", "wor',
    "not UTF-8": b'{"release": "\xff\xfe"}',
    "zeros, as after a power cut": b"\0" * 64,
    "a list": b'["release"]',
    "a text": b'"release"',
    "a number": b"7",
    "null": b"null",
}


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_python_version_is_the_interpreters_own() -> None:
    assert python_version(sys.executable) == "{}.{}.{}".format(*sys.version_info)


@pytest.mark.parametrize(
    "text",
    ["exit 1", "true", "echo Python 3.12.1", "echo 3.12.1; echo 3.13.1", "echo 3.12.1 >&2", "echo '3.12.1\n-- evil'"],
)
def test_what_is_no_python_has_no_version(tmp_path: Path, text: str) -> None:
    assert python_version(script(tmp_path / "python3", text)) == ""


def test_python_that_cannot_be_run_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    for path in (tmp_path / "nothing", tmp_path / "text", tmp_path):
        assert python_version(str(path)) == ""


def test_python_is_asked_without_what_a_user_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in PYTHONPATH would stand for the standard library's."""
    (tmp_path / "encodings.py").write_text("print('noise')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert python_version(sys.executable) == "{}.{}.{}".format(*sys.version_info)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_json_is_an_empty_object(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "live.json").write_bytes(content)
    assert read_object(tmp_path / "live.json") == {}


def test_json_that_is_well_is_read(tmp_path: Path) -> None:
    (tmp_path / "live.json").write_text('{"release": "grün"}', encoding="utf-8")
    assert read_object(tmp_path / "live.json") == {"release": "grün"}
    assert read_object(tmp_path) == {}


def release(root: Path, name: str, marker: bytes | None) -> None:
    folder = root / "releases" / name
    (folder / "app").mkdir(parents=True)
    if marker is not None:
        (folder / ".complete").write_bytes(marker)


def test_no_folder_no_releases(tmp_path: Path) -> None:
    assert releases_on_disk(tmp_path / "nothing") == []


def test_only_whole_releases_count(tmp_path: Path) -> None:
    whole = {"id": "aaaaaaaaaaaa", "sha256": "1", "lib_sha256": "2"}
    release(tmp_path, "aaaaaaaaaaaa", json.dumps(whole).encode())
    release(tmp_path, "half-unpacked", None)
    for number, content in enumerate(DAMAGED.values()):
        release(tmp_path, f"damaged{number}", content)
    (tmp_path / "releases" / ".complete").write_text(json.dumps({"id": "no release's marker"}))
    (tmp_path / "releases" / "a file").write_text("")
    assert releases_on_disk(tmp_path) == [whole]


def test_releases_come_in_the_same_order_each_time(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        release(tmp_path, name, json.dumps({"id": name}).encode())
    assert [found["id"] for found in releases_on_disk(tmp_path)] == ["a", "b", "c"]


def test_user_is_looked_up_by_its_whole_name() -> None:
    assert user_exists("root")
    assert not user_exists("roo")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, []),
        ({"python": "3.10", "systemd": 249}, []),
        ({"python": "4.0"}, []),
        ({"python": "3.9"}, ["/opt/python3 is Python 3.9 (needed: 3.10 or newer)"]),
        ({"python": ""}, ["/opt/python3 is not there, or no Python (needed: 3.10 or newer)"]),
        ({"systemd": 0}, ["PID 1 is not systemd (needed: systemd 249 or newer)"]),
        (
            {"systemd": 245, "python": "2.7"},
            ["it has systemd 245 (needed: 249 or newer)", "/opt/python3 is Python 2.7"],
        ),
    ],
)
def test_host_that_cannot_run_the_app_is_told_why(facts: dict[str, Any], said: list[str]) -> None:
    params = {"python": "/opt/python3", "python_min": "3.10", "systemd_min": 249}
    reason = unfit({"python": "3.12", "systemd": 255, **facts}, params)
    assert [text for text in said if text not in reason] == []
    assert bool(reason) == bool(said)


@pytest.mark.parametrize(
    "name",
    [
        "environment",
        "environment.blue",
        "hooks.json",
        "hooks.blue.json",
        "digest.key",
        "releases/aaa/environment",
        "releases/aaa/hooks",
    ],
)
def test_no_plain_hash_is_made_of_a_secret_file(name: str) -> None:
    patterns = [pattern.format(app="web") for pattern in probe_module.FILES]
    assert not [pattern for pattern in patterns if Path("etc/web", name).match(pattern)]


FINGERPRINT = f"{'0' * 16}-{'a' * 32}"


@pytest.mark.parametrize(
    ("measured", "kept", "fresh", "plan", "plan_live"),
    [
        (150, 50, 0, 2, 7),
        (None, 50, 0, 7, 7),
        (150, None, 0, 2, 3),
        # Fresh workers show that more is needed, never that less will do.
        (None, None, 150, 2, 3),
        (None, 50, 150, 2, 7),
        (None, 50, 60, 5, 7),
        (None, None, 40, 3, 3),
        (50, 150, 120, 2, 2),
    ],
)
def test_what_workers_take_now_is_for_another_release_than_the_live_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh: int,
    measured: int | None,
    kept: int | None,
    plan: int,
    plan_live: int,
) -> None:
    record = {"release": "aaaaaaaaaaaa", "slot": "blue", "fresh_mib": fresh, "plan": {"inputs": {"measured_mib": kept}}}
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots/blue.json").write_text(json.dumps(record))
    (tmp_path / "live.sock").symlink_to("/run/web/blue.sock")
    monkeypatch.setattr(probe_module, "cpus_of", lambda _: 4)
    monkeypatch.setattr(probe_module, "memory_of", lambda _: 8192)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(probe_module, "systemd_version", lambda: 255)
    pids = {"web@blue.service": 7}
    monkeypatch.setattr(probe_module, "states", lambda *units: {unit: (True, pids.get(unit, 0)) for unit in units})
    monkeypatch.setattr(probe_module, "children", lambda main_pid: [main_pid] if main_pid else [])
    monkeypatch.setattr(probe_module, "measured_mib", lambda pids: {(7,): measured}[tuple(pids)])
    monkeypatch.setattr(probe_module, "read_groups", lambda **_: Groups(None, 972, ("a note",)))
    params = {"app": "web", "root": str(tmp_path), "python": sys.executable, "user": None, "plan": {"workers": "auto"}}
    params |= {"secrets": {}, "key_file": None}
    facts = probe(params)["app_probe"]
    assert (facts["plan"]["workers"], facts["plan_live"]["workers"]) == (plan, plan_live)
    assert facts["plan"]["inputs"]["memory_limit_mib"] == 972
    assert facts["plan"]["notes"] == ["a note"]


@pytest.mark.parametrize(
    ("workers", "measured"),
    [
        ([], None),
        ([(3600 - 1, 90)], None),  # has not served for an hour yet
        ([(3600, 90)], 125),  # 112.5, rounded up
        ([(3600, 40), (9000, 80), (10, 900)], 100),
        ([(3600, 81)], 125),
        ([(3600, 1)], 25),
        ([(3600, 0)], None),  # it has just ended
    ],
)
def test_a_worker_counts_once_it_has_served_for_an_hour_and_with_room_to_grow(
    workers: list[tuple[float, float]], measured: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "seconds_old", lambda pid: workers[pid][0])
    monkeypatch.setattr(probe_module, "memory_mib", lambda pid: workers[pid][1])
    assert probe_module.measured_mib(range(len(workers))) == measured


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("record", "wanted", "refused"),
    [
        (None, "shop-staging", False), (None, "", False), ("", "", False), ("", "shop-staging", False),
        ("shop-staging", "shop-staging", False), ("shop-production", "shop-staging", True),
        ("shop-production", "", True), ("shop-production", "shop", True),
    ],
)  # fmt: skip
def test_a_host_refuses_another_fleet_than_it_remembers_and_none_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    record: str | None, wanted: str, refused: bool,
) -> None:  # fmt: skip
    """None, where it remembers one, is a wrong inventory; where it remembers none, as before 0.2, it takes any."""
    if record is not None:
        (tmp_path / "web").mkdir()
        (tmp_path / "web/fleet").write_text(f"{record}\n")
    facts = {"app_probe": {"fleet": fleet_of(tmp_path / "web"), "systemd": 255, "python": "3.12"}}
    monkeypatch.setattr(app_probe, "probe", lambda _: facts)
    with patch_module_args({"app": "web", "root": "/srv/web", "fleet": wanted}), pytest.raises(SystemExit):
        app_probe.main()
    said = json.loads(capsys.readouterr().out)
    assert said.get("failed", False) is refused
    if refused:
        fleets = f"belongs to the fleet shop-production, but service_fleet is {json.dumps(wanted)}"
        assert f"{fleets}. Nothing was changed on it." in said["msg"]
        assert "to move the host, remove /etc/web/fleet on it" in said["msg"]


def test_a_record_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "web/fleet").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        fleet_of(tmp_path / "web")


def cpuinfo(sockets: int, cores: int, threads: int) -> str:
    """Return what a PC's kernel would tell of its processors."""
    found = []
    for number in range(sockets * cores * threads):
        socket, core = number // (cores * threads), number % cores
        found.append(
            f"processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: CPU\nphysical id\t: {socket}\n"
            f"siblings\t: {cores * threads}\ncore id\t\t: {core}\ncpu cores\t: {cores}\nflags\t\t: fpu vme\n"
        )
    return "\n".join(found)


ARM = "".join(f"processor\t: {number}\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n\n" for number in range(8))


@pytest.mark.parametrize("text", [*(cpuinfo(*shape) for shape in ((1, 1, 1), (1, 2, 2), (2, 8, 2), (2, 12, 1))), ARM])
def test_cpus_are_counted_as_ansible_counts_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "get_file_lines", lambda path: text.splitlines() if "cpuinfo" in path else [])
    setup = linux.LinuxHardware(SimpleNamespace(get_bin_path=lambda _: None)).get_cpu_facts()
    assert probe_module.cpus_of(text) == setup["processor_vcpus"]


def test_memory_is_counted_as_ansible_counts_it() -> None:
    text = Path("/proc/meminfo").read_text()
    assert limits_module.memory_of(text) == linux.LinuxHardware(SimpleNamespace()).get_memory_facts()["memtotal_mb"]
    assert limits_module.memory_of("") == 0


def test_memory_for_less_than_one_worker_ends_the_module_with_what_can_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = {"app": "web", "root": str(tmp_path), "plan": {"worker_mib": 1048576}}
    monkeypatch.setattr(probe_module, "systemd_version", lambda: 0)
    with patch_module_args(params), pytest.raises(SystemExit, match="1"):
        app_probe.main()
    message = json.loads(capsys.readouterr().out)["msg"]
    assert "less than one worker takes, 1048576 MiB: allowed are more memory" in message
    assert "service_worker_memory_mib" in message
