"""The container is reached without an nginx of ours: what a request hides in its body stays there, with each engine."""

from __future__ import annotations

import time

import pytest
from fleetedge import judge
from fleetedge.corpus import SIZES, Corpus, hidden_bodies, upgrades, upgrades_by_size

from plugins.module_utils.workers.engines import ENGINES
from tests.container.containers import REPOSITORY, SECONDS, Container, Starter

TRIES = 20
RECORDER = REPOSITORY / "molecule/shared/fleetedge/recorder/main.py"


def port_of(container: Container) -> int:
    """Return the port of this machine by which the container is reached, once it answers."""
    port = int(container.engine.call("port", container.name, "8000/tcp").splitlines()[0].rpartition(":")[2])
    end = time.monotonic() + SECONDS
    while container.ask("/health")[0][0] != 200:
        assert time.monotonic() < end, container.log()
    return port


@pytest.mark.fault(49)
@pytest.mark.parametrize("engine_name", ENGINES)
def test_bodies_of_upgrades_arrive_whole_and_hide_nothing_in_a_container(start: Starter, engine_name: str) -> None:
    options = ("--env", f"FLEET_ENGINE={engine_name}", "--env", "WEB_CONCURRENCY=2", "--env", "STATE_DIRECTORY=/tmp")
    container = start(*options, "--publish", "127.0.0.1::8000")
    # The app that writes down what it sees, in the place of the sample app. Copied: an engine may run elsewhere.
    container.engine.call("cp", str(RECORDER), f"{container.name}:/srv/app/main.py")
    container.engine.call("restart", container.name)
    port = port_of(container)
    made = Corpus("localhost")
    upgrades(made)
    upgrades_by_size(made)
    # A handshake is no fault here: the connection is the client's own, whatever comes behind it.
    cases = [case for case in made.made if not case.writes[0].startswith(b"GET ")]
    cases += [case for _, case in hidden_bodies("localhost", SIZES, TRIES, first=made.number)]
    judge.send_all("127.0.0.1", cases, port)
    records = judge.parse(container.run("sh", "-c", "cat $STATE_DIRECTORY/seen.jsonl").encode())
    assert judge.judge_records(records, {case.target: case for case in cases}) == []
    assert [record["target"] for record in records if "hidden" in record["target"]] == []
    assert len(records) == len(cases)
