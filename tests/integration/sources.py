"""What tests of sources share: a build for hosts that have Ubuntu 24.04's Python, and advice that is followed."""

import functools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from plugins.module_utils.build.assemble import build
from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.request import Platform, Request
from plugins.module_utils.build.requirements import blocks
from plugins.module_utils.build.uv import BuildError, Uv
from plugins.module_utils.workers.engines import ENGINES

ENGINE = Path(__file__).parents[2] / "roles/release/files"
#: What these tests have of the engine: the rest takes most of the time to install and pack, and changes nothing here.
SMALL = ("h11", "websockets")
MAIN = "app = 1\n"


@functools.cache
def small_engine() -> Path:
    """Make a small engine of the real one's files."""
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    for name in ("engine.in", "engine.txt"):
        rows = (row for row in blocks((ENGINE / name).read_text()) if row.startswith(SMALL))
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


def run(source: Path | str, cache: Path, *pythons: str, **changed: Any) -> dict[str, Any]:
    """Build for hosts with these Pythons; 3.12, as Ubuntu 24.04 has, where none is named."""
    platforms = [Platform(python, "x86_64", [f"web-{python}"], [f"{python}.3"]) for python in pythons or ["3.12"]]
    options = {"app": "shop", "module": "main:app", "engine": "gunicorn", "engine_files": small_engine(), "exclude": []}
    with patch.object(type(ENGINES["gunicorn"]), "packages", SMALL):
        return build(Request(source=str(source), **{**options, "platforms": platforms, **changed}), Cache(cache), Uv())


def refused(source: Path | str, cache: Path, *pythons: str, **changed: Any) -> str:
    with pytest.raises(BuildError) as refusal:
        run(source, cache, *pythons, **changed)
    return str(refusal.value)


def follow(command: str, folder: Path) -> None:
    """Run a command of an advice as somebody would who has this uv."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def names(built: dict[str, Any], python: str = "3.12") -> set[str]:
    with tarfile.open(built["artifacts"][f"{python}-x86_64"]["path"]) as tar:
        return set(tar.getnames())


def version(built: dict[str, Any], package: str, python: str = "3.12") -> str:
    """Return the version of a package in a release, nothing where it is not there."""
    folders = (re.match(rf"lib/{package}-([^/]+)\.dist-info/METADATA", name) for name in names(built, python))
    return next((match[1] for match in folders if match), "")


def write(folder: Path, **texts: str) -> Path:
    """Make an app's folder with these files; the last `__` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"main__py": MAIN, **texts}.items():
        (folder / re.sub(r"__(?=[a-z]+$)", ".", name)).write_text(text)
    return folder


def project(requires: str, *dependencies: str, more: str = "") -> str:
    """Return a pyproject.toml."""
    return (
        f'[project]\nname = "shop"\nversion = "1"\nrequires-python = "{requires}"\n'
        f"dependencies = {json.dumps(dependencies)}\n{more}"
    )
