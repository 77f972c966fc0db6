"""Connections that nginx keeps to the app (proxy_keepalive) are handed over by a switch, and nothing is lost."""

from __future__ import annotations

import time

import pytest
from fleettest import App, assert_nothing_lost, playbook, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")

MIX = "get-new=30,get-keep=45,post-keep=15,post-new=5,download=1,long=1"
SETTINGS = {"proxy_keepalive": 16, "service_watch_seconds": 1, "service_drain_timeout": 25}
#: When both sides of each connection to a socket were made: its inodes.
INODES = 'awk \'$6 == "03" && $8 == "%s" {print $7}\' /proc/net/unix'


def upstream(app: App) -> set[str]:
    """The connections to the live slot that are open now."""
    return set(app.host.check_output(INODES % f"/run/{app.name}/{app.slot}.sock").split())


def deploy(**settings: object) -> str:
    done = playbook("deploy.yml", "--limit", "web1", variables={**SETTINGS, **settings})
    assert done.returncode == 0, done.stdout
    return done.stdout


def changes(said: str) -> bool:
    return "web1" in said and "changed=0" not in said.rpartition("web1")[2]


@pytest.fixture(scope="module")
def kept(app: App, sample: str) -> str:
    """The sample app on a host where nginx keeps connections: the second deploy begins with it, a third has nothing."""
    deploy()
    app.wait_for_the_old_slot()
    for _ in range(3):
        app.get("/health")
    assert upstream(app) == set(), "the workers before could not have handed them over"
    assert changes(deploy())
    assert not changes(deploy())
    return sample


def test_requests_one_after_the_other_share_a_connection(app: App, kept: str) -> None:
    seen = []
    for _ in range(10):
        assert app.get("/health")[0] == 200
        seen.append(upstream(app))
    assert all(len(one) >= 1 for one in seen)
    # nginx has a process for each CPU, each with its own; and one that is idle for a second is closed.
    assert len(set.union(*seen)) <= 6, seen
    wait_until(lambda: not upstream(app), 10)


@pytest.mark.fault(1)
def test_switches_and_recycled_workers_lose_nothing_and_do_not_wait_for_the_drain_time(app: App, kept: str) -> None:
    # It does not tell the gate who answers, which so has to see it by the connections.
    stamp = "                headers.update(stamp())\n"
    silent = "                if (b'user-agent', b'release-gate') in scope['headers']:\n"
    silent += "                    del headers['x-worker-pid']\n"
    app.copy_release(kept, {stamp: stamp + silent}, "other")
    with app.load(rate=100, mix=MIX, long_seconds=2) as load:
        for release in ("other", kept) * 3:
            rc, said = app.command("activate", release)
            assert rc == 0, said
        rc, said = app.command("rollback")
        assert rc == 0, said
        app.host.check_output(f"kill -WINCH $(pgrep --parent {app.master} | head -1)")
        wait_until(lambda: len(app.workers) == app.live["workers"])
        report = load.stop()
    assert_nothing_lost(report, 1000)
    assert len(report.releases) == 2
    lines = app.command("history")[1]["history"][-7:]
    assert {line["result"] for line in lines} == {"switched"}
    # Requests go on coming over what was kept: without the hand-over, each switch lasts as long as a drain may.
    assert max(line["seconds"] for line in lines) < 20, lines


def test_going_back_hands_kept_connections_over_once_more(app: App, kept: str) -> None:
    """The old slot had begun to send clients away; now it is asked again, and the new one sends them away."""
    answer = "        await self.app(scope, receive, stamped)\n"
    fails = "        if scope.get('path') == '/whoami':\n            raise RuntimeError('the till is empty')\n"
    app.copy_release(kept, {answer: fails + answer}, "fails")
    slot = app.slot
    with app.load(rate=60, mix="get-new=1,get-keep=1", get_path="/whoami", any_body=True) as load:
        rc, said = app.command("activate", "fails")
        back = time.monotonic()
        time.sleep(3)
        report = load.stop()
    assert (rc, said["outcome"], app.slot) == (1, "went back", slot), said
    after = [each for each in report.requests if each.scheduled > back]
    assert len(after) > 100
    assert {(each.reason, each.release) for each in after} == {("", app.live["release"])}
