"""The image's definition: ansible-builder takes it, and it names what the project's own files name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml
from fleetcollection import REPOSITORY

BUILDER = "ansible-builder==3.2.*"
DEFINITION = "execution-environment.yml"


def definition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / DEFINITION).read_text())
    return found


def test_ansible_builder_takes_it(tmp_path: Path) -> None:
    (archive,) = definition()["additional_build_files"]
    shutil.copy(REPOSITORY / DEFINITION, tmp_path)
    (tmp_path / archive["src"]).write_bytes(b"the collection")
    uv = Path(sys.executable).with_name("uv")
    # Its resolver of requirements needs setuptools, which a fresh environment has not.
    words = ["tool", "run", "--quiet", "--system-certs", "--from", BUILDER, "ansible-builder", "create"]
    done = subprocess.run([uv, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = yaml.safe_load((tmp_path / "context/_build/requirements.yml").read_text())["collections"]
    own = next(Path(each["name"]) for each in listed if each.get("type") == "file")
    assert (tmp_path / "context/_build" / own).read_bytes() == b"the collection"


def test_it_names_what_the_project_names() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (archive,) = definition()["additional_build_files"]
    assert archive["src"] == f"webfleet-fastapi-{project['version']}.tar.gz"
    collections = definition()["dependencies"]["galaxy"]["collections"]
    assert collections[1:] == yaml.safe_load((REPOSITORY / "requirements.yml").read_text())["collections"]
    python = (REPOSITORY / "meta/ee-requirements.txt").read_text().splitlines()
    assert [line for line in python if not line.startswith("#")] == [
        line for line in project["dependencies"] if line.startswith("uv")
    ]


@pytest.mark.parametrize("kind", ["python", "system"])
def test_the_collection_names_files_that_are_there(kind: str) -> None:
    needs = yaml.safe_load((REPOSITORY / "meta/execution-environment.yml").read_text())["dependencies"]
    assert (REPOSITORY / needs[kind]).is_file()
