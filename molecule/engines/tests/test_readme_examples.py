"""The examples of the roles' READMEs, as they stand, from a folder that is no clone's; only the app is another."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetcollection import environment
from fleettest import INVENTORY, REPOSITORY, App, inventory, playbook_command

testinfra_hosts = ["ansible://web1"]


@pytest.fixture(scope="module")
def shop(host: Any) -> Iterator[App]:
    """The examples' app, beside the scenario's own; no longer there in the end."""
    app = App(host, "shop", inventory()["_meta"]["hostvars"]["web1"])
    yield app
    app.remove()


def run(role: str, folder: Path) -> str:
    """Run a role's example, which has to succeed; return what it prints."""
    (example,) = re.findall(
        r"^```yaml\n(- hosts:.*?)^```", (REPOSITORY / f"roles/{role}/README.md").read_text(), re.M | re.S
    )
    (folder / "example.yml").write_text(example)
    own = {"app_source": str(REPOSITORY / "app"), "vault_database_url": "none", "service_boot_timeout": 90}
    command = playbook_command(folder / "example.yml", "--limit=web1", variables=own)
    # Not the scenario's own variables, which name another app.
    command = [word for word in command if word != "-i" and not str(word).endswith("inventory")]
    done = subprocess.run(
        [*command, "-i", INVENTORY / "lab.yml"],
        cwd=folder, env=environment(REPOSITORY / "collections") | {"ANSIBLE_PIPELINING": "1"},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_release(shop: App, tmp_path: Path) -> None:
    run("release", tmp_path)
    assert shop.host.run("ls /srv/shop/releases/*/.complete").rc == 0
    assert not shop.host.file("/usr/local/sbin/shop-release").exists, "bytes on disk, and nothing else"


def test_service(shop: App, tmp_path: Path) -> None:
    run("service", tmp_path)
    shop.assert_settled(str(shop.live["release"]))
    assert re.search(r" changed=0 ", run("service", tmp_path)), "a second run changes nothing"


def test_proxy(shop: App, tmp_path: Path) -> None:
    run("proxy", tmp_path)
    assert shop.get("/health", host="shop.example.org")[0] == 200
