"""compose.yaml as it is, with the image that the tests built: started, asked, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetlab.engine import LABEL, Engine

from tests.container.containers import CPUS, IMAGE, LAB, REPOSITORY, Container


def compose_command(engine: Engine) -> list[str]:
    """Return how Compose is called here: as docker's plugin, else as a program of its own."""
    if engine.works("compose", "version"):
        return engine.argv("compose")
    try:
        subprocess.run(["docker-compose", "version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("Compose is not installed: script/bootstrap --tests")
    return ["docker-compose", *engine.argv()[1:]]


class Project:
    """The services of compose.yaml under a name of the tests' own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.command = compose_command(engine)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # It says which image and that it is the tests'; all else is as users get it.
        labels = f"labels: {{{LABEL}: {LAB}}}"
        self.extra = folder / "compose.tests.yaml"
        self.extra.write_text(
            f'services:\n  counter:\n    image: "{IMAGE}"\n    {labels}\nnetworks:\n  default:\n    {labels}\n'
        )

    def __call__(self, *arguments: str, **environment: str) -> str:
        files = ["--file", str(REPOSITORY / "compose.yaml"), "--file", str(self.extra)]
        clean = {name: value for name, value in self.engine.env().items() if name not in ("WEB_CONCURRENCY", "BASE")}
        done = subprocess.run(
            [*self.command, "--project-name", LAB, *files, *arguments],
            env={**clean, "PORT": str(self.port), **environment},
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, **environment: str) -> Container:
        """Start it, without building; return its container."""
        self("up", "--detach", "--no-build", **environment)
        return Container(self.engine, self("ps", "--quiet").strip())


@pytest.fixture
def compose(limited_engine: Engine | None, tmp_path: Path) -> Iterator[Project]:
    if limited_engine is None:
        pytest.skip("no engine here can limit a container's CPU and memory, as compose.yaml does")
    if CPUS < 2:
        pytest.skip("this machine has 1 CPU: an engine refuses compose.yaml's 1.5")
    project = Project(limited_engine, tmp_path)
    yield project
    project("down", "--volumes")


def test_compose_starts_what_its_limits_allow_and_stops_it_cleanly(compose: Project) -> None:
    container = compose.up()
    assert len(container.answering(4)) == 4
    assert len(container.workers()) == 4
    assert container.log().startswith(f"4 workers = 2 × 1.5 of {os.cpu_count()} vCPU by quota + 1")
    assert container.inspect("{{json .HostConfig.PortBindings}}") == (
        f'{{"8000/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{compose.port}"}}]}}'
    )
    assert container.inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}") == "true [ALL]"
    compose("stop")
    assert container.inspect("{{.State.ExitCode}}") == "0"


def test_compose_takes_engine_and_number_from_the_environment(compose: Project) -> None:
    container = compose.up(WEB_CONCURRENCY="2", FLEET_ENGINE="uvicorn")
    assert len(container.answering(2)) == 2
    assert container.log().startswith("2 workers as set (the rule says 2 × 1.5 of ")
    assert "-m uvicorn" in container.engine.call("top", container.name, "-eo", "pid,args")
