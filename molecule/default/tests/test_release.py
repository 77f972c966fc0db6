"""Releases of the sample app on the scenario's hosts, while a client keeps asking."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleettest import REPOSITORY, App, playbook, wait_until

pytest_plugins = ["fleettest"]
# The playbooks deploy to all hosts; one of them is watched.
testinfra_hosts = ["ansible://web1"]


@pytest.fixture(scope="module", autouse=True)
def sample_app_afterwards() -> Iterator[None]:
    """Leave the hosts as converge did: the other tests run on them, too."""
    yield
    done = playbook("deploy.yml")
    assert done.returncode == 0, done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the sample app that a test may change."""
    copy = tmp_path / "app"
    shutil.copytree(REPOSITORY / "app", copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    return copy


class Client(threading.Thread):
    """Asks without a pause, a new connection each time, and keeps every outcome."""

    def __init__(self, app: App) -> None:
        super().__init__(daemon=True)
        self.app = app
        self.outcomes: list[tuple[str, str]] = []
        self.enough = threading.Event()

    def run(self) -> None:
        """Ask until told to stop."""
        while not self.enough.is_set():
            try:
                status, headers, _ = self.app.get("/health")
                self.outcomes.append((str(status), headers.get("x-release", "")))
            except OSError as error:
                self.outcomes.append((repr(error), ""))
            time.sleep(0.005)


@pytest.fixture
def client(app: App) -> Iterator[Client]:
    """A client that runs for as long as the test does."""
    made = Client(app)
    made.start()
    yield made
    made.enough.set()
    made.join(30)


def test_every_worker_answers_through_the_proxy(app: App) -> None:
    # Which worker takes a request is the kernel's choice: on a busy machine one burst may miss one.
    wait_until(lambda: app.answering("/health") == app.workers)


def test_verify_shows_the_fleet(host: Any) -> None:
    done = playbook("playbooks/verify.yml")
    assert done.returncode == 0, done.stdout
    for name in ("web1", "web2", "web3"):
        assert re.search(rf"{name} +\d+ +(\d+) +\1 +\1 +(cpu|memory|affinity)", done.stdout), done.stdout


def test_verify_fails_and_says_so_when_a_worker_is_missing(app: App) -> None:
    """A stopped worker still runs, but does not answer."""
    victim = min(app.workers)
    app.host.check_output(f"kill -STOP {victim}")
    try:
        done = playbook("playbooks/verify.yml")
    finally:
        app.host.run(f"kill -CONT {victim}")
    count = app.live["workers"]
    assert done.returncode != 0
    assert f"{count} workers run, {count - 1} answer /health" in done.stdout


def test_verify_fails_when_another_release_is_expected_or_nginx_is_down(app: App) -> None:
    app.host.check_output("systemctl stop nginx")
    try:
        done = playbook("playbooks/verify.yml", "--limit", "web1", variables={"verify_release": "0123456789ab"})
    finally:
        app.host.check_output("systemctl start nginx")
    assert done.returncode != 0
    assert f"release {app.live['release']} is live, expected is 0123456789ab" in done.stdout
    assert "nginx does not answer" in done.stdout


@pytest.mark.fault(17)
def test_second_deploy_changes_nothing(app: App) -> None:
    before = (app.master, app.workers)
    done = playbook("deploy.yml")
    assert done.returncode == 0, done.stdout
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout
    assert (app.master, app.workers) == before


def test_changed_setting_reaches_the_app_with_new_workers(app: App, client: Client) -> None:
    before = app.live
    done = playbook(
        "deploy.yml", variables={"service_env": {"COLOUR": 'a "quoted" $value \\ here'}, "service_workers": 2}
    )
    assert done.returncode == 0, done.stdout
    assert "quoted" not in done.stdout, "settings may be secrets"
    environment = app.host.check_output(f"tr '\\0' '\\n' < /proc/{app.master}/environ")
    assert 'COLOUR=a "quoted" $value \\ here' in environment.splitlines()
    assert (app.live["release"], len(app.workers)) == (before["release"], 2)
    assert app.live["slot"] != before["slot"]
    client.enough.set()
    client.join(30)
    assert {outcome for outcome, _ in client.outcomes} == {"200"}


def test_changed_app_goes_live_without_losing_a_request(app: App, source: Path, client: Client) -> None:
    before = app.live["release"]
    with (source / "main.py").open("a") as main:
        main.write("\n\n@app.get('/new')\ndef new() -> str:\n    return 'new'\n")
    done = playbook("deploy.yml", variables={"app_source": str(source)})
    assert done.returncode == 0, done.stdout
    after = app.live["release"]
    assert after != before
    assert app.get("/new")[0] == 200
    time.sleep(0.5)
    client.enough.set()
    client.join(30)
    lost = [outcome for outcome, _ in client.outcomes if outcome != "200"]
    assert lost == []
    releases = [release for _, release in client.outcomes]
    assert set(releases) == {before, after}
    assert releases == sorted(releases, key=[before, after].index), "old, then new, and never back"


@pytest.mark.fault(3)
def test_release_that_cannot_be_imported_is_refused_with_its_traceback(app: App, source: Path, client: Client) -> None:
    before = (app.live, app.master, app.workers)
    with (source / "main.py").open("a") as main:
        main.write("\nimport a_module_that_nobody_has\n")
    done = playbook("deploy.yml", variables={"app_source": str(source)})
    client.enough.set()
    client.join(30)
    assert done.returncode != 0
    assert "ModuleNotFoundError: No module named 'a_module_that_nobody_has'" in done.stdout, done.stdout
    assert f"Release {before[0]['release']} serves on" in done.stdout
    assert (app.live, app.master, app.workers) == before
    assert {outcome for outcome, _ in client.outcomes} == {"200"}


LATE, AWAY = "refused: not ready within 15 s (service_boot_timeout): ", "RuntimeError: db is away"
HEALTH = '@app.get("/health")'
HEALTH_BODY = "async def health() -> dict[str, str | int]:\n"


@pytest.mark.fault(4)
@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (HEALTH, '@app.get("/health", status_code=500)', f"{LATE}/health answers 500"),
        (HEALTH_BODY, f'{HEALTH_BODY}    raise RuntimeError("db is away")\n', f"{LATE}/health answers 500: {AWAY}"),
        (HEALTH, '@app.get("/health", status_code=404)', "refused: /health answers 404: the app has no such path"),
        (HEALTH_BODY, f"{HEALTH_BODY}    await asyncio.sleep(3600)\n", f"{LATE}/health gave no answer yet"),
        ("app = FastAPI(", "time.sleep(3600)\napp = FastAPI(", f"{LATE}/health gave no answer yet"),
        (
            "app = FastAPI(",
            "import uvicorn\nuvicorn.run(FastAPI(), port=8000)\napp = FastAPI(",
            "the module starts a server of its own, on 127.0.0.1:8000",
        ),
    ],
    ids=["500", "raises", "404", "hangs", "boots too slowly", "is a server"],
)
def test_release_that_is_not_well_is_refused_in_time(app: App, source: Path, old: str, new: str, said: str) -> None:
    before = app.live
    main = source / "main.py"
    assert main.read_text().count(old) == 1
    main.write_text(main.read_text().replace(old, new))
    limits = {"service_boot_timeout": 15, "service_drain_timeout": 5}
    done = playbook("deploy.yml", "--limit", "web1", variables={"app_source": str(source), **limits})
    assert done.returncode != 0
    last = " ".join(" ".join(done.stdout.splitlines()[-20:]).split())
    assert said in last, done.stdout
    assert "module_utils" not in done.stdout, "no traceback of the bundle's own"
    assert app.live == before


