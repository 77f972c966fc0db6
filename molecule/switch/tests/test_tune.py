"""Measuring other numbers of workers on a host: what is proposed, and that nobody notices, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fleettest import (
    INVENTORY,
    App,
    assert_nothing_lost,
    playbook,
    wait_until,
)  # fmt: skip
from fleettune import start, traces

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "broken")
#: Each worker serves 20 of these a second, whatever the machine does: it stands still for most of the time.
BLOCKING = "/serve/blocking?seconds=0.05"


@pytest.fixture(scope="module")
def broken(app: App, sample: str) -> None:
    """A release that is well but for one path."""
    health = '@app.get("/health")\n'
    path = f'@app.get("/broken")\nasync def broken() -> None:\n    raise RuntimeError\n\n\n{health}'
    rc, said = app.command("activate", app.copy_release(sample, {health: path}, "broken"))
    assert rc == 0, said


@pytest.fixture(autouse=True)
def live_service_is_untouched(app: App) -> Iterator[None]:
    """The same link, records and processes as before, and no trace of the private slot."""
    before, workers = app.state(), app.workers
    yield
    wait_until(lambda: not traces(app))
    assert app.state() == before
    assert app.workers == workers
    rc, said = app.command("verify")
    assert (rc, said["differences"]) == (0, [])


def refused(app: App, *words: str, status: int = 2) -> str:
    """Ask the host itself to measure, which it refuses; return its reason."""
    rc, said = app.command("tune", "--workers=1", "--rounds=1", "--seconds=1", *words)
    assert rc == status, said
    return str(said["error"])


def test_proposes_a_number_and_nobody_notices(app: App, tmp_path: Path) -> None:
    written = INVENTORY / "group_vars" / "app" / "workers.yml"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text("# ours\nservice_keep_releases: 5  # as always\nservice_workers : 5\nfleet_max_failures: 0\n")
    variables = {
        "tune_host": "web1", "tune_workers": [1, 2, 3], "tune_rounds": 3, "tune_seconds": 1, "tune_load": [BLOCKING],
        "tune_report": str(tmp_path), "tune_write": "app", "tune_while_serving": True,
    }  # fmt: skip
    try:
        with app.load(rate=20) as load:
            done = playbook("playbooks/tune.yml", variables=variables)
            report = load.stop()
        text = written.read_text()
    finally:
        written.unlink()
    assert done.returncode == 0, done.stdout
    assert_nothing_lost(report, 100)

    # Three workers serve three times as much, whatever the rule of thumb says.
    result = json.loads((tmp_path / "web1.json").read_text())
    assert (result["choice"]["workers"], result["rule"], result["choice"]["bound_by"]) == (3, 5, "sweep")
    assert "Take 3 workers" in done.stdout
    speeds = {entry["workers"]: entry["throughput"] for entry in result["rounds"]}
    assert speeds[1] < speeds[2] < speeds[3]
    sizes = {entry["workers"]: entry["pss_mib"] for entry in result["rounds"]}
    assert sizes[1] < sizes[2] < sizes[3]
    assert all(entry["p99_ms"] >= entry["p50_ms"] > 0 and entry["cpu_ms"] > 0 for entry in result["rounds"])
    assert {path.name for path in tmp_path.iterdir()} == {"web1.html", "web1.json", "web1.png"}

    # The rest of the file is as it was.
    assert yaml.safe_load(text) == {"service_keep_releases": 5, "service_workers": 3, "fleet_max_failures": 0}
    before, line, after = re.split(r"(?m)^(service_workers: .*)\n", text)
    assert before == "# ours\nservice_keep_releases: 5  # as always\n"
    assert re.fullmatch(r"service_workers: 3  # tune\.yml on web1, \d{4}-\d\d-\d\d: 1\.00 of the best \(3\), .*", line)
    assert after == "fleet_max_failures: 0\n"


def test_host_that_is_not_drained_is_refused(app: App, tmp_path: Path) -> None:
    with app.load(rate=20) as load:
        done = playbook("playbooks/tune.yml", variables={"tune_host": "web1", "tune_report": str(tmp_path)})
        report = load.stop()
    assert done.returncode != 0
    assert re.search(r"web1 was not measured: this host is not drained: \d+ requests in \d+ s", done.stdout), (
        done.stdout
    )
    assert list(tmp_path.iterdir()) == []
    assert_nothing_lost(report, 60)


@pytest.mark.parametrize(("path", "answer"), [("/nothing", 404), ("/broken", 500)])
def test_path_that_is_not_answered_well_is_refused(app: App, path: str, answer: int) -> None:
    reason = refused(app, "--while-serving", "--load=/health", f"--load=2 {path}")
    assert f"{path} answers {answer}, good is 200 to 399" in reason


def test_address_of_the_live_service_is_refused(app: App) -> None:
    assert "never in the live one" in refused(app, f"--load=http://{app.address}/health")


def test_private_slot_that_is_the_live_one_is_refused(app: App) -> None:
    """Somebody has pointed nginx at it by hand."""
    link = f"/srv/{app.name}/live.sock"
    before = app.host.check_output(f"readlink {link}")
    app.host.check_output(f"ln -sfn /run/{app.name}/tune.sock {link}")
    try:
        reason = refused(app)
    finally:
        app.host.check_output(f"ln -sfn {before} {link}")
    assert "tune.sock, which counter-release did not create; nothing was changed" in reason


def test_load_tool_that_is_missing_is_named(app: App) -> None:
    path = f"/usr/local/lib/{app.name}-release/fleet/host/tune_load.py"
    app.host.check_output(f"mv {path} {path}.away")
    try:
        reason = refused(app)
    finally:
        app.host.check_output(f"mv {path}.away {path}")
    assert f"the load tool is missing ({path}): deploy once more" in reason


def test_number_that_memory_does_not_hold_is_not_started(app: App) -> None:
    """Beside the live workers there is room for one more, by what the plan says of the host's memory."""
    used = sum(
        int(line.split()[1])
        for line in app.host.check_output(
            f"cat $(pgrep -u {app.name} | sed 's,.*,/proc/&/smaps_rollup,') | grep ^Pss:"
        ).splitlines()
    ) / 1024  # fmt: skip
    plan = app.live["plan"]
    limit = {"memory_mib": int(used + 100), "reserve_mib": 0}
    with app.settings(plan={**plan, "inputs": {**plan["inputs"], **limit}}):
        rc, said = app.command("tune", "--workers=1,2,6", "--rounds=1", "--seconds=1", "--while-serving")
    assert rc == 0, said
    assert said["tuned"]["numbers"] in ([1], [1, 2])
    assert "workers and more were not tried: memory does not hold them" in said["tuned"]["notes"][0]


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *([signal.SIGINT] if os.environ.get("FLEET_FULL") else [])],
    ids=lambda number: number.name,
)
def test_controller_that_is_killed_ends_it(app: App, number: signal.Signals) -> None:
    process = start(app)
    rc, said = app.command("prune")
    assert (rc, "the lock is held: tune by" in said["error"]) == (2, True), said
    os.killpg(process.pid, number)
    process.communicate()
    # It hears no more of who asked for it; systemd's own limit is far away.
    wait_until(lambda: not traces(app), 120)


def test_measuring_that_is_killed_on_the_host_leaves_nothing(app: App) -> None:
    process = start(app)
    app.host.check_output(f"systemctl kill --kill-whom=all --signal=KILL {app.name}-release-tune.service")
    wait_until(lambda: not traces(app), 60)
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode != 0
    assert "web1 was not measured: measuring was ended from outside" in output
