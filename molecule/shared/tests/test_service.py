"""What every scenario must show on every host: units, workers, sandbox, sockets, proxy."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from fleettest import App

pytest_plugins = ["fleettest"]


def test_live_slot_is_enabled_and_active_and_the_other_is_neither(app: App) -> None:
    live = app.host.service(app.unit)
    other = app.host.service(app.unit.replace(app.slot, "green" if app.slot == "blue" else "blue"))
    assert (live.is_running, live.is_enabled) == (True, True)
    assert (other.is_running, other.is_enabled) == (False, False)


def test_as_many_workers_as_planned_run_under_one_master(app: App) -> None:
    command = app.host.check_output(f"ps -o args= -p {app.master}")
    servers = {
        # The second one before Python 3.12.
        "gunicorn": r"-m gunicorn -k (own_worker\.EvenWorker|fleet_preload\.UvicornWorker) ",
        "asgi": r"-m gunicorn -k fleetasgi\.Worker ",
        "uvicorn": r"/fleet_uvicorn\.py ",
    }
    assert re.search(servers[app.variables.get("service_engine", "gunicorn")], command)
    environment = app.host.file(f"/srv/{app.name}/slots/{app.slot}.env").content_string
    planned = int(re.findall(r"(?m)^FLEET_WORKERS=(\d+)", environment)[0])
    assert len(app.workers) == planned == app.live["workers"]
    # One that began with fewer, to see what they take, has them in its command line until it is started again.
    assert 1 <= int(re.findall(r"--workers (\d+)", command)[0]) <= planned


def test_plan_follows_the_host(app: App) -> None:
    """2 × vCPUs + 1 or what memory allows, worked out here from the host's own files a second time."""
    vcpus = int(app.host.check_output("grep -c ^processor /proc/cpuinfo"))
    memory = int(app.host.check_output("awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo"))
    usable = min(vcpus, int(app.host.check_output("python3 -c 'import os; print(len(os.sched_getaffinity(0)))'")))
    expected = max(1, min(2 * usable + 1, (memory - 256) // 200))
    asked = app.variables.get("service_workers", "auto")
    assert app.live["workers"] == (expected if asked == "auto" else int(asked))


def test_app_does_not_run_as_root(app: App) -> None:
    owners = app.host.check_output(f"ps -o user= -p {app.master} --ppid {app.master}").split()
    assert set(owners) == {app.name}


def test_app_can_write_neither_its_code_nor_its_settings(app: App) -> None:
    writable = app.host.check_output(
        f"runuser -u {app.name} -- find -L /srv/{app.name} /etc/{app.name} /usr/local/lib/{app.name}-release "
        "-writable -not -type l -not -type s 2>/dev/null || true"
    )
    assert writable == ""
    link = app.host.run(f"runuser -u {app.name} -- ln -sfn /tmp /srv/{app.name}/live.sock")
    assert link.rc != 0


@pytest.mark.fault(42)
def test_other_users_cannot_reach_the_app_beside_the_proxy(app: App) -> None:
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/{app.name}/{app.slot}.sock')"
    assert "PermissionError" in app.host.run(f'runuser -u nobody -- python3 -c "{connect}"').stderr
    assert app.host.run(f'runuser -u www-data -- python3 -c "{connect}"').rc == 0


def test_sandbox_is_tight(app: App) -> None:
    shown = app.host.run(f"systemd-analyze security --no-pager {app.unit}").stdout
    exposure = float(re.findall(r"exposure level for .*: ([\d.]+)", shown)[0])
    assert exposure <= 2.5, shown


def test_unknown_hosts_are_refused_before_the_app(app: App) -> None:
    status, headers, body = app.get("/", host="somebody-else.example")
    assert (status, body) == (421, b"this name is not served here; proxy_server_names adds it\n")
    assert "x-worker-pid" not in headers


def test_host_says_what_it_runs(app: App) -> None:
    shown = app.host.check_output(f"{app.name}-release status")
    workers = app.live["workers"]
    # Between them stands the version that it was built from.
    assert re.search(rf"release {app.live['release']} .*in the {app.slot} slot", shown), shown
    assert f"{workers} planned, {workers} running, {workers} answering" in shown
    assert "differs" not in shown


@pytest.mark.fault(21)
def test_killed_worker_is_replaced(app: App) -> None:
    before, master = app.workers, app.master
    victim = min(before)
    app.host.check_output(f"kill -KILL {victim}")
    after: set[int] = set()
    for _ in range(60):
        after = app.workers
        if victim not in after and len(after) == len(before):
            break
        time.sleep(0.5)
    assert len(after) == len(before)
    assert victim not in after
    assert app.master == master, "only the worker went, not the service"
    # Only when the new one answers, too, is the count right again.
    verified: Any = None
    for _ in range(40):
        verified = app.host.run(f"{app.name}-release verify")
        if verified.rc == 0:
            break
        time.sleep(0.5)
    assert verified.rc == 0, verified.stdout
