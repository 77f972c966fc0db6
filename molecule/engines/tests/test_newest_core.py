"""The newest ansible-core as the controller: Ubuntu 26.04 with its own Python deploys to the other host, over SSH.

The tests' own ansible-core is the oldest that the collection takes. Here rather than elsewhere, as the scenario has a
host of the newer Ubuntu that waits most of the time.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleetcollection
import pytest
import testinfra
from fleettest import INVENTORY, REPOSITORY, App, inventory

testinfra_hosts = ["ansible://web1"]

NEWEST = "2.21"  # the series; raise it when PyPI has the next one
WHERE = "/root/controller"
NAME = "newest"


class Controller:
    """The host that deploys, and what it has said."""

    def __init__(self, host: Any, releases: list[str]) -> None:
        self.host, self.releases, self.warnings = host, releases, ""

    def playbook(self, name: str, **variables: Any) -> str:
        """Run one of the collection's playbooks, which has to succeed; return what it prints."""
        words = ["-i", f"{WHERE}/hosts.json", f"webfleet.fastapi.{name}", "-e", json.dumps(variables)]
        settings = {
            "PYTHONPATH": f"{WHERE}/lib",
            "ANSIBLE_COLLECTIONS_PATH": WHERE,
            "ANSIBLE_CONFIG": f"{WHERE}/ansible_collections/webfleet/fastapi/ansible.cfg",
            "ANSIBLE_HOME": f"{WHERE}/home",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        line = shlex.join(["env", *(f"{key}={text}" for key, text in settings.items()), "python3", "-m", "ansible"])
        done = self.host.run(f"{line} playbook {shlex.join(words)}")
        assert done.rc == 0, done.stdout + done.stderr
        self.warnings += done.stderr
        return str(done.stdout)


def artifacts(folder: Path, python: str) -> list[Path]:
    """Build two releases of the sample app for a host's Python; return their artifacts."""
    found = []
    for title in ("first", "second"):
        source = folder / title
        subprocess.run(["cp", "-r", REPOSITORY / "app", source], check=True)
        main = source / "main.py"
        main.write_text(main.read_text() + f'\nRELEASED = "{title}"\n')
        words = {
            "app": NAME, "source": str(source), "module": "main:app", "exclude": [".venv", "tests"],
            "engine_files": str(REPOSITORY / "roles/release/files"),
            "platforms": [{"python": python, "arch": platform.machine()}],
        }  # fmt: skip
        program = str(Path(sys.executable).with_name("ansible"))
        command = [program, "localhost", "-m", "webfleet.fastapi.release_build"]
        done = subprocess.run(
            [*command, "-o", "-a", json.dumps(words)],
            cwd=REPOSITORY, env=fleetcollection.environment(REPOSITORY / "collections"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (artifact,) = json.loads(done.stdout.partition("=> ")[2])["artifacts"].values()
        found.append(Path(artifact["path"]))
    return found


def send(folder: Path, variables: dict[str, Any]) -> None:
    """Copy a folder's content to the controller."""
    words = shlex.split(variables["ansible_ssh_common_args"])
    key, address = variables["ansible_ssh_private_key_file"], f"{variables['ansible_user']}@{variables['ansible_host']}"
    command = ["ssh", *words, "-i", key, address, f"sudo sh -c 'mkdir -p {WHERE} && tar -xC {WHERE}'"]
    with subprocess.Popen(["tar", "-cC", folder, "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(command, stdin=tar.stdout, check=True)


@pytest.fixture(scope="module")
def web1(host: Any) -> Iterator[App]:
    """The app on the host that is deployed to, beside the scenario's own; no longer there in the end."""
    app = App(host, NAME, inventory()["_meta"]["hostvars"]["web1"])
    yield app
    app.remove()


@pytest.fixture(scope="module")
def controller(web1: App, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """The other host, with the collection, ansible-core and two releases."""
    host = testinfra.get_host("ansible://web2", ansible_inventory=str(INVENTORY), sudo=True)
    ask = "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"
    python = [str(each.check_output(ask)) for each in (web1.host, host)]
    folder = tmp_path_factory.mktemp("controller")
    source = fleetcollection.export(tmp_path_factory.mktemp("clone"))
    archive = fleetcollection.build(source, tmp_path_factory.mktemp("built"))
    fleetcollection.galaxy("install", "--offline", "--collections-path", folder, archive, cwd=folder)
    install = ["pip", "install", "--quiet", "--system-certs", "--only-binary", ":all:", "--target", str(folder / "lib")]
    uv = Path(sys.executable).with_name("uv")
    target = ["--python-version", python[1], "--python-platform", f"{platform.machine()}-unknown-linux-gnu"]
    subprocess.run([uv, *install, *target, f"ansible-core=={NEWEST}.*"], check=True)
    built = artifacts(tmp_path_factory.mktemp("apps"), python[0])
    for number, path in enumerate(built):
        (folder / f"{number}.tar.gz").write_bytes(path.read_bytes())
    there = inventory()["_meta"]["hostvars"]
    (folder / "key").write_bytes(Path(there["web1"]["ansible_ssh_private_key_file"]).read_bytes())
    (folder / "key").chmod(0o600)
    target_host = {
        "ansible_host": web1.address, "ansible_user": there["web1"]["ansible_user"],
        "ansible_ssh_private_key_file": f"{WHERE}/key",
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=accept-new",
    }  # fmt: skip
    settings = {
        "app_name": NAME, "app_module": "main:app", "service_workers": 1, "service_watch_seconds": 1,
        "service_boot_timeout": 90, "proxy_server_names": ["newest.test"],
    }  # fmt: skip
    (folder / "hosts.json").write_text(json.dumps({"app": {"hosts": {"web1": target_host}, "vars": settings}}))
    send(folder, there["web2"])
    return Controller(host, [path.name for path in built])


def test_it_is_the_newest(controller: Controller) -> None:
    said = controller.host.check_output(f"PYTHONPATH={WHERE}/lib python3 -m ansible adhoc --version")
    assert f"core {NEWEST}." in said


def test_deploy_verify_and_rollback(controller: Controller, web1: App) -> None:
    controller.playbook("deploy", app_source=f"{WHERE}/0.tar.gz")
    first = web1.live["release"]
    web1.assert_settled(first)
    again = controller.playbook("deploy", app_source=f"{WHERE}/0.tar.gz")
    assert re.search(r"^web1 +: ok=\d+ +changed=0 +unreachable=0 +failed=0 ", again, re.MULTILINE), again
    controller.playbook("deploy", app_source=f"{WHERE}/1.tar.gz")
    second = web1.live["release"]
    assert second != first
    assert re.search(r"^ *web1 +\d+ +1 +1 +1 ", controller.playbook("verify", app_source=f"{WHERE}/1.tar.gz"), re.M)
    controller.playbook("rollback", app_source=f"{WHERE}/1.tar.gz")
    web1.assert_settled(first)
    assert web1.get("/health", host="newest.test")[0] == 200


def test_nothing_of_it_is_deprecated(controller: Controller) -> None:
    """After the runs above, which have said so if it were."""
    assert [line for line in controller.warnings.splitlines() if "DEPRECAT" in line] == []
