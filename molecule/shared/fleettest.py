"""A pytest plugin: what the tests on hosts share. A test module says `pytest_plugins = ["fleettest"]`."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fleetcollection
import pytest
from fleettracebacks import assert_no_own_traceback

from bench.load import Load, Report

REPOSITORY = Path(__file__).parents[2]
INVENTORY = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "none")) / "inventory"
SHARED_INVENTORY = REPOSITORY / "molecule" / "shared" / "inventory"


@dataclass(frozen=True)
class App:
    """The app on one host, as a client and an operator see it."""

    host: Any
    name: str
    variables: dict[str, Any]

    @property
    def slot(self) -> str:
        """The slot that gets traffic."""
        return Path(self.host.check_output(f"readlink /srv/{self.name}/live.sock")).stem

    @property
    def unit(self) -> str:
        """The live slot's service unit."""
        return f"{self.name}@{self.slot}.service"

    @property
    def master(self) -> int:
        """The main process of the live slot."""
        return int(self.host.check_output(f"systemctl show --property=MainPID --value {self.unit}"))

    @property
    def workers(self) -> set[int]:
        """The master's children: the workers. uvicorn has one more, multiprocessing's resource tracker."""
        found = self.host.run(f"pgrep --parent {self.master} --list-full").stdout.splitlines()
        return {int(line.split()[0]) for line in found if "resource_tracker" not in line}

    @property
    def live(self) -> dict[str, Any]:
        """What the last switch recorded."""
        found: dict[str, Any] = json.loads(self.host.check_output(f"cat /srv/{self.name}/slots/{self.slot}.json"))
        return found

    @property
    def address(self) -> str:
        """Where the host is reached."""
        return str(self.variables["ansible_host"])

    def command(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run the host's command, `activate` as a deploy does; return its exit code and what it said."""
        words = (*words, "--wanted") if words[0] == "activate" else words
        # 255, systemd-run's word for a switch that was killed, would be taken for ssh's own.
        line = " ".join(
            [f"{self.name}-release", "%s " * len(words), "--json; code=$?; exit $((code > 254 ? 254 : code))"]
        )
        done = self.host.run(line, *words)
        assert_no_own_traceback(done.stdout, done.stderr)
        said: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {"error": done.stderr}
        return done.rc, said

    def write(self, path: str, text: str) -> None:
        """Write a file on the host; one that is there keeps its owner and mode."""
        self.host.check_output("printf %%s %s > %s", text, path)

    @contextlib.contextmanager
    def settings(self, **values: Any) -> Iterator[None]:
        """Give the host's command other settings for a while, without a deploy. Hooks have a file of their own."""
        hooks = {name: value for name, value in values.items() if name.startswith("hook_") and name != "hook_timeout"}
        changes = {"hooks.json": hooks, "release.json": {name: values[name] for name in values.keys() - hooks.keys()}}
        files = {f"/etc/{self.name}/{name}": changed for name, changed in changes.items() if changed}
        with contextlib.ExitStack() as put_back:
            for path, changed in files.items():
                text = self.host.check_output("cat %s", path)
                put_back.callback(self.write, path, text)
                self.write(path, json.dumps({**json.loads(text), **changed}))
            yield

    def copy_release(self, release: str, changes: Mapping[str, str], name: str) -> str:
        """Make a release on the host out of another one: main.py with other words; return its id.

        To the host it is as good as one that was shipped, and it takes a tenth of the time.
        """
        folder = f"/srv/{self.name}/releases"
        main = self.host.check_output(f"cat {folder}/{release}/app/main.py")
        for old, new in changes.items():
            assert main.count(old) == 1, old
            main = main.replace(old, new)
        self.host.check_output(
            f"cd {folder} && rm -rf {name} && cp -al {release} {name} && "
            f"rm -rf {name}/.complete {name}/app/main.py {name}/app/__pycache__"
        )
        self.write(f"{folder}/{name}/app/main.py", main)
        self.host.check_output(f"cp {folder}/{release}/.complete {folder}/{name}/.complete")
        return name

    def state(self) -> str:
        """Return what has to stay as it is where nothing is done: the link, what is written down, the processes."""
        user = self.variables.get("service_user", self.name)
        self.wait_for_the_old_slot()
        found: str = self.host.check_output(
            f"cd /srv/{self.name} && readlink live.sock; cat slots/*.json; pgrep -u {user} --list-full; "
            f"systemctl is-enabled {self.name}@blue.service {self.name}@green.service; ls -A"
        )
        return found

    def wait_for_the_old_slot(self) -> None:
        """Wait until the processes of a slot that was stopped are gone; a switch does not wait for that."""
        units = f"{self.name}@blue.service {self.name}@green.service"
        wait_until(lambda: "deactivating" not in self.host.run(f"systemctl is-active {units}").stdout)

    def assert_settled(self, release: str) -> None:
        """Nothing is half done: this release is live in one slot, the other is down, nobody holds the lock."""
        rc, said = self.command("status")
        assert (rc, said["live"]["release"], said["differences"], said["lock"]) == (0, release, [], None), said
        units = f"{self.name}@blue.service {self.name}@green.service"
        self.wait_for_the_old_slot()
        seen = self.host.run(
            f"systemctl is-active {units}; systemctl is-enabled {units}; ls -A /srv/{self.name}"
        ).stdout
        wanted = ["active", "inactive", "enabled", "disabled"]
        if said["slot"] == "green":
            wanted = ["inactive", "active", "disabled", "enabled"]
        assert seen.split()[:4] == wanted, seen
        assert "transaction.json" not in seen, seen

    def remove(self) -> None:
        """Remove the app from the host, as docs/operations.md says."""
        how = (REPOSITORY / "docs/operations.md").read_text().partition("### Remove an app from a host")[2]
        script = how.partition("```sh\n")[2].partition("```")[0]
        assert script.startswith("APP=shop\n")
        self.host.check_output(f"sh -ec {shlex.quote(script.replace('APP=shop', f'APP={self.name}'))}")
        assert not self.host.file(f"/srv/{self.name}").exists

    def reloads(self) -> list[float]:
        """Return when nginx was reloaded since this host started, in monotonic seconds, which all hosts here share."""
        lines = self.host.check_output("journalctl --unit=nginx --output=json --grep='^Reloaded ' || true").splitlines()
        return [int(json.loads(line)["__MONOTONIC_TIMESTAMP"]) / 1e6 for line in lines]

    def load(self, **settings: Any) -> Load:
        """Return a load on the host that counts every request; it runs in a process of its own until it is stopped."""
        return Load(f"http://{self.address}", **{"rate": 60, **settings})

    def get(self, path: str, host: str | None = None, timeout: float = 20) -> tuple[int, dict[str, str], bytes]:
        """Ask the host through its proxy; returns status, headers (lower case) and body."""
        connection = http.client.HTTPConnection(self.address, 80, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Host": host or self.address})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read()
        finally:
            connection.close()

    def answering(self, path: str, requests: int = 80) -> set[int]:
        """Return the pids that answer, as they name themselves, to many requests at once."""
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: self.get(path), range(requests)))
        assert {status for status, _, _ in answers} == {200}
        return {int(headers["x-worker-pid"]) for _, headers, _ in answers}


