"""Hooks: as whom, where and with what they run, and what a failure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.host.hooks import HookError, command, run_hook, unit, variables
from plugins.module_utils.host.log_excerpt import HEADING, OTHER_LINES
from tests.unit.host.fake_systemd import Host

MANIFEST = {"path": ["app", "site", "lib"], "module": "main:make()"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path, hook_before="before $X", hook_after="after", hook_timeout=7.0, user="shop", python="/opt/py")
    for kind, path in made.config.slot_files("green").items():
        path.write_bytes(made.config.wanted_files()[kind].read_bytes())
    return made


def test_the_app_is_told_its_release_and_where_its_code_is(host: Host) -> None:
    folder = host.config.release_dir("aaa")
    assert variables(host.config, "aaa", MANIFEST) == {
        "FLEET_RELEASE": "aaa",
        "FLEET_MODULE": "main:make()",
        "FLEET_APP": "main:make",
        "PYTHONPATH": f"{folder}/app:{folder}/site:{folder}/lib",
    }


def test_a_command_runs_as_the_app_in_its_folder_for_so_long(host: Host) -> None:
    made = command(host.config, "aaa", MANIFEST, host.config.wanted_files(), ["id", "-u"])
    assert (made.user, made.folder, made.limit) == ("shop", host.config.release_dir("aaa") / "app", 7.0)
    assert made.environment_file == host.config.etc / "environment"
    assert made.words[0] == "/usr/bin/env"
    assert {"FLEET_RELEASE=aaa", "FLEET_PYTHON=/opt/py"} <= set(made.words)
    assert made.words[-2:] == ("id", "-u")
    assert made.unit == "", "two may run at a time"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_runs_in_the_one_unit_that_recovery_looks_for(host: Host, when: str) -> None:
    run_hook(host.context(), when, "green", "aaa", MANIFEST)
    (made,) = host.systemd.commands
    assert made.unit == unit(host.config) == "counter-release-hook.service"
    assert made.words[-3:] == ("sh", "-c", {"before": "before $X", "after": "after"}[when])
    assert made.environment_file == host.config.etc / "environment.green", "the slot's own, not what is wanted next"


def test_no_hook_is_none(tmp_path: Path) -> None:
    bare = Host(tmp_path)
    run_hook(bare.context(), "before", "green", "aaa", MANIFEST)
    assert bare.systemd.commands == []


@pytest.mark.parametrize(("output", "shown"), [("no such table\n", "no such table"), ("", "it printed nothing")])
def test_a_failure_says_which_hook_how_it_ended_and_what_it_printed(host: Host, output: str, shown: str) -> None:
    host.systemd.hook_result = (3, output)
    with pytest.raises(HookError, match=f"^service_hook_after failed with exit code 3: {shown}$"):
        run_hook(host.context(), "after", "green", "aaa", MANIFEST)


def test_of_a_long_output_the_last_line_is_the_reason_and_the_end_is_kept(host: Host) -> None:
    host.systemd.hook_result = (1, "\n".join(f"line {number}" for number in range(100)))
    with pytest.raises(HookError, match=r"exit code 1: line 99$") as failed:
        run_hook(host.context(), "before", "green", "aaa", MANIFEST)
    assert failed.value.log == tuple(f"line {number}" for number in range(100 - OTHER_LINES, 100))


def test_the_exception_of_a_hook_is_its_reason(host: Host) -> None:
    host.systemd.hook_result = (1, f'{HEADING}:\n  File "m.py", line 1\nOSError: no table\nrolled back\n')
    with pytest.raises(HookError, match=r"exit code 1: OSError: no table$"):
        run_hook(host.context(), "before", "green", "aaa", MANIFEST)
