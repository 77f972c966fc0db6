"""A host goes from one engine to the next, and back to the one that it had."""

from __future__ import annotations

import pytest
from fleettest import App, assert_nothing_lost, playbook, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]

MIX = "get-new=40,get-keep=40,post-keep=15,download=4,long=1"
SERVERS = {"gunicorn": "\0gunicorn\0", "asgi": "\0gunicorn\0", "uvicorn": "/fleet_uvicorn.py\0"}


def verified(app: App) -> bool:
    """Return whether as many workers as planned run and answer."""
    rc, said = app.command("verify")
    counts = {said.get("planned"), said.get("running"), said.get("answering")}
    return (rc, counts) == (0, {app.live["workers"]})


def assert_serves(app: App, engine: str) -> None:
    """As many workers as planned run and answer, in this engine."""
    assert app.live["engine"] == engine
    assert SERVERS[engine] in app.host.check_output(f"cat /proc/{app.master}/cmdline")
    assert verified(app), app.command("verify")
    assert app.answering("/health") <= app.workers, "it is the workers that answer, none of its other processes"


def assert_killed_worker_is_replaced(app: App) -> None:
    """Another takes its place, and the service stays."""
    master, victim = app.master, max(app.workers)
    app.host.check_output(f"kill -KILL {victim}")
    wait_until(lambda: victim not in app.workers and verified(app))
    assert app.master == master, "only the worker went, not the service"


@pytest.mark.fault(21)
def test_host_changes_its_engine_and_goes_back_with_nothing_lost(app: App, sample: str) -> None:
    """A deploy that changes it is one like any other; going back brings the engine of that time."""
    # gunicorn's packages are also those of hosts that run different engines: the same release, so give it another name.
    first = app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=30,"}, "first")
    assert app.command("activate", first)[0] == 0
    assert_serves(app, "asgi")
    for engine in ("uvicorn", "gunicorn"):
        with app.load(mix=MIX, long_seconds=3) as load:
            done = playbook(
                "deploy.yml", "--limit", "web1", variables={"service_engine": engine, "service_watch_seconds": 1}
            )
            report = load.stop()
        assert done.returncode == 0, done.stdout
        assert_nothing_lost(report, 300)
        assert len(report.releases) == 2, report.table()
        assert_serves(app, engine)
        assert_killed_worker_is_replaced(app)
    for engine in ("uvicorn", "asgi"):
        with app.load(mix=MIX, long_seconds=3) as load:
            rc, said = app.command("rollback")
            report = load.stop()
        assert rc == 0, said
        assert_nothing_lost(report, 100)
        assert app.live["settings"] == "kept"
        assert_serves(app, engine)
    app.assert_settled(first)
