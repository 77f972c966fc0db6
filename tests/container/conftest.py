"""app/Dockerfile's image, built once, and engines to run it on: with limits where one here can set them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetlab import cli, hosts, images, machine
from fleetlab import engine as engines
from fleetlab.definition import Host, LabError
from fleetlab.engine import LABEL, Engine
from fleetlab.limits import copy_image, limiting

from tests.container.containers import IMAGE, LAB, REPOSITORY, Starter

BASE, DEFAULT_BASE = "fastapi-fleet/app-base:local", "python:3.13-slim"
ORIGIN = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The lab's engine, or the user's own; stopped at the end if it was started here and no lab needs it."""
    with machine.lock("engine"):
        hosts.lab_dir(LAB).mkdir(exist_ok=True)
        try:
            found = engines.ensure()
        except LabError:
            hosts.lab_dir(LAB).rmdir()
            raise
    try:
        yield found
    finally:
        cli.down(LAB, keep_engine=bool(os.environ.get("FLEET_LAB_KEEP_ENGINE")))


def build(engine: Engine, folder: Path, tag: str, *options: str) -> None:
    label = ["--label", f"{LABEL}={images.IMAGES}"]
    engine.call("build", "--quiet", "--force-rm", *label, "--tag", tag, *options, str(folder), timeout=600)


def base(engine: Engine) -> str:
    """Return the base image: the default one where a registry gives it, else a lab's host with venv."""
    if images.probe().registry and engine.works("pull", "--quiet", DEFAULT_BASE, timeout=300):
        return DEFAULT_BASE
    host, _ = images.provide(engine, [Host("base", "ubuntu-24.04")], images.recipe())["ubuntu-24.04"]
    with tempfile.TemporaryDirectory() as folder:
        install = "apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv"
        Path(folder, "Dockerfile").write_text(f"FROM {host}\nRUN {install}\n")
        build(engine, Path(folder), BASE)
    return BASE


@pytest.fixture(scope="session")
def image(engine: Engine, request: pytest.FixtureRequest) -> str:
    """The image's tag. Which base it has is said at the end of the run."""
    taken, began = base(engine), time.monotonic()
    arguments = ["--file", str(REPOSITORY / "app/Dockerfile"), "--build-arg", f"BASE={taken}"]
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        arguments += ["--build-arg", name] if name in os.environ else []
    # The first stage gets a name: without one it would be left over for ever.
    build(engine, REPOSITORY, f"{IMAGE}-build", *arguments, "--target", "build")
    build(engine, REPOSITORY, IMAGE, *arguments)
    system = engine.call("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", ". /etc/os-release; echo $PRETTY_NAME")
    python = engine.call("run", "--rm", "--entrypoint", "python3", IMAGE, "--version")
    line = f"image built in {time.monotonic() - began:.0f} s on {taken}: {system}, {python}"
    request.config.stash[ORIGIN] = [line]
    return IMAGE


@pytest.fixture(scope="session")
def limited_engine(engine: Engine, image: str, request: pytest.FixtureRequest) -> Iterator[Engine | None]:
    """An engine that sets limits and has the image; None where this machine has none."""
    with limiting(engine) as found:
        if found is not None:
            copy_image(image, engine, found)
            version = found.call("info", "--format", "{{.CgroupVersion}}")
            which = "the engine in use" if found == engine else "a second engine, of the tests' own"
            request.config.stash[ORIGIN].append(f"limits set by {which}, control groups v{version}")
        yield found


@pytest.fixture
def start(engine: Engine, image: str) -> Iterator[Starter]:
    """Start a container without limits."""
    starter = Starter(engine)
    yield starter
    starter.clear()


@pytest.fixture
def start_limited(limited_engine: Engine | None) -> Iterator[Starter]:
    """Start a container with limits."""
    if limited_engine is None:
        pytest.skip("no engine here can limit a container's CPU and memory: no such control groups")
    starter = Starter(limited_engine)
    yield starter
    starter.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests ran on."""
    for line in config.stash.get(ORIGIN, []):
        terminalreporter.write_line(f"container: {line}")
