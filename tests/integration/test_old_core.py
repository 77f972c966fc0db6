"""An ansible-core that is too old says so in one line, in a clone and as a collection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fleetcollection
import pytest
from fleetcollection import REPOSITORY

TOO_OLD = "2.18"
LINE = f"ansible-core {TOO_OLD} is too old; webfleet.fastapi needs 2.19 or newer. Nothing was changed on any host."

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason=f"ansible-core {TOO_OLD} needs Python 3.13 or older"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ansible-playbook of the last series that is too old."""
    folder, uv = tmp_path_factory.mktemp("old"), Path(sys.executable).with_name("uv")
    python, wanted = folder / "bin/python", f"ansible-core=={TOO_OLD}.*"
    steps: list[list[str | Path]] = [
        ["venv", "--quiet", "--python", sys.executable, folder],
        ["pip", "install", "--quiet", "--system-certs", "--python", python, wanted],
    ]
    for words in steps:
        subprocess.run([uv, *words], check=True)
    return folder / "bin/ansible-playbook"


def run(program: Path, playbook: str | Path, collections: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a playbook for this very machine, with nothing of a clone's settings."""
    settings = {"app_name": "shop", "app_module": "main:app", "app_source": "/nonexistent"}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    (folder / "hosts.json").write_text(json.dumps({"app": {"hosts": {"here": here}, "vars": settings}}))
    (folder / "empty.cfg").touch()
    return subprocess.run(
        [program, "-i", folder / "hosts.json", playbook],
        cwd=folder,
        env=fleetcollection.environment(folder) | {"ANSIBLE_COLLECTIONS_PATH": str(collections)},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if "WARNING" not in line and line] == [f"ERROR! {LINE}"]


@pytest.mark.parametrize("playbook", ["deploy", "verify", "rollback", "image"])
def test_playbook_of_a_clone(program: Path, playbook: str, tmp_path: Path) -> None:
    assert_refused(run(program, REPOSITORY / f"playbooks/{playbook}.yml", tmp_path / "none", tmp_path))


def test_playbook_of_the_collection(program: Path, tmp_path: Path) -> None:
    assert_refused(run(program, "webfleet.fastapi.deploy", REPOSITORY / "collections", tmp_path))


@pytest.mark.parametrize(("role", "entry"), [("service", "plan"), ("service", "check"), ("proxy", "check")])
def test_role_in_a_playbook_of_somebody_else(program: Path, role: str, entry: str, tmp_path: Path) -> None:
    task = {"name": "Use it", "ansible.builtin.import_role": {"name": f"webfleet.fastapi.{role}", "tasks_from": entry}}
    play = {"name": "Theirs", "hosts": "app", "gather_facts": False, "tasks": [task]}
    (tmp_path / "theirs.yml").write_text(json.dumps([play]))
    done = run(program, tmp_path / "theirs.yml", REPOSITORY / "collections", tmp_path)
    assert done.returncode != 0
    assert LINE in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
