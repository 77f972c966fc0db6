"""What gunicorn with Uvicorn workers does, the other engines do as well."""

from __future__ import annotations

import json
import time

import pytest
from fleettest import App, assert_nothing_lost, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1", "ansible://web2"]

MIX = "get-new=40,get-keep=40,post-keep=15,download=4,long=1"


@pytest.fixture(scope="module")
def second(app: App, sample: str) -> str:
    """Another release that is well, for the host's own engine."""
    return app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=60,"}, "second")


def go(app: App, release: str) -> dict[str, object]:
    """Switch to a release, which has to work."""
    rc, said = app.command("activate", release)
    assert rc == 0, said
    return said


def memory(app: App, pid: int, figure: str = "Pss") -> float:
    """Return what a process takes of the memory, in MiB."""
    return int(app.host.check_output(f"awk '/^{figure}:/ {{print $2}}' /proc/{pid}/smaps_rollup")) / 1024


@pytest.mark.fault(19)
def test_where_memory_does_not_hold_two_sets_it_grows_one_by_one(app: App, sample: str, second: str) -> None:
    """By TTIN and TTOU, which both servers know: two of three start, the third one when an old one has gone."""
    sizes = {pid: memory(app, pid) for pid in {app.master, *app.workers}}
    plan = json.loads(app.host.check_output(f"cat /etc/{app.name}/release.json"))["plan"]
    # A fresh one alone shares less with others, and is what the host reckons with.
    each = max(app.live["fresh_mib"], *(sizes[pid] for pid in app.workers))
    more = memory(app, app.master, "Anonymous") + 2.5 * each
    limit = sum(sizes.values()) + more
    plan["inputs"] |= {"workers": plan["workers"], "reserve_mib": plan["inputs"]["memory_mib"] - limit}
    master = app.master
    with app.settings(plan=plan, watch_seconds=1), app.load(mix=MIX, long_seconds=2) as load:
        said = go(app, second)
        report = load.stop()
    assert_nothing_lost(report, 100)
    assert "with 2 workers of 3, as memory does not hold both sets" in str(said["steps"]), said
    assert app.master != master
    wait_until(lambda: len(app.workers) == app.live["workers"])
    assert app.command("verify")[0] == 0


def test_other_numbers_of_workers_are_measured_with_the_engine_that_serves(app: App) -> None:
    before, workers = app.state(), app.workers
    words = ("--workers=1,2", "--rounds=1", "--seconds=2", "--while-serving", "--load=/serve/blocking?seconds=0.2")
    rc, said = app.command("tune", *words)
    assert rc == 0, said
    speeds = {entry["workers"]: entry["throughput"] for entry in said["tuned"]["rounds"]}
    assert speeds[2] > 1.5 * speeds[1] > 0, speeds
    assert (app.state(), app.workers) == (before, workers)


@pytest.mark.fault(11)
def test_websockets_are_closed_with_1012_once_the_drain_time_is_over(app: App, sample: str, second: str) -> None:
    drain = 4
    if app.live["release"] != second:
        go(app, second)
    with app.settings(drain_timeout=drain, watch_seconds=1), app.load(mix="get-new=1,get-keep=1", websockets=4) as load:
        time.sleep(1)
        go(app, sample)
        app.wait_for_the_old_slot()
        report = load.stop()
    moved = report.releases[sample].first
    before = [each for each in report.websockets if each.release == "second"]
    assert len(before) == 4, report.table()
    assert {(each.closed_by, each.code) for each in before} == {("server", 1012)}, report.table()
    assert min(each.ended - moved for each in before) > drain - 1, report.table()
    assert [each for each in report.requests if each.reason] == [], report.table()


@pytest.mark.fault(22)
def test_main_process_that_is_killed_takes_its_workers_along_and_nobody_is_refused(app: App) -> None:
    """uvicorn's workers would live on, and serve, beside those of the next main process."""
    workers, master, slot = app.workers, app.master, app.slot
    with app.load(rate=30, mix="get-new=1,get-keep=1") as load:
        time.sleep(1)
        app.host.check_output(f"kill -KILL {master}")
        wait_until(lambda: app.command("verify")[0] == 0)
        report = load.stop()
    print(report.table())
    assert (app.slot, app.workers & workers) == (slot, set())
    found = app.host.run(f"pgrep -u {app.variables.get('service_user', app.name)}").stdout.split()
    assert not {int(pid) for pid in found} & workers
    # systemd waits for a second before it starts it again: that would be 30 refusals.
    assert report.lost < 15, report.table()
    assert report.ok > 60, report.table()


def test_app_sees_its_clients_address_and_scheme(app: App) -> None:
    status, _, body = app.get("/whoami")
    seen = json.loads(body)
    assert (status, seen["scheme"]) == (200, "http")
    assert seen["client"] == seen["forwarded"]["x-forwarded-for"] != ""


def test_app_gets_every_request_line_that_the_proxy_lets_through(app: App) -> None:
    assert [app.get(f"/health?q={'x' * length}")[0] for length in (6000, 8100, 9000)] == [200, 200, 414]


def test_queue_stays_as_long_as_the_socket_unit_says(app: App) -> None:
    """Each server calls listen() on the socket again, which may cut its queue: what does not fit in gets 502."""
    unit = app.host.check_output(f"systemctl cat {app.name}@{app.slot}.socket")
    (wanted,) = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("Backlog=")]
    length = app.host.check_output(f"ss --listening --unix --no-header src /run/{app.name}/{app.slot}.sock").split()[3]
    assert length == wanted
