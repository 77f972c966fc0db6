"""Deploys in a row, as a user runs them, while clients ask all the time: ten, or a hundred with FLEET_FULL=1."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fleettest import REPOSITORY, App, assert_nothing_lost, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again")


@pytest.mark.fault(1)
def test_deploys_in_a_row_under_load_lose_nothing(app: App, tmp_path: Path) -> None:
    """New connections, kept-alive ones, bodies, long requests and slow downloads, over each of the switches.

    Each switch waits for the long ones: 10 s in the full form, 4 s here, as test_switch.py has longer ones.
    """
    count, seconds = (100, 10) if os.environ.get("FLEET_FULL") else (10, 4)
    source = tmp_path / "app"
    shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    settings = {"app_source": str(source), "service_watch_seconds": 1}
    mix = "get-new=40,get-keep=40,post-keep=15,post-new=4,long=0.1,download=0.9"
    with app.load(rate=100, mix=mix, long_seconds=seconds, timeout=40) as load:
        for number in range(count):
            with (source / "main.py").open("a") as main:
                main.write(f"\nDEPLOY = {number}\n")
            done = playbook("deploy.yml", "--limit", "web1", variables=settings)
            assert done.returncode == 0, done.stdout
        report = load.stop()
    assert_nothing_lost(report, 100 * count)
    # The one before the first of them, too, unless its last second had no answer.
    assert count <= len(report.releases) <= count + 1