def assert_nothing_lost(report: Report, least: int) -> None:
    """Enough was asked to show something, and every request had its answer."""
    print(report.table())
    assert report.sent >= least, report.table()
    assert report.lost == 0, report.table()


#: From when to when nginx closes connections, in seconds after systemd has said that it is reloaded.
RELOAD = (-0.5, 2.0)


def assert_lost_by_reload_only(report: Report, least: int, reloads: list[float]) -> None:
    """Every request had its answer, but for POSTs on kept connections at the moment in which nginx was reloaded.

    nginx closes idle connections then, at once, and a client must not send a POST twice by itself (RFC 9110, 9.2.2).
    `reloads` are monotonic seconds.
    """
    print(report.table())
    assert report.sent >= least, report.table()
    lost = [each for each in report.requests if each.reason]
    near = [each for each in lost if any(RELOAD[0] < each.finished - at < RELOAD[1] for at in reloads)]
    assert lost == [each for each in near if each.kind == "post-keep" and each.status == 0], report.table()
    assert len(lost) <= 3 * len(reloads), report.table()


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Look several times a second; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def app(host: Any) -> App:
    """Return the deployed app on the host under test."""
    name = host.backend.get_pytest_id().partition("://")[2]
    variables = inventory()["_meta"]["hostvars"][name]
    return App(host, variables["app_name"], variables)


@pytest.fixture(scope="module")
def sample(app: App) -> str:
    """Return the release that converge put onto the host."""
    return str(app.live["release"])


@pytest.fixture(scope="module")
def sample_again(app: App) -> Iterator[None]:
    """Leave the host as converge did, without the releases that tests made on it: other tests run on it, too."""
    yield
    done = playbook("deploy.yml", "--limit", app.host.backend.host)
    assert done.returncode == 0, done.stdout
    made = f"find /srv/{app.name}/releases -mindepth 1 -maxdepth 1 -type d -not -regex '.*/[0-9a-f]+'"
    app.host.check_output(f"rm -rf $({made}) /srv/{app.name}/bad.json")


@functools.cache
def inventory() -> dict[str, Any]:
    """Return what Ansible knows of the scenario's hosts, its own variables and the shared ones."""
    command = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [command, "-i", INVENTORY, "-i", SHARED_INVENTORY, "--list"], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def playbook(
    name: str, *arguments: str, variables: dict[str, Any] | None = None, collections: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the project's playbooks against the scenario's hosts, as a user of the clone would.

    With `collections`, a folder of installed collections, as a user without a clone would: nothing of it is in reach.
    """
    command = playbook_command(name if collections else REPOSITORY / name, *arguments, variables=variables)
    environment = fleetcollection.environment(collections) if collections else playbook_environment(REPOSITORY)
    done = subprocess.run(
        command, cwd=collections or REPOSITORY, env=environment,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert_no_own_traceback(done.stdout, done.stderr)
    return done


def playbook_command(name: str | Path, *arguments: str, variables: dict[str, Any] | None = None) -> list[str | Path]:
    """Return the words that run a playbook against the scenario's hosts."""
    program = Path(sys.executable).with_name("ansible-playbook")
    inventories: list[str | Path] = ["-i", INVENTORY, "-i", SHARED_INVENTORY]
    return [program, *inventories, name, "-e", json.dumps(variables or {}), *arguments]


def playbook_environment(repository: Path) -> dict[str, str]:
    """Return the environment in which a clone's own roles and modules are found."""
    return {**os.environ, "ANSIBLE_CONFIG": str(repository / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
