"""Ubuntu 22.04, the oldest system that docs name: a release, a switch under load, the way back, the proof."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fleettest import REPOSITORY, App, assert_nothing_lost, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]


@pytest.fixture(autouse=True)
def jammy(app: App) -> None:
    """The host is that system, not one that stands in for it."""
    if "standing in" in app.variables["lab_os"]:
        pytest.skip(f"Ubuntu 22.04 cannot be had here: {app.variables['lab_os']}")


def test_host_has_the_oldest_systemd_and_python_that_docs_name(app: App) -> None:
    assert app.host.check_output("systemctl --version").startswith("systemd 249 ")
    assert app.host.check_output("/usr/bin/python3 --version").startswith("Python 3.10.")


def test_deploy_and_rollback_under_load_lose_nothing(app: App, tmp_path: Path) -> None:
    before = app.live["release"]
    source = tmp_path / "app"
    shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    with (source / "main.py").open("a") as main:
        main.write("\nNEWER = True\n")
    variables = {"app_source": str(source), "service_watch_seconds": 1}
    with app.load(mix="get-new=40,get-keep=40,post-keep=15,post-new=5,long=0.5", long_seconds=3) as load:
        done = playbook("deploy.yml", variables=variables)
        assert done.returncode == 0, done.stdout
        after = app.live["release"]
        done = playbook("playbooks/rollback.yml", variables={"service_watch_seconds": 1})
        assert done.returncode == 0, done.stdout
        report = load.stop()
    assert_nothing_lost(report, 200)
    assert report.releases.keys() == {before, after}
    app.assert_settled(before)


def test_verify_proves_the_workers(app: App) -> None:
    done = playbook("playbooks/verify.yml")
    assert done.returncode == 0, done.stdout
