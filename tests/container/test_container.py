"""The app's image, built and run: as many workers as its limits allow, and it starts and ends as a service should."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest

from plugins.module_utils.workers.engines import ENGINES
from tests.container.containers import CPUS, SECONDS, Starter

#: As compose.yaml has it.
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges:true")
HEALTH = ("--health-interval", "1s", "--health-retries", "2", "--health-start-period", "1ms")


# Limits


@pytest.mark.parametrize(("cpus", "workers"), [("0.5", 2), ("1", 3), ("2", 5)])
def test_a_cpu_quota_decides_how_many_workers_run_and_answer(start_limited: Starter, cpus: str, workers: int) -> None:
    if float(cpus) > CPUS:
        pytest.skip(f"this machine has {CPUS} CPU: an engine refuses a quota of {cpus}")
    container = start_limited("--cpus", cpus, "--memory", "1g")
    assert len(container.answering(workers)) == workers
    assert len(container.workers()) == workers
    assert re.match(rf"{workers} workers = 2 × \S+ (of \d+ )?vCPU ", container.log())
    visible = int(container.run("nproc"))
    assert visible == CPUS, "what a start script with $(nproc) would go by is the whole machine"
    if float(cpus) < CPUS:
        assert f"2 × {cpus} of {CPUS} vCPU by quota + 1" in container.log()
        assert 2 * visible + 1 > workers


@pytest.mark.parametrize(
    ("memory", "environment", "workers"), [("384m", [], 3), ("128m", [], 1), ("200m", ["FLEET_WORKER_MIB=60"], 2)]
)
def test_a_small_memory_limit_decides_how_many_workers_run_and_answer(
    start_limited: Starter, memory: str, environment: list[str], workers: int
) -> None:
    if workers >= 2 * CPUS + 1:
        pytest.skip(f"this machine has {CPUS} CPU: no more workers than {workers} anyway")
    container = start_limited("--memory", memory, *(part for text in environment for part in ("--env", text)))
    assert len(container.answering(workers)) == workers
    assert len(container.workers()) == workers
    assert f"{memory[:-1]} MiB by limit" in container.log()
    assert f"2 × {CPUS} vCPU + 1 would be {2 * CPUS + 1}" in container.log(), "and so would $(nproc) have it"
    assert container.inspect("{{.State.OOMKilled}}") == "false"


def test_memory_for_less_than_one_worker_starts_nothing_and_says_what_to_set(start_limited: Starter) -> None:
    container = start_limited("--memory", "64m")
    assert container.wait("{{.State.Status}}", "exited") == "exited"
    assert container.inspect("{{.State.ExitCode}}") == "2"
    (line,) = container.log().splitlines()
    assert "64 MiB by limit" in line
    assert "100 MiB" in line
    assert "FLEET_WORKER_MIB" in line


def test_a_number_that_was_set_goes_before_the_quota(start_limited: Starter) -> None:
    container = start_limited("--cpus", "0.5", "--memory", "512m", "--env", "WEB_CONCURRENCY=3")
    assert len(container.answering(3)) == 3
    assert container.log().startswith("3 workers as set (the rule says 2 × 0.5 of ")


# A service


@pytest.mark.parametrize("engine_name", ENGINES)
def test_sigterm_lets_requests_end_and_the_container_ends_with_0(start: Starter, engine_name: str) -> None:
    container = start("--env", "WEB_CONCURRENCY=2", "--env", f"FLEET_ENGINE={engine_name}")
    assert len(container.answering(2)) == 2
    assert len(container.workers()) == 2
    # 40 threads hold a worker's `def` requests and the loop any number of awaiting ones: none of these waits in line.
    with subprocess.Popen(
        container.client("/serve/awaiting?seconds=5", 8), stdout=subprocess.PIPE, env=container.engine.env(), text=True
    ) as client:
        # Connections to port 8000 (1F40) that are established (01), as the server has them.
        end = time.monotonic() + SECONDS
        table = "0"
        while int(table) < 8 and time.monotonic() < end:
            table = container.run("sh", "-c", "grep -c ':1F40 [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp || true")
        # Established is not read yet: what a worker has not begun to read when the signal comes is closed.
        time.sleep(1.5)
        container.engine.call("stop", "--time", "40", container.name, timeout=60)
        out, _ = client.communicate(timeout=60)
    assert [status for status, _ in json.loads(out)] == [200] * 8
    assert container.inspect("{{.State.ExitCode}}") == "0"


def test_the_health_check_turns_healthy(start: Starter) -> None:
    container = start("--env", "WEB_CONCURRENCY=1", *HEALTH)
    container.wait("{{.State.Health.Status}}", "healthy")


def test_the_health_check_turns_unhealthy_where_the_app_does_not_answer_well(start: Starter) -> None:
    container = start("--env", "WEB_CONCURRENCY=1", "--env", "FLEET_HEALTH_PATH=/nothing/here", *HEALTH)
    container.wait("{{.State.Health.Status}}", "unhealthy")
    assert "answered 404" in container.inspect("{{json .State.Health.Log}}")


def test_nobody_is_root_and_nothing_is_written(start: Starter) -> None:
    container = start("--env", "WEB_CONCURRENCY=2", *HARDENED)
    assert len(container.answering(2)) == 2
    owners = container.engine.call("top", container.name, "-eo", "pid,uid,args").splitlines()[1:]
    assert {line.split()[1] for line in owners} == {"10001"}
    written = "touch /srv/app/x /opt/venv/x /opt/fleet/x /x 2>/dev/null; ls /srv/app/x /opt/venv/x /opt/fleet/x /x"
    assert container.run("sh", "-c", f"({written}) 2>/dev/null || echo nothing") == "nothing"
    assert container.inspect("{{.HostConfig.ReadonlyRootfs}}") == "true"


def test_a_killed_worker_is_replaced(start: Starter) -> None:
    container = start("--env", "WEB_CONCURRENCY=2")
    before = container.answering(2)
    killed = min(before)
    container.run("python3", "-c", f"import os; os.kill({killed}, 9)")
    after: set[int] = set()
    end = time.monotonic() + SECONDS
    while len(after) < 2 and time.monotonic() < end:
        after = container.answering(2)
    assert len(after) == 2
    assert killed not in after
    assert container.inspect("{{.State.Status}} {{.RestartCount}}") == "running 0"
