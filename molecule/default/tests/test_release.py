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

from molecule.shared.tests.conftest import REPOSITORY, App, playbook


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
    assert app.answering("/health") == app.workers


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
