"""A rollout over the scenario's three hosts: one that fails, one that is lost, a migration, a dry run, going back."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import testinfra
from fleettest import INVENTORY, REPOSITORY, App, assert_nothing_lost, inventory, playbook, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]

NAMES = ("web1", "web2", "web3")
QUICK = {"service_watch_seconds": 1}  # where a test is not about the watch
SHORT = "get-new=40,get-keep=40,post-keep=15,post-new=5"  # requests that no drain has to wait for
Fleet = dict[str, App]

WEB2_FAILS = "\nif __import__('os').uname().nodename == 'web2':\n    raise RuntimeError('web2 is not fit for it')\n"
WEB3_IS_SLOW = "\nif __import__('os').uname().nodename == 'web3':\n    time.sleep(6)\n"
#: Runs with the release's code only: no other release has this module.
MIGRATION = """
import os, sys
with open(os.environ["STATE_DIRECTORY"] + "/migrations", "a") as stream:
    stream.write(os.environ["FLEET_RELEASE"] + "\\n")
print("one table altered")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """The app on each of the hosts."""
    found = {}
    for name in NAMES:
        host = testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)
        variables = inventory()["_meta"]["hostvars"][name]
        found[name] = App(host, variables["app_name"], variables)
    return found


def deploy(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    return playbook("deploy.yml", *arguments, variables={**QUICK, **variables})


@pytest.fixture(scope="module")
def sample(fleet: Fleet) -> Iterator[str]:
    """The sample app's release; all hosts have it and its settings again afterwards, as other tests expect."""
    yield live(fleet)["web1"]
    done = playbook("deploy.yml")
    assert done.returncode == 0, done.stdout
    for app in fleet.values():
        app.host.check_output(f"rm -f /srv/{app.name}/bad.json /var/lib/{app.name}/migrations")


@pytest.fixture
def before(fleet: Fleet, sample: str) -> dict[str, tuple[str, int]]:
    """What runs on each host, its master included: the same release everywhere."""
    if set(live(fleet).values()) != {sample}:
        done = deploy()
        assert done.returncode == 0, done.stdout
    return running(fleet)


def live(fleet: Fleet) -> dict[str, str]:
    """The release that serves on each host."""
    return {name: str(app.live["release"]) for name, app in fleet.items()}


def running(fleet: Fleet) -> dict[str, tuple[str, int]]:
    """The release and the master on each host: other workers of the same release are not the same."""
    return {name: (str(app.live["release"]), app.master) for name, app in fleet.items()}


def changed_app(folder: Path, more: str) -> Path:
    """Return a copy of the sample app with some more code."""
    copy = folder / "app"
    shutil.copytree(REPOSITORY / "app", copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    with (copy / "main.py").open("a") as main:
        main.write(more)
    return copy


def rows(output: str) -> dict[str, list[str]]:
    """The table that a rollout ends with: what each host was, what it runs now, and what happened."""
    row = r"^ +(web\d)  +(\w+)[^\n]*?  +(\w+)[^\n]*?  +(\S.*)$"  # behind an id, what people call the release
    found = re.findall(row, output.partition("WHAT HAPPENED")[2], re.MULTILINE)
    return {name: rest for name, *rest in found}


def recap(output: str, what: str) -> dict[str, int]:
    """A figure of each host from Ansible's last lines."""
    return {name: int(count) for name, count in re.findall(rf"^(web\d) +: .*\b{what}=(\d+)", output, re.MULTILINE)}


# --- one of many fails -----------------------------------------------------------------------------


@pytest.mark.fault(6)
def test_one_host_fails_and_the_rollout_goes_back(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    """The first batch has switched, the second fails, the third is never touched."""
    with fleet["web1"].load(mix=SHORT) as load:
        done = deploy(app_source=str(changed_app(tmp_path, WEB2_FAILS)), fleet_batches=[1])
        report = load.stop()
    assert done.returncode != 0
    assert live(fleet) == dict.fromkeys(NAMES, sample), done.stdout
    after = running(fleet)
    assert after["web1"] != before["web1"], "it had switched, and went back"
    assert (after["web2"], after["web3"]) == (before["web2"], before["web3"])
    said = rows(done.stdout)
    assert said["web1"] == [sample, sample, "switched; taken back, as the rollout stopped"]
    assert said["web2"][:2] == [sample, sample]
    assert said["web2"][2].startswith("refused: ")
    assert said["web3"] == [sample, sample, "not touched, as the rollout stopped"]
    assert "The rollout stopped: 1 of 3 hosts failed, and fleet_max_failures is 0." in done.stdout
    assert "RuntimeError: web2 is not fit for it" in done.stdout
    assert recap(done.stdout, "failed") == {"web1": 0, "web2": 1, "web3": 0}
    assert_nothing_lost(report, 300)
    for app in fleet.values():
        app.assert_settled(sample)


@pytest.mark.fault(6)
def test_hosts_stay_if_asked_to_and_a_budget_lets_the_others_go_on(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    source = str(changed_app(tmp_path, WEB2_FAILS + "# and the others stay\n"))
    done = deploy(app_source=source, fleet_batches=[1], fleet_restore=False)
    assert done.returncode != 0
    new = live(fleet)["web1"]
    assert live(fleet) == {"web1": new, "web2": sample, "web3": sample}
    assert rows(done.stdout)["web1"] == [sample, new, "switched; stays, as fleet_restore is false"]
    assert running(fleet)["web3"] == before["web3"]

    kept = running(fleet)["web1"]
    done = deploy(app_source=source, fleet_batches=[1], fleet_max_failures=1)
    assert done.returncode != 0, "a host that failed is no success, budget or not"
    assert live(fleet) == {"web1": new, "web2": sample, "web3": new}
    assert running(fleet)["web1"] == kept
    assert rows(done.stdout)["web1"][2] == "already up to date"
    assert "The rollout stop" not in done.stdout


@pytest.mark.fault(6)
def test_host_that_cannot_be_prepared_keeps_all_from_switching(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    """The release is unpacked there, but nginx's file cannot be written: a folder is in its place."""
    app = fleet["web2"]
    server = f"/etc/nginx/conf.d/{app.name}.conf"
    app.host.check_output(f"mv {server} /tmp/kept.conf && mkdir {server}")
    try:
        done = deploy(app_source=str(changed_app(tmp_path, "# unprepared\n")))
    finally:
        app.host.check_output(f"rmdir {server} && mv /tmp/kept.conf {server}")
    assert done.returncode != 0
    assert running(fleet) == before
    said = rows(done.stdout)
    assert said["web2"][2].startswith("not prepared: Put the app's server in place: "), done.stdout
    assert said["web1"] == said["web3"] == [sample, sample, "not touched, as the rollout stopped"]


# --- one cannot be reached ------------------------------------------------------------------------


@pytest.mark.fault(7)
def test_host_that_cannot_be_reached_stops_the_rollout_before_it_begins(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    there = trees(fleet)
    port = "{{ 1 if inventory_hostname == 'web2' else 22 }}"
    done = deploy(app_source=str(changed_app(tmp_path, "# unreached\n")), ansible_port=port)
    assert done.returncode != 0
    assert running(fleet) == before
    assert trees(fleet) == there
    said = rows(done.stdout)
    assert said["web2"][:2] == ["unknown", "unknown"]
    assert said["web2"][2].startswith("not reached: ")
    assert said["web1"] == said["web3"] == [sample, sample, "not touched, as the rollout stopped"]


def cut_connections(app: App, seconds: int) -> None:
    """Have the host drop all SSH connections once both slots run, and refuse new ones for a while."""
    units = [f"{app.name}@{slot}.service" for slot in ("blue", "green")]
    both = f"systemctl show --property=ActiveState --value {' '.join(units)} | grep -c ^activ"
    script = (
        f"until [ $({both}) = 2 ]; do sleep 0.1; done; systemctl stop ssh.socket ssh.service; pkill sshd; "
        f"sleep {seconds}; systemctl start ssh.socket ssh.service"
    )
    app.host.check_output("systemd-run --quiet --collect --unit=cut-connections sh -c %s", script)


def reachable(app: App) -> bool:
    """Whether the host takes connections."""
    try:
        return bool(app.host.run("true").rc == 0)
    except RuntimeError:  # ssh's own failure
        return False


@pytest.mark.fault(7)
def test_host_that_is_lost_while_it_switches_settles_by_itself(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    app = fleet["web1"]
    cut_connections(app, 40)
    with app.load(mix=SHORT) as load:
        done = deploy(app_source=str(changed_app(tmp_path, "# lost\n")))
        wait_until(lambda: reachable(app))
        wait_until(lambda: app.command("status")[1]["lock"] is None)
        report = load.stop()
    assert done.returncode != 0
    after = running(fleet)
    assert (after["web2"], after["web3"]) == (before["web2"], before["web3"]), "the next batch did not begin"
    said = rows(done.stdout)
    assert said["web1"][1] == "unknown"
    assert "the connection was lost during the switch" in said["web1"][2]
    assert said["web2"][2] == said["web3"][2] == "not touched, as the rollout stopped"
    app.assert_settled(after["web1"][0])
    assert_nothing_lost(report, 300)


@pytest.mark.fault(7)
def test_host_that_comes_back_is_asked_what_it_runs_and_taken_back(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    """It finishes its switch without the controller; with all others it goes back."""
    cut_connections(fleet["web3"], 5)
    done = deploy(app_source=str(changed_app(tmp_path, WEB3_IS_SLOW)))
    assert done.returncode != 0
    said = rows(done.stdout)
    assert {name: row[:2] for name, row in said.items()} == {name: [sample, sample] for name in NAMES}, done.stdout
    assert re.fullmatch(
        r"the connection was lost during the switch; it runs \w+; taken back, as the rollout stopped", said["web3"][2]
    )
    assert recap(done.stdout, "failed") == {"web1": 0, "web2": 0, "web3": 1}
    for app in fleet.values():
        app.assert_settled(sample)


# --- the migration ----------------------------------------------------------------------------------


def migrations(fleet: Fleet) -> dict[str, list[str]]:
    """The releases that a migration ran for, on each host where one ran."""
    said = {name: app.host.run(f"cat /var/lib/{app.name}/migrations").stdout.split() for name, app in fleet.items()}
    return {name: releases for name, releases in said.items() if releases}


@pytest.mark.fault(16)
def test_migration_runs_once_and_its_failure_keeps_all_hosts_from_the_release(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    source = changed_app(tmp_path, "# migrated\n")
    (source / "migrate_once.py").write_text(MIGRATION)
    done = deploy(app_source=str(source), fleet_migrate="$FLEET_PYTHON -S -m migrate_once 3", fleet_max_failures=3)
    assert done.returncode != 0
    assert running(fleet) == before
    assert "one table altered" in done.stdout
    assert "web1: the migration failed: exit code 3" in done.stdout
    assert "The rollout stopped: the migration failed on web1." in done.stdout
    ((ran_on, (new,)),) = migrations(fleet).items()
    assert (ran_on, new == sample) == ("web1", False)

    done = deploy(app_source=str(source), fleet_migrate="$FLEET_PYTHON -S -m migrate_once 0")
    assert done.returncode == 0, done.stdout
    assert live(fleet) == dict.fromkeys(NAMES, new)
    done = deploy(app_source=str(source), fleet_migrate="$FLEET_PYTHON -S -m migrate_once 0")
    assert done.returncode == 0, done.stdout
    assert set(recap(done.stdout, "changed").values()) == {0}
    assert migrations(fleet) == {"web1": [new, new]}, "once for each deploy that changed something"


# --- a dry run, and the way back ----------------------------------------------------------------------


def trees(fleet: Fleet) -> dict[str, str]:
    """A hash of what is on each host: names, owners, modes, times, and the contents but those of dependencies."""

    def tree(app: App) -> str:
        folders = f"/etc /srv/{app.name} /usr/local /var/lib/{app.name}"
        names = f"find {folders} -xdev -printf '%p %M %u %g %s %T@ %l\\n'"
        contents = f"find {folders} -xdev -path '/srv/*/lib' -prune -o -type f -exec sha256sum {{}} +"
        return str(app.host.check_output(f"({names}; {contents}) | sort | sha256sum"))

    with ThreadPoolExecutor(len(fleet)) as pool:
        return dict(zip(fleet, pool.map(tree, fleet.values()), strict=True))


@pytest.mark.fault(18)
def test_check_mode_touches_nothing_and_foretells_what_a_deploy_does(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    there = trees(fleet)
    new = {"app_source": str(changed_app(tmp_path, "# foretold\n")), "fleet_migrate": "true"}
    check = deploy("--check", **new)
    assert check.returncode == 0, check.stdout
    assert trees(fleet) == there
    assert running(fleet) == before
    (release,) = re.findall(r"Release (\w+)[^:]*: 3 would switch \(web1, web2, web3\)", check.stdout)
    assert "the migration would run once, on web1" in check.stdout

    done = deploy(**new)
    assert done.returncode == 0, done.stdout
    assert re.search(rf"Release {release}[^:]*: 3 switched \(web1, web2, web3\)", done.stdout)
    assert live(fleet) == dict.fromkeys(NAMES, release)

    there = trees(fleet)
    check = deploy("--check", **new)
    assert re.search(rf"Release {release}[^:]*: 3 already up to date \(web1, web2, web3\)", check.stdout), check.stdout
    assert set(recap(check.stdout, "changed").values()) == {0}
    assert trees(fleet) == there


def test_whole_fleet_goes_back_at_once(
    fleet: Fleet, before: dict[str, tuple[str, int]], sample: str, tmp_path: Path
) -> None:
    source = str(changed_app(tmp_path, "# regretted\n"))
    done = deploy(app_source=source, fleet_batches=["100%"])
    assert done.returncode == 0, done.stdout
    assert max(recap(done.stdout, "ok").values()) <= 12, "tasks are what a deploy costs"
    regretted = running(fleet)

    done = playbook("playbooks/rollback.yml", variables={"rollback_to": "0123456789ab"})
    assert done.returncode != 0
    assert "Nothing was changed on any host." in done.stdout
    for name in NAMES:
        assert f"{name}: release 0123456789ab is not on this host; there are: " in done.stdout
    assert running(fleet) == regretted

    began = time.monotonic()
    with fleet["web1"].load(mix=SHORT) as load:
        done = playbook("playbooks/rollback.yml", variables={"rollback_to": sample})
        took = time.monotonic() - began
        report = load.stop()
    assert done.returncode == 0, done.stdout
    assert re.search(rf"Release {sample}[^:]*: 3 switched \(web1, web2, web3\)", done.stdout)
    assert took < 60, "15 s, where the hosts have a machine each"
    lines = [app.command("history")[1]["history"][-1] for app in fleet.values()]
    begun, ended = [line["at"] - line["seconds"] for line in lines], [line["at"] + 1 for line in lines]
    assert max(begun) < min(ended), "all hosts at once, not one after the other"
    assert_nothing_lost(report, 100)
    for app in fleet.values():
        app.assert_settled(sample)

    for options in (["--check"], []):
        done = deploy(*options, app_source=source)
        assert done.returncode != 0
        assert "is marked bad on this host" in done.stdout
        assert ("would be refused: release " in done.stdout) == bool(options)
    assert live(fleet) == dict.fromkeys(NAMES, sample)
