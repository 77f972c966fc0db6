"""One sandbox: hooks, migrations and `run` can do what the app can do, and no more."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from plugins.module_utils.host.cutover import ACTIVATE, Request
from plugins.module_utils.host.hooks import command
from plugins.module_utils.host.sandbox import DIRECTIVES, sandbox_of
from plugins.module_utils.host.systemd import Command, Systemd
from tests.unit.host.fake_systemd import Host
from tests.unit.rendering import template

#: Directives of the unit's [Service] that say what runs, not what it may do.
OTHERS = {
    "Type", "User", "Group", "WorkingDirectory", "Environment", "EnvironmentFile", "ExecStart", "SyslogIdentifier",
    "Restart", "RestartSec", "KillMode", "TimeoutStartSec", "TimeoutStopSec", "OOMPolicy",
}  # fmt: skip


def service(**settings: object) -> list[tuple[str, str]]:
    """Return the lines of the app's [Service] section, without continuations."""
    text = template("service", "app@.service.j2", **settings).replace("\\\n", " ")
    section = text.partition("[Service]\n")[2].partition("[Install]")[0]
    return [(name, value) for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE)]


def test_each_line_of_the_unit_is_the_sandboxs_or_says_what_runs() -> None:
    """A new line of hardening that hooks would not get is seen here."""
    names = {name for name, _ in service(service_writable_paths=["/data"])}
    assert names - OTHERS == DIRECTIVES
    assert not OTHERS & DIRECTIVES


@pytest.mark.parametrize("deny", [True, False])
def test_what_the_unit_has_the_sandbox_has_in_the_same_order(deny: bool) -> None:
    settings = {"service_deny_write_execute": deny, "service_writable_paths": ["/data", "/spool"]}
    sandbox = sandbox_of(template("service", "app@.service.j2", **settings))
    assert list(sandbox) == [line for line in service(**settings) if line[0] in DIRECTIVES]
    assert ("MemoryDenyWriteExecute", "yes" if deny else "no") in sandbox
    assert ("ReadWritePaths", "/data /spool") in sandbox
    assert [value for name, value in sandbox if name == "SystemCallFilter"] == [
        "@system-service", "~@privileged @resources",
    ]  # fmt: skip
    assert ("CapabilityBoundingSet", "") in sandbox, "an empty one takes all away"


def test_a_hook_runs_in_the_sandbox_of_its_slot(tmp_path: Path) -> None:
    host = Host(tmp_path, hook_before="before")
    wanted = host.config.wanted_files()["service"]
    wanted.write_text(f"{wanted.read_text()}PrivateTmp=yes\n")
    host.switch(Request(ACTIVATE, "aaa", "me"))
    assert host.systemd.commands[0].sandbox == (("PrivateTmp", "yes"),)
    wanted.write_text("ProtectHome=yes\n")
    call = command(host.config, "aaa", {"path": [], "module": "main:app"}, host.config.wanted_files(), ["id"])
    assert call.sandbox == (("ProtectHome", "yes"),)


def test_systemd_run_is_given_each_property_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemd-run"
    program.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sandbox = sandbox_of(template("service", "app@.service.j2"))
    call = Command(("id", "$X"), "web", "shop", Path("/srv"), Path("/etc/web/environment"), 9, sandbox)
    _, output = Systemd(str).run(call)
    words = output.splitlines()
    properties = [word.removeprefix("--property=") for word in words if word.startswith("--property=")]
    own = [
        "User=shop",
        "Group=shop",
        "WorkingDirectory=/srv",
        "EnvironmentFile=/etc/web/environment",
        "RuntimeMaxSec=9",
    ]
    assert properties == [*own, *(f"{name}={value}" for name, value in sandbox)]
    assert words[-3:] == ["--", "id", "$$X"]


def exposure(folder: Path, name: str, lines: list[str]) -> float:
    """Return what `systemd-analyze security` gives a unit: 0 is safest, 10 the opposite."""
    unit = folder / name
    unit.write_text("\n".join(["[Service]", "ExecStart=/bin/true", "User=daemon", *lines, ""]))
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=100", "--no-pager", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if not found:
        pytest.skip(f"systemd-analyze cannot judge a file here: {done.stderr.strip()[:200]}")
    return float(found[1])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze, which is not on this machine")
def test_a_hook_is_as_little_exposed_as_the_app(tmp_path: Path) -> None:
    unit = [f"{name}={value}" for name, value in service() if name not in OTHERS]
    hook = [f"{name}={value}" for name, value in sandbox_of(template("service", "app@.service.j2"))]
    assert exposure(tmp_path, "hook.service", hook) == exposure(tmp_path, "app.service", unit) < 2
    assert exposure(tmp_path, "bare.service", []) > 8
