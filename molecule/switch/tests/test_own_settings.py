"""What a refused deploy has left on a host reaches nothing that runs for the live release."""

from __future__ import annotations

import json

import pytest
from fleettest import App, assert_nothing_lost, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")


@pytest.mark.fault(54)
def test_after_a_refused_deploy_commands_and_restarts_take_what_the_live_release_serves_with(app: App) -> None:
    """The refused one lacks a variable without which its app does not start."""
    name, live = app.name, app.live["release"]
    variables = {"service_env": {"PYTHONPATH": "/x", "PYTHONHOME": "/nonexistent"}, "service_boot_timeout": 15}
    done = playbook("deploy.yml", "--limit", "web1", variables=variables)
    assert done.returncode != 0, done.stdout
    assert "did not take release" in done.stdout, done.stdout
    assert "PYTHONHOME" in app.host.file(f"/etc/{name}/environment").content_string

    assert app.host.run(f"{name}-release run live -- /usr/bin/python3 -c 'import os'").rc == 0
    assert app.host.run(f"{name}-release run live --wanted -- /usr/bin/python3 -c 'import os'").rc != 0
    with app.load(mix="get-new=1,get-keep=1") as load:
        for words in ("restart", "activate live", f"activate {live}"):
            before = app.slot
            said = json.loads(app.host.check_output(f"{name}-release {words} --json"))
            assert said["live"]["release"] == live
            assert app.slot != before
            assert "PYTHONHOME" not in app.host.file(f"/etc/{name}/environment.{app.slot}").content_string
        report = load.stop()
    assert_nothing_lost(report, 200)
    app.host.check_output(f"systemctl restart {app.unit}")
    assert app.command("activate", live)[0] == 1, "with what the refused deploy has brought"
    assert app.live["release"] == live