def test_refused_settings_never_reach_the_slot_that_serves(app: App) -> None:
    """Not even when it is restarted later, as after a crash or a reboot."""
    before = (app.live, app.slot)
    done = playbook("deploy.yml", "--limit", "web1", variables={"service_env": {"PYTHONHOME": "/nowhere"}})
    assert done.returncode != 0
    assert "failed while starting" in done.stdout
    app.host.check_output(f"kill -KILL {app.master}")
    count = before[0]["workers"]
    said = ""
    for _ in range(60):
        said = app.host.run(f"{app.name}-release verify").stdout
        if f"{count} planned, {count} running, {count} answering" in said:
            break
        time.sleep(0.5)
    assert f"{count} planned, {count} running, {count} answering" in said
    assert (app.live, app.slot) == before


def test_what_somebody_changed_by_hand_is_put_right(app: App) -> None:
    """The live slot's files are its own; a deploy notices that it is not what the last switch made."""
    slot = app.slot
    app.host.check_output(f"sed -i s/FLEET_WORKERS=.*/FLEET_WORKERS=1/ /srv/{app.name}/slots/{slot}.env")
    app.host.check_output(f"systemctl restart {app.unit}")
    assert playbook("playbooks/verify.yml", "--limit", "web1").returncode != 0
    done = playbook("deploy.yml", "--limit", "web1")
    assert done.returncode == 0, done.stdout
    assert app.slot != slot
    assert len(app.workers) == app.live["workers"] > 1


def test_second_app_under_the_same_name_is_refused_and_the_first_serves_on(app: App) -> None:
    """nginx itself would only warn, and send all requests to one of the two."""
    try:
        done = playbook("deploy.yml", "--limit", "web1", variables={"app_name": "another"})
        assert done.returncode != 0
        assert "conflicting server name" in done.stdout, done.stdout
        assert "The old files are back in place" in done.stdout
        wait_until(lambda: app.answering("/health") == app.workers)
        assert app.host.run("nginx -t").rc == 0
        assert not app.host.file("/etc/nginx/conf.d/another.conf").exists
    finally:
        app.host.run("systemctl disable --now another@blue.service another@blue.socket")
        app.host.run("rm -rf /srv/another /etc/another /usr/local/*/another-release /etc/systemd/system/another@*")
        app.host.run("systemctl daemon-reload; userdel another")
