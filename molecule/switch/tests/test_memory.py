"""Workers larger than planned, and workers that have grown: memory does not run out, and the deploy that mends goes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleettest import REPOSITORY, App, assert_nothing_lost, playbook, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")

SHORT_MIX = "get-new=40,get-keep=40,post-keep=15,post-new=5"
ANSWER = "        await self.app(scope, receive, stamped)\n"
#: In the sample app's main.py: whoever is asked this takes 450 MiB from then on.
LEAKS = (
    "        if scope['path'] == '/whoami':\n"
    "            'LEAK' in globals() or globals().update(LEAK=b'x' * (450 << 20))\n"
)


@pytest.fixture(scope="module")
def second(app: App, sample: str) -> str:
    """Another release that is well."""
    return app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=60,"}, "second")


def go(app: App, release: str) -> dict[str, Any]:
    """Switch to a release, which has to work."""
    rc, said = app.command("activate", release)
    assert rc == 0, said
    return said


def takes(app: App) -> list[float]:
    """Return what each live worker takes, in MiB of PSS."""
    command = "awk '/^Pss:/ {print $2 / 1024}' " + " ".join(f"/proc/{pid}/smaps_rollup" for pid in app.workers)
    return [float(line) for line in app.host.check_output(command).split()]


MEMORY = """
import glob, os, pwd, time
while True:
    total = 0
    try:
        uid = pwd.getpwnam("USER").pw_uid
    except KeyError:
        uid = -1
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if os.stat(folder).st_uid == uid:
                with open(f"{folder}/smaps_rollup") as lines:
                    total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            pass
    print(f"{total / 1024:.1f}", flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def memory(app: App) -> Iterator[Path]:
    """A file on the host, to which what the app's processes take (MiB of PSS) is added 10 times a second or so."""
    path = Path("/run/fleettest-memory")
    app.host.check_output(
        f"systemd-run --quiet --collect --unit=fleettest-memory --property=StandardOutput=truncate:{path} "
        "/usr/bin/python3 -c %s",
        MEMORY.replace("USER", app.variables.get("service_user", app.name)),
    )
    yield path
    app.host.check_output(f"systemctl stop fleettest-memory && rm {path}")


def with_limit(app: App, mib: float) -> dict[str, Any]:
    """Return the host's plan with another limit, by service_reserve_memory_mib, and its number set by hand."""
    plan: dict[str, Any] = json.loads(app.host.check_output(f"cat /etc/{app.name}/release.json"))["plan"]
    inputs = plan["inputs"]
    return {**plan, "inputs": {**inputs, "workers": plan["workers"], "reserve_mib": inputs["memory_mib"] - mib}}


@pytest.mark.fault(19)
def test_where_memory_does_not_hold_two_sets_it_begins_with_fewer_and_grows(
    app: App, sample: str, second: str, memory: Path
) -> None:
    time.sleep(2)
    one_set = float(app.host.check_output(f"tail -n 1 {memory}"))
    limit = one_set * 1.5
    target = second if app.live["release"] == sample else sample
    with app.settings(plan=with_limit(app, limit), watch_seconds=1), app.load(rate=150, mix=SHORT_MIX) as load:
        said = go(app, target)
        report = load.stop()
    assert_nothing_lost(report, 200)
    assert "as memory does not hold both sets; the rest follows" in " ".join(said["steps"]), said
    count = app.live["workers"]
    assert len(app.workers) == count == 5
    assert f"FLEET_WORKERS={count}\n" in app.host.file(f"/srv/{app.name}/slots/{app.slot}.env").content_string
    seen = [float(line) for line in app.host.check_output(f"cat {memory}").split()]
    assert len(seen) > 50
    print(f"one set {one_set:.0f} MiB, limit {limit:.0f} MiB, most seen {max(seen):.0f} MiB of {len(seen)} samples")
    # A worker takes a little more while it serves than it did when it was measured.
    assert one_set < max(seen) <= limit * 1.05, (one_set, limit, max(seen))


@pytest.mark.fault(19)
def test_where_memory_does_not_hold_one_worker_more_nothing_is_changed(app: App, sample: str, second: str) -> None:
    before = app.state()
    with app.settings(plan=with_limit(app, 50)):
        rc, said = app.command("activate", second)
    assert rc == 2
    assert "memory does not hold even one new worker beside the " in said["error"], said
    assert app.state() == before


@pytest.mark.fault(61)
def test_live_workers_grown_to_twenty_times_their_size_do_not_keep_out_the_release_that_mends_them(
    app: App, sample: str, memory: Path
) -> None:
    app.copy_release(sample, {ANSWER: LEAKS + ANSWER}, "leaks")
    for mended in ("leaks", sample):  # the same code once more helps for a while, too
        go(app, "leaks")
        fresh = max(takes(app))
        wait_until(lambda: len(app.answering("/whoami")) > 0 and min(takes(app)) > 20 * app.live["fresh_mib"])
        with app.load(mix=SHORT_MIX) as load:
            said = go(app, mended)
            report = load.stop()
        assert_nothing_lost(report, 200)
        assert "leaves, for a fresh one" in " ".join(said["steps"]), said
        assert len(takes(app)) == 5
        assert max(takes(app)) < 3 * fresh
        app.assert_settled(mended)


@pytest.mark.fault(62)
def test_workers_four_times_as_large_as_planned_are_fewer_before_traffic_and_the_next_deploy_goes(
    app: App, tmp_path: Path, memory: Path
) -> None:
    ignore = shutil.ignore_patterns(".venv", "__pycache__", ".*cache")
    main = Path(shutil.copytree(REPOSITORY / "app", tmp_path / "app", ignore=ignore)) / "main.py"
    text = main.read_text()
    app.remove()  # the last test here: no release of the others is left
    for number in (1, 2):
        main.write_text(f"{text}\nBALLAST = b'{number}' * (400 << 20)\n")
        done = playbook("deploy.yml", "--limit", "web1", variables={"app_source": str(main.parent)})
        assert done.returncode == 0, done.stdout
        record = app.live
        assert (record["workers"], len(app.workers)) == (2, 2), record
        assert "2 sets of 2 × 4" in record["plan"]["reason"], record
        assert 400 < record["fresh_mib"] < 450
    assert "changed=0 " in playbook("deploy.yml", "--limit", "web1", variables={"app_source": str(main.parent)}).stdout
    seen = [float(line) for line in app.host.check_output(f"cat {memory}").split()]
    plan = record["plan"]["inputs"]
    print(f"most seen {max(seen):.0f} MiB of {len(seen)} samples")
    assert 4 * 400 < max(seen) < plan["memory_mib"] - plan["reserve_mib"]
