"""Measuring on a host that somebody switches meanwhile; test_tune.py has all that leaves the live slot as it was."""

from __future__ import annotations

import pytest
from fleettest import App, wait_until
from fleettune import start, traces

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")


def test_measuring_gives_way_to_a_switch(app: App) -> None:
    process = start(app)
    rc, said = app.command("activate", app.live["release"])
    assert rc == 0, said
    assert not traces(app)
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode != 0
    assert "web1 was not measured: measuring was ended from outside" in output
    wait_until(lambda: not traces(app))
    rc, said = app.command("verify")
    assert (rc, said["differences"]) == (0, [])
