"""Sources without an app, modules that do not exist, hosts that cannot run the app: nothing changes on any host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleettest import App, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]

SOURCES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda folder: folder / "nowhere",
    "missing.whl": lambda folder: folder / "shop-1.0-py3-none-any.whl",
    "empty": lambda folder: folder,
    "text": lambda folder: write(folder / "notes.txt", "no app"),
}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def state(app: App) -> set[str]:
    """All that a deploy could change: files by inode and time of the last change, units, workers."""
    shown = app.host.check_output(
        "find /etc /srv /usr/local /run/nginx.pid -xdev -printf '%p %i %m %U %G %s %l %C@\\n'; "
        f"systemctl show --property=Id,ActiveState,MainPID,NRestarts '{app.name}@*' nginx.service | paste -s -d ' '; "
        "pgrep --full --list-full '[-]m gunicorn'"
    )
    return set(shown.splitlines())


@pytest.fixture(autouse=True)
def unchanged(app: App) -> Iterator[None]:
    """The host is the same before and after."""
    before = state(app)
    yield
    assert state(app) ^ before == set()


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing", "app_source {} does not exist on the controller"),
        ("missing.whl", "app_source {} does not exist on the controller"),
        ("empty", "{} is no app folder: it has none of uv.lock, pyproject.toml, requirements.txt. Point app_source"),
        ("text", "app_source {} is neither a folder, nor a wheel (.whl), nor an artifact (.tar.gz)"),
    ],
)
def test_source_without_an_app_is_refused(app: App, tmp_path: Path, source: str, said: str) -> None:
    path = SOURCES[source](tmp_path)
    done = playbook("deploy.yml", "--limit", "web1", variables={"app_source": str(path)})
    assert done.returncode != 0
    assert said.format(path) in " ".join(done.stdout.split()), done.stdout


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("nope:app", "the source has no module nope (looked in app, lib)"),
        ("main:nope", "app/main.py has no name 'nope' at its top level"),
    ],
)
def test_module_that_does_not_exist_is_refused_and_the_right_one_named(app: App, module: str, said: str) -> None:
    done = playbook("deploy.yml", "--limit", "web1", variables={"app_module": module})
    assert done.returncode != 0
    assert f"app_module is {module}, but {said}. Did you mean main:app?" in " ".join(done.stdout.split()), done.stdout


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 3.9.18", "is Python 3.9 (needed: 3.10 or newer)"),
        ("echo what", "is not there, or no Python (needed: 3.10 or newer)"),
        ("", "is not there, or no Python (needed: 3.10 or newer)"),
    ],
    ids=["old", "other", "missing"],
)
def test_host_without_a_new_enough_python_is_refused(app: App, script: str, said: str) -> None:
    path = "/opt/python-of-a-test"
    if script:
        app.host.check_output(f"printf '#!/bin/sh\\n{script}\\n' > {path} && chmod 755 {path}")
    try:
        done = playbook("deploy.yml", "--limit", "web1", variables={"service_python": path})
    finally:
        app.host.check_output(f"rm -f {path}")
    assert done.returncode != 0
    output = " ".join(done.stdout.split())
    assert f"web1 cannot run {app.name}: service_python {path} {said}. Nothing was changed on it." in output, (
        done.stdout
    )
