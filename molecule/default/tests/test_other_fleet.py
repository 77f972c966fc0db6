"""A host that remembers which fleet it belongs to: what comes for another one is refused before anything is changed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from fleettest import INVENTORY, REPOSITORY, App, inventory, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]

OWN, OTHER = "counter-production", "counter-staging"


def deploy(*arguments: str, fleet: str = OWN, **variables: Any) -> subprocess.CompletedProcess[str]:
    given = {"service_fleet": fleet, **variables}
    return playbook("deploy.yml", *arguments, variables=given)


@pytest.fixture(scope="module")
def others() -> list[App]:
    """The scenario's other hosts, which remember no fleet."""
    found = []
    for name in ("web2", "web3"):
        host = testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)
        variables = inventory()["_meta"]["hostvars"][name]
        found.append(App(host, variables["app_name"], variables))
    return found


@pytest.fixture(scope="module")
def recorded(app: App) -> Iterator[str]:
    """web1 belongs to OWN; what it was told by that deploy. Afterwards it remembers none, as the other tests expect."""
    assert app.host.check_output(f"cat /etc/{app.name}/fleet") == ""
    before = app.state()
    try:
        done = deploy("--limit", "web1")
        assert done.returncode == 0, done.stdout
        assert app.state() == before, "the record alone replaces no worker"
        yield done.stdout
    finally:
        app.host.check_output(f"rm -f /etc/{app.name}/fleet")
    done = playbook("deploy.yml")
    assert done.returncode == 0, done.stdout


def everything(app: App) -> str:
    """All of the app's files on a host, by their content, and its processes."""
    folders = "/etc/{0} /etc/systemd/system /etc/nginx /usr/local/lib/{0}-release /usr/local/sbin /srv/{0}"
    files = f"find {folders.format(app.name)} -type f -not -path '*/__pycache__/*' -print0"
    found = app.host.check_output(f"{files} | sort -z | xargs -0 sha256sum")
    return f"{found}\n{app.state()}"


@pytest.fixture
def other_code(tmp_path: Path) -> str:
    """The app's source with other code."""
    copy = tmp_path / "app"
    shutil.copytree(REPOSITORY / "app", copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    with (copy / "main.py").open("a") as main:
        main.write("# another fleet's\n")
    return str(copy)


@pytest.mark.fault(73)
def test_the_fleets_own_deploy_is_as_before_and_changes_nothing(app: App, recorded: str) -> None:
    assert re.findall(r"^web1 .*changed=(\d+)", recorded, re.MULTILINE) == ["1"], "the record"
    assert app.host.check_output(f"cat /etc/{app.name}/fleet") == OWN
    before = everything(app)
    done = deploy("--limit", "web1")
    assert done.returncode == 0, done.stdout
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout
    assert everything(app) == before
    assert app.command("status")[1]["fleet"] == OWN
    assert f"fleet: {OWN}" in app.host.check_output(f"{app.name}-release status").splitlines()


@pytest.mark.fault(73)
@pytest.mark.parametrize(("wanted", "words"), [(OTHER, []), ("", []), (OTHER, ["--check"])])
def test_a_deploy_for_another_fleet_is_refused_before_anything_changes(
    app: App, others: list[App], recorded: str, other_code: str, wanted: str, words: list[str]
) -> None:
    """On all hosts of the run, also where the inventory names no fleet at all."""
    before = [everything(one) for one in (app, *others)]
    done = deploy(*words, fleet=wanted, app_source=other_code, service_workers=1)
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f'web1 belongs to the fleet {OWN}, but service_fleet is "{wanted}". Nothing was changed on it.' in said, said
    assert "web1 cannot take the app, for the reasons above. Nothing was changed on any host." in said
    assert [everything(one) for one in (app, *others)] == before


@pytest.mark.fault(73)
@pytest.mark.parametrize("verb", ["rollback", "tune"])
def test_a_rollback_and_tuning_for_another_fleet_are_refused(
    app: App, others: list[App], recorded: str, verb: str
) -> None:
    before = [everything(one) for one in (app, *others)]
    done = playbook(f"playbooks/{verb}.yml", variables={"service_fleet": OTHER, "tune_host": "web1", "tune_report": ""})
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    reason = f'web1 belongs to the fleet {OWN}, but service_fleet is "{OTHER}".'
    assert f"Nothing was changed on any host. {reason}" in said, said
    assert [everything(one) for one in (app, *others)] == before


def test_verify_counts_another_fleet_as_a_difference(app: App, recorded: str) -> None:
    done = playbook("playbooks/verify.yml", "--limit", "web1", variables={"service_fleet": OTHER})
    assert done.returncode != 0
    assert f'web1 belongs to the fleet {OWN}, but service_fleet is "{OTHER}"' in " ".join(done.stdout.split())
    done = playbook("playbooks/verify.yml", "--limit", "web1", variables={"service_fleet": OWN})
    assert done.returncode == 0, done.stdout


def test_a_host_moves_to_another_fleet_once_its_record_is_removed(app: App, recorded: str) -> None:
    """As docs/operations.md says."""
    before = app.state()
    app.host.check_output(f"rm /etc/{app.name}/fleet")
    done = deploy("--limit", "web1", fleet=OTHER)
    assert done.returncode == 0, done.stdout
    assert app.host.check_output(f"cat /etc/{app.name}/fleet") == OTHER
    assert app.state() == before
    said = " ".join(deploy("--limit", "web1").stdout.split())
    assert f'web1 belongs to the fleet {OTHER}, but service_fleet is "{OWN}"' in said
