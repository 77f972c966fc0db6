"""The collection deploys as the clone does: on hosts that the clone has deployed to, it finds nothing to change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fleetcollection
import pytest
from fleettest import App, inventory, playbook

pytest_plugins = ["fleettest"]
# The playbooks deploy to all hosts; one of them is watched.
testinfra_hosts = ["ansible://web1"]


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the collection is installed."""
    source = fleetcollection.export(tmp_path_factory.mktemp("clone"))
    archive = fleetcollection.build(source, tmp_path_factory.mktemp("built"))
    return fleetcollection.install(archive, tmp_path_factory.mktemp("installed") / "collections")


def test_collection_deploys_what_is_there_already(app: App, collections: Path) -> None:
    """From the same source, so even the release's id is the same."""
    before = (app.live, app.master, app.workers)
    source = str(fleetcollection.REPOSITORY / "app")
    done = playbook("webfleet.fastapi.deploy", variables={"app_source": source}, collections=collections)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0 ", done.stdout, re.MULTILINE)
    assert dict(found) == dict.fromkeys([*inventory()["_meta"]["hostvars"], "localhost"], "0"), done.stdout
    assert (app.live, app.master, app.workers) == before


def test_collection_proves_the_workers(host: Any, collections: Path) -> None:
    done = playbook("webfleet.fastapi.verify", collections=collections)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in inventory()["_meta"]["hostvars"]:
        assert re.search(rf"{name} +\d+ +(\d+) +\1 +\1 +(cpu|memory|affinity)", done.stdout), done.stdout
