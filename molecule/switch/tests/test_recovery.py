"""A switch that is cut off, and a host on its own: it ends the switch or takes it back, and goes back without help."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fleettest import REPOSITORY, App, assert_nothing_lost, playbook, playbook_command, playbook_environment, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample", "second")

MIX = "get-new=40,get-keep=40,post-keep=15,post-new=5"
UNIT = "'{0}-release-activate-*.service'"
#: Waits on the host for a step of the switch and some seconds more; then comes what is to be done at that moment.
AT_STEP = "timeout 60 sh -c 'until grep -qs step.*{1} /srv/{0}/transaction.json; do sleep 0.05; done' && sleep {2} && "


@pytest.fixture(scope="module")
def second(app: App, sample: str) -> str:
    """Another release that is well."""
    return app.copy_release(sample, {'title="The counter"': 'title="The second counter"'}, "second")


def cut_off(app: App, release: str, step: str, seconds: float, then: str) -> tuple[int, dict[str, Any]]:
    """Switch to a release, and at some seconds after the beginning of a step, do something on the host."""
    with ThreadPoolExecutor(1) as pool:
        switch = pool.submit(app.command, "activate", release)
        app.host.check_output((AT_STEP + then).format(app.name, step, seconds))
        return switch.result()


def is_over(app: App) -> bool:
    """Whether the host has settled, whoever did that."""
    states = "--state=active,activating,deactivating --type=service"
    units = app.host.check_output(f"systemctl list-units {states} --no-legend --plain '{app.name}-release-*'")
    return not units and not app.host.file(f"/srv/{app.name}/transaction.json").exists


KILL = f"systemctl kill --signal=KILL --kill-whom=main {UNIT}"


@pytest.mark.fault(2)
@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("step", "seconds", "moved"),
    [("starting", 0.6, False), ("watching", 0, True), ("watching", 3, True)],
    ids=["while the new slot starts", "as traffic has moved", "while the old slot drains"],
)
def test_killed_switch_is_ended_or_taken_back(
    app: App, sample: str, second: str, step: str, seconds: float, moved: bool
) -> None:
    before = app.live["release"]
    target = second if before == sample else sample
    mix, drains = (f"{MIX},long=0.5", {"watch_seconds": 1}) if seconds > 1 else (MIX, {"watch_seconds": 4})
    with app.settings(**drains), app.load(rate=100, mix=mix, long_seconds=8) as load:
        rc, said = cut_off(app, target, step, seconds, KILL)
        assert rc != 0, said
        assert said["live"]["release"] == (target if moved else before), "what the recovery says in its place"
        wait_until(lambda: is_over(app), 40)
        app.assert_settled(target if moved else before)
        report = load.stop()
    assert_nothing_lost(report, 200)
    _, said = app.command("history")
    last = said["history"][-1]
    assert (last["to"], last["result"]) == (target, "switched" if moved else "interrupted"), last


@pytest.mark.fault(2)
@pytest.mark.parametrize(("step", "moved"), [("starting", False), ("watching", True)])
def test_boot_ends_a_switch_that_a_power_cut_left(app: App, sample: str, second: str, step: str, moved: bool) -> None:
    """As after a power cut, nobody is there to end it: all processes of the switch die, those of its recovery, too."""
    before = app.live["release"]
    target = second if before == sample else sample
    dead = (
        f"unit=$(systemctl list-units --no-legend --plain {UNIT} | cut -d ' ' -f 1)"
        " && while systemctl kill --signal=KILL $unit; do sleep 0.01; done 2>/dev/null"
    )
    with app.settings(watch_seconds=10), app.load(rate=100, mix=MIX) as load:
        rc, _ = cut_off(app, target, step, 0.5, dead)
        assert rc != 0
        left = json.loads(app.host.check_output(f"cat /srv/{app.name}/transaction.json"))
        assert (left["step"], left["release"]) == (step, target)
        _, said = app.command("verify")
        assert f"a switch to release {target} was cut off: {app.name}-release recover" in said["differences"]
        app.host.check_output(f"systemctl start {app.name}-release-recover.service")
        app.assert_settled(target if moved else before)
        report = load.stop()
    assert_nothing_lost(report, 200)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the sample app with another title."""
    copy = tmp_path / "app"
    shutil.copytree(REPOSITORY / "app", copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    main = copy / "main.py"
    main.write_text(main.read_text().replace('title="The counter"', f'title="The counter of {tmp_path.name}"'))
    return copy


@pytest.mark.fault(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_deploy_whose_controller_dies_during_the_switch_is_ended_by_the_host(
    app: App, source: Path, number: signal.Signals
) -> None:
    before = app.live["release"]
    variables = {"app_source": str(source), "service_watch_seconds": 3}
    with app.load(mix=MIX) as load:
        process = subprocess.Popen(
            playbook_command(REPOSITORY / "deploy.yml", "--limit", "web1", variables=variables),
            env=playbook_environment(REPOSITORY), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            app.host.check_output(AT_STEP.format(app.name, "starting", 0.3) + "true")
        finally:
            # As a terminal does it: the process and all that it has started.
            os.killpg(process.pid, number)
        assert process.wait(30) != 0
        wait_until(lambda: is_over(app))
        after = app.live["release"]
        assert after != before
        app.assert_settled(after)
        report = load.stop()
    assert_nothing_lost(report, 300)
    assert report.releases.keys() == {before, after}
    if number == signal.SIGKILL:
        done = playbook("deploy.yml", "--limit", "web1", variables={"service_watch_seconds": 1})
        assert done.returncode == 0, done.stdout
        assert playbook("playbooks/verify.yml", "--limit", "web1").returncode == 0


# --- without the network --------------------------------------------------------------------------

#: Run on the host. A timer gives the network back in any case.
ALONE = """
gateway=$(ip -4 route show default | sed 's/ *$//')
restore="ip link set eth0 up; ip route replace $gateway"
systemd-run --quiet --collect --on-active=60 --unit=fleettest-network sh -c "$restore"
ip link set eth0 down
sleep 1
ip -o link show eth0 > link
python3 client.py > outcomes & client=$!
sleep 1
{0}-release rollback --json > said
echo $? > code
sleep 1
kill $client
sh -c "$restore"
systemctl stop fleettest-network.timer
touch over
"""
#: Asks nginx on the host itself and says what came of each request.
CLIENT = """
import http.client, time
while True:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", timeout=20)
        connection.request("GET", "/health", headers={"Host": "ADDRESS"})
        response = connection.getresponse()
        response.read()
        print(response.status, response.headers["X-Release"], flush=True)
    except (OSError, http.client.HTTPException) as error:
        print(repr(error), flush=True)
    time.sleep(0.02)
"""


def is_reachable(app: App) -> bool:
    connection = http.client.HTTPConnection(app.address, 80, timeout=0.5)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


@pytest.mark.fault(15)
def test_rollback_without_a_network(app: App, sample: str, second: str) -> None:
    for release in (sample, second):
        with app.settings(watch_seconds=0):
            assert app.command("activate", release)[0] == 0
    folder = "/run/fleettest-alone"
    app.host.check_output(f"mkdir -p {folder}")
    app.write(f"{folder}/alone.sh", ALONE.format(app.name))
    app.write(f"{folder}/client.py", CLIENT.replace("ADDRESS", app.address))
    app.host.check_output(
        f"systemd-run --quiet --collect --unit=fleettest-alone --working-directory={folder} sh alone.sh"
    )
    wait_until(lambda: not is_reachable(app), 10)
    wait_until(lambda: is_reachable(app), 70)
    wait_until(lambda: app.host.file(f"{folder}/over").exists, 20)
    code, link, said, outcomes = (
        app.host.check_output(f"cat {folder}/{name}") for name in ("code", "link", "said", "outcomes")
    )
    app.host.check_output(f"rm -r {folder}")
    assert code == "0", said
    assert "state DOWN" in link
    assert json.loads(said)["live"]["release"] == sample
    assert set(outcomes.splitlines()) == {f"200 {second}", f"200 {sample}"}
    assert len(outcomes.splitlines()) > 100
    app.assert_settled(sample)
    _, said = app.command("history")
    last = said["history"][-1]
    assert (last["verb"], last["from"], last["to"], last["result"]) == ("rollback", second, sample, "switched")
    # The time says how busy the tests' machine is, too; the issue's limit is for a host of its own.
    assert last["seconds"] < 30, last


@pytest.fixture
def offline(app: App) -> Iterator[None]:
    """The host is reached from its own network only, and knows no names."""
    route = app.host.check_output("ip -4 route show default")
    app.host.check_output("cp /etc/resolv.conf /run/resolv.conf && ip route del default && : > /etc/resolv.conf")
    try:
        yield
    finally:
        app.host.run(f"ip route replace {route}; cat /run/resolv.conf > /etc/resolv.conf")


def test_deploy_to_a_host_without_a_way_out(app: App, source: Path, offline: None) -> None:
    assert app.host.run("getent hosts pypi.org").rc != 0
    before = app.live["release"]
    with app.load(mix=MIX) as load:
        done = playbook(
            "deploy.yml", "--limit", "web1", variables={"app_source": str(source), "service_watch_seconds": 1}
        )
        report = load.stop()
    assert done.returncode == 0, done.stdout
    assert_nothing_lost(report, 300)
    assert app.live["release"] != before
    app.assert_settled(app.live["release"])
