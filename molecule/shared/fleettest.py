"""A pytest plugin: what the tests on hosts share. A test module says `pytest_plugins = ["fleettest"]`."""

from __future__ import annotations

import functools
import http.client
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fleetcollection
import pytest

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
        """The master's children: the workers."""
        return {int(pid) for pid in self.host.run(f"pgrep --parent {self.master}").stdout.split()}

    @property
    def live(self) -> dict[str, Any]:
        """What the last switch recorded."""
        found: dict[str, Any] = json.loads(self.host.check_output(f"cat /srv/{self.name}/live.json"))
        return found

    @property
    def address(self) -> str:
        """Where the host is reached."""
        return str(self.variables["ansible_host"])

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


@pytest.fixture
def app(host: Any) -> App:
    """Return the deployed app on the host under test."""
    name = host.backend.get_pytest_id().partition("://")[2]
    variables = inventory()["_meta"]["hostvars"][name]
    return App(host, variables["app_name"], variables)


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
    command: list[str | Path] = [
        Path(sys.executable).with_name("ansible-playbook"),
        "-i",
        INVENTORY,
        "-i",
        SHARED_INVENTORY,
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    if collections:
        environment = fleetcollection.environment(collections)
    return subprocess.run(
        [*command, name if collections else REPOSITORY / name, "-e", json.dumps(variables or {}), *arguments],
        cwd=collections or REPOSITORY, env=environment,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
