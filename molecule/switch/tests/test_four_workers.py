"""The well-known promise: four workers serve four blocking requests at a time, one worker one after the other."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

import pytest
from fleettest import App

from bench.four_workers import SECONDS, Round, blocking

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
FULL = bool(os.environ.get("FLEET_FULL"))
#: What a busy machine may add, in seconds.
SLACK = 1.5


@pytest.fixture
def settled(app: App, sample: str) -> Iterator[None]:
    """Leave the host with the workers that converge planned for it."""
    yield
    rc, said = app.command("activate", sample)
    assert rc == 0, said


def rounds_with(app: App, workers: int, rounds: int) -> list[Round]:
    plan = app.live["plan"]
    asked = {**plan, "workers": workers, "inputs": {**plan["inputs"], "workers": workers}}
    with app.settings(plan=asked, watch_seconds=0):
        rc, said = app.command("activate", app.live["release"])
        assert rc == 0, said
    found = blocking(app.address, rounds)
    print(*found, sep="\n")
    return found


@pytest.mark.usefixtures("settled")
def test_four_workers_serve_four_blocking_requests_at_a_time(app: App) -> None:
    many, alone = rounds_with(app, 4, 20 if FULL else 4), rounds_with(app, 1, 20 if FULL else 1)
    for each in [*many, *alone]:
        # How long it takes says exactly how many of them one worker had to serve one after the other.
        assert 0 <= each.seconds - SECONDS * each.served[0] < SLACK
    assert {each.served for each in alone} == {(4,)}
    assert max(each.seconds for each in many) < 4 * SECONDS
    # Below Python 3.12, service_even_bursts has no effect, and two of them may meet in most rounds.
    even = app.host.run("/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 12))'").rc == 0
    assert statistics.median(each.seconds for each in many) < (1 if even else 2) * SECONDS + SLACK
