"""The switch on a host under load: nothing is lost, a bad release goes back by itself, a bad host is left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fleettest import REPOSITORY, App, assert_nothing_lost, playbook

from bench.load import Report

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample", "second")

#: In the sample app's main.py: just before it answers anything.
ANSWER = "        await self.app(scope, receive, stamped)\n"
DO = "        asks = scope['type'] == 'http' and scope['path'] != '/health'\n"
SHORT_MIX = "get-new=40,get-keep=40,post-keep=15,post-new=5"


@pytest.fixture(scope="module")
def second(app: App, sample: str) -> str:
    """Another release that is well, with a path that shows it and one that takes longer than the sample app allows."""
    return app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=60,"}, "second")


@pytest.fixture
def quick(app: App) -> Iterator[None]:
    """A watch of one second, where a test is not about the watch."""
    with app.settings(watch_seconds=1):
        yield


def copy_of_the_app(folder: Path) -> Path:
    """Return a copy of the sample app that a test may change."""
    ignore = shutil.ignore_patterns(".venv", "__pycache__", ".*cache")
    return Path(shutil.copytree(REPOSITORY / "app", folder / "app", ignore=ignore))


def go(app: App, release: str) -> dict[str, Any]:
    """Switch to a release, which has to work."""
    rc, said = app.command("activate", release)
    assert rc == 0, said
    return said


# --- nothing is lost ------------------------------------------------------------------------------


@pytest.mark.fault(1)
def test_switches_in_a_row_under_mixed_load_lose_nothing(app: App, sample: str, second: str, quick: None) -> None:
    count = 100 if os.environ.get("FLEET_FULL") else 5
    mix = "get-new=40,get-keep=40,post-keep=15,download=4,long=0.1"
    with app.load(rate=60, mix=mix, long_seconds=10, download_chunks=10, timeout=40) as load:
        for number in range(count):
            go(app, (second, sample)[number % 2])
        report = load.stop()
    assert_nothing_lost(report, 100 * count)
    answered = {each.kind for each in report.requests if not each.reason}
    assert answered == {"get-new", "get-keep", "post-keep", "download", "long"}
    assert report.releases.keys() == {sample, second}
    app.assert_settled((second, sample)[(count - 1) % 2])


@pytest.mark.fault(10)
def test_request_and_download_of_20_seconds_over_a_switch_complete(
    app: App, sample: str, second: str, quick: None
) -> None:
    go(app, second)
    paths = ["/serve/awaiting?seconds=20", "/download?chunks=100&pause=0.2"] * 2
    with app.load(mix=SHORT_MIX) as load, ThreadPoolExecutor(len(paths)) as pool:
        began = time.monotonic()
        answers = [pool.submit(app.get, path, timeout=60) for path in paths]
        time.sleep(1)
        go(app, sample)
        assert time.monotonic() - began > 20, "the switch has waited for them"
        for path, answer in zip(paths, answers, strict=True):
            status, headers, body = answer.result()
            assert (status, headers["x-release"]) == (200, second), path
            assert len(body) == 100 * 16384 or json.loads(body)["seconds"] > 19.9
        report = load.stop()
    assert_nothing_lost(report, 1000)
    assert report.releases[sample].first < began + 15, "traffic had moved long before they were done"


@pytest.mark.fault(11)
def test_websockets_are_closed_with_1012_once_the_drain_time_is_over(app: App, sample: str, second: str) -> None:
    drain = 6
    go(app, sample)
    with app.settings(drain_timeout=drain, watch_seconds=1), app.load(mix=SHORT_MIX, websockets=5) as load:
        time.sleep(1)
        go(app, second)
        app.wait_for_the_old_slot()
        report = load.stop()
    moved = report.releases[second].first
    before = [each for each in report.websockets if each.release == sample]
    assert len(before) == 5, report.table()
    assert {(each.closed_by, each.code) for each in before} == {("server", 1012)}, report.table()
    waited = [each.ended - moved for each in before]
    assert min(waited) > drain - 1, waited
    assert max(waited) < drain + 4, waited
    assert [each for each in report.requests if each.reason] == [], report.table()
    assert len(report.requests) > 300, report.table()


# --- it goes back by itself -----------------------------------------------------------------------


def assert_went_back(report: Report, bad: str, good: str) -> None:
    """The bad release had traffic for at most 15 s; before and after it, nothing was lost."""
    print(report.table())
    seen = report.releases[bad]
    assert seen.last - seen.first < 15, report.table()
    before = [each for each in report.requests if each.finished < seen.first]
    after = [each for each in report.requests if each.scheduled > seen.last + 0.5]
    assert min(len(before), len(after)) > 50, report.table()
    assert [each for each in (*before, *after) if each.reason or each.release != good] == [], report.table()


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    ("name", "does", "why"),
    [
        (
            "dies",
            "        if asks:\n            __import__('threading').Timer(2, os._exit, [1]).start()\n",
            "died",
        ),
        (
            "hangs",
            "        if asks:\n            os.environ.setdefault('HANGS', str(time.time() + 3))\n"
            "        elif float(os.environ.get('HANGS', 'inf')) < time.time():\n            await asyncio.sleep(9)\n",
            "/health failed 3 times in a row",
        ),
    ],
    ids=["workers die", "health hangs"],
)
def test_release_that_is_not_well_with_traffic_goes_back(
    app: App, sample: str, second: str, name: str, does: str, why: str
) -> None:
    good = app.live["release"]
    app.copy_release(sample, {ANSWER: DO + does + ANSWER}, name)
    watched = app.settings(watch_seconds=10)
    with watched, app.load(mix="get-new=1,get-keep=1", get_path="/whoami", any_body=True) as load:
        time.sleep(2)
        rc, said = app.command("activate", name)
        time.sleep(2)
        report = load.stop()
    assert (rc, said["outcome"], said["live"]["release"]) == (1, "went back", good), said
    assert why in said["error"], said
    assert_went_back(report, name, good)
    app.assert_settled(good)
    rc, said = app.command("activate", name)
    assert rc == 2
    assert f"release {name} is marked bad on this host since" in said["error"]
    assert why in said["error"], said


@pytest.mark.fault(5)
def test_deploy_of_a_release_that_fails_with_traffic_shows_why_and_what_it_logged(app: App, tmp_path: Path) -> None:
    good = app.live["release"]
    source = copy_of_the_app(tmp_path)
    main = source / "main.py"
    does = "        if asks:\n            raise RuntimeError('the till is empty')\n"
    main.write_text(main.read_text().replace(ANSWER, DO + does + ANSWER))
    with app.load(mix="get-new=1,get-keep=1", get_path="/whoami", any_body=True) as load:
        time.sleep(1)
        variables = {"app_source": str(source), "service_watch_seconds": 10}
        done = playbook("deploy.yml", "--limit", "web1", variables=variables)
        time.sleep(2)
        report = load.stop()
    assert done.returncode != 0
    assert "requests ended in a server error" in done.stdout, done.stdout
    assert "RuntimeError: the till is empty" in done.stdout, done.stdout
    assert f"release {good} serves again" in done.stdout, done.stdout
    (bad,) = report.releases.keys() - {good}
    assert_went_back(report, bad, good)
    app.assert_settled(good)
    assert app.command("status")[1]["rollback_to"] != bad


# --- one at a time --------------------------------------------------------------------------------


@pytest.mark.fault(8)
def test_second_switch_at_the_same_time_hears_who_is_at_it(app: App, sample: str, second: str) -> None:
    first, other = (second, sample) if app.live["release"] == sample else (sample, second)
    with app.settings(watch_seconds=4), ThreadPoolExecutor(1) as pool:
        done = pool.submit(app.command, "activate", first, "--by", "alice@laptop")
        time.sleep(1)
        rc, said = app.command("activate", other)
        assert not done.done(), "it waited for the other one"
        assert rc == 2
        assert f"the lock is held: activate {first} by alice@laptop (process " in said["error"], said
        assert re.search(r" since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", said["error"]), said
        assert done.result()[0] == 0
    app.assert_settled(first)


# --- the app's own commands -----------------------------------------------------------------------

WHO = '(id -un; "$FLEET_PYTHON" -S -c "import main; print(main.__file__)") > "$STATE_DIRECTORY"/{}'


def said_who(app: App, name: str) -> list[str]:
    text: str = app.host.check_output(f"cat /var/lib/{app.name}/{name}; rm /var/lib/{app.name}/{name}")
    return text.split()


def test_hooks_run_as_the_app_with_the_new_releases_code(app: App, sample: str, second: str) -> None:
    target = second if app.live["release"] == sample else sample
    with app.settings(watch_seconds=0, hook_before=WHO.format("before"), hook_after=WHO.format("after")):
        go(app, target)
    who = [app.variables.get("service_user", app.name), f"/srv/{app.name}/releases/{target}/app/main.py"]
    assert said_who(app, "before") == who
    assert said_who(app, "after") == who


def test_hook_that_fails_before_the_switch_refuses_the_release(app: App, sample: str, second: str) -> None:
    before = app.live["release"]
    target = second if before == sample else sample
    with app.settings(hook_before="echo no table customers; exit 3"):
        rc, said = app.command("activate", target)
    assert (rc, said["outcome"]) == (1, "refused"), said
    assert "service_hook_before failed with exit code 3: no table customers" in said["error"]
    app.assert_settled(before)


def test_command_by_hand_runs_as_the_app_with_a_releases_code(app: App, second: str) -> None:
    done = app.host.run(f"{app.name}-release run {second} -- sh -c %s", WHO.format("by-hand") + "; exit 7")
    assert done.rc == 7, done.stdout
    user = app.variables.get("service_user", app.name)
    assert said_who(app, "by-hand") == [user, f"/srv/{app.name}/releases/{second}/app/main.py"]


NOTES = (
    "        with open(os.environ['STATE_DIRECTORY'] + '/asked', 'a') as file:\n            file.write(scope['path'])\n"
)


def test_warm_up_requests_reach_every_release_before_its_traffic(app: App, sample: str) -> None:
    does = f"        if asks and scope['path'] == '/whoami':\n    {NOTES.replace('    ' * 3, '    ' * 4)}"
    app.copy_release(sample, {ANSWER: DO + does + ANSWER}, "warmed")
    with app.settings(watch_seconds=0, warmup_paths=["/whoami"]):
        go(app, "warmed")
    asked = app.host.check_output(f"cat /var/lib/{app.name}/asked")
    assert asked.count("/whoami") >= app.live["workers"], asked
    times = app.host.check_output(f"stat -c %.9Y /var/lib/{app.name}/asked /srv/{app.name}/live.sock").split()
    assert float(times[0]) < float(times[1]), "before traffic"
    app.host.check_output(f"rm /var/lib/{app.name}/asked")


def test_warm_up_request_that_fails_refuses_the_release(app: App, sample: str) -> None:
    before = app.live["release"]
    does = "        if asks:\n            raise RuntimeError('no cache')\n"
    app.copy_release(sample, {ANSWER: DO + does + ANSWER}, "cold")
    with app.settings(warmup_paths=["/whoami"]):
        rc, said = app.command("activate", "cold")
    assert (rc, said["outcome"]) == (1, "refused"), said
    assert "the warm-up request /whoami (service_warmup_paths) failed: it answers 500" in said["error"]
    assert "RuntimeError: no cache" in "\n".join(said["log"])
    app.assert_settled(before)


# --- a host that is not as it should be -----------------------------------------------------------

FULL = (
    "cp -a /etc/{0} /run/full && mount -t tmpfs -o size=4m,mode=755 full /etc/{0} && cp -a /run/full/. /etc/{0} && "
    "! dd if=/dev/zero of=/etc/{0}/full bs=4096"
)
#: What is done to the host, how it is undone, and what the command has to say.
WRONG = {
    "a full disk": (FULL, "umount /etc/{0}; rm -rf /run/full", "the disk is full: /etc/{0} has"),
    "half a release": (
        "mv /srv/{0}/releases/second/.complete /run/complete",
        "mv /run/complete /srv/{0}/releases/second/.complete",
        "release second is only half unpacked; deploy it again",
    ),
    "a clock set back": (
        "cp -a /srv/{0}/history.jsonl /run/history && "
        """echo '{{"at": 4000000000, "verb": "activate", "to": "x"}}' >> /srv/{0}/history.jsonl""",
        "mv /run/history /srv/{0}/history.jsonl",
        "but the last switch was at 2096-10-02",
    ),
    "no such release": ("true", "true", "release 'seconds' is not on this host; there are: "),
}


@pytest.mark.parametrize("what", WRONG)
def test_host_that_is_not_as_it_should_be_is_left_alone(app: App, sample: str, second: str, what: str) -> None:
    before = app.state()
    do, undo, says = (text.format(app.name) for text in WRONG[what])
    try:
        app.host.check_output(do.replace("%", "%%"))
        rc, said = app.command("activate", "seconds" if what == "no such release" else second)
    finally:
        app.host.run(undo)
    assert rc == 2, said
    assert says in said["error"], said
    assert app.state() == before


def test_link_that_became_a_file_is_not_written_over(app: App, second: str) -> None:
    before, link = app.state(), f"/srv/{app.name}/live.sock"
    app.host.check_output(f"mv {link} /run/kept.sock && echo mine > {link}")
    try:
        rc, said = app.command("activate", second)
        assert app.host.check_output(f"cat {link}") == "mine"
    finally:
        app.host.check_output(f"mv -f /run/kept.sock {link}")
    assert rc == 2, said
    assert f"{link} is no link, which counter-release did not create; nothing was changed" in said["error"]
    assert app.state() == before
