"""A pyproject.toml: what it says of the app, to uv and to Poetry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib

from .encoding import read_text
from .uv import BuildError


def read_pyproject(root: Path) -> dict[str, Any]:
    """Return the pyproject.toml of a folder. Raises BuildError."""
    try:
        return tomllib.loads(read_text(root / "pyproject.toml"))
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{root / 'pyproject.toml'} is not valid TOML: {error}") from error


def describes(project: Mapping[str, Any]) -> bool:
    """Whether it says what the app requires; many a one has only the settings of tools."""
    said = [*project, *project.get("tool", {}), *project.get("tool", {}).get("uv", {})]
    return bool({"project", "build-system", "poetry", "workspace"}.intersection(said))


def is_package(project: Mapping[str, Any]) -> bool:
    """Whether the project is one to be built as a wheel (uv's own rule, and Poetry's)."""
    tool = project.get("tool", {})
    declared = tool.get("uv", {}).get("package", tool.get("poetry", {}).get("package-mode"))
    return bool("build-system" in project if declared is None else declared)


def index_options(project: Mapping[str, Any]) -> list[str]:
    """Return uv's options for the package indexes that it names; hashes decide which file is the right one."""
    options: list[str] = []
    for index in project.get("tool", {}).get("uv", {}).get("index", []):
        options += ["--default-index" if index.get("default") else "--index", str(index["url"])]
    for index in project.get("tool", {}).get("poetry", {}).get("source", []):
        # One of these stands in the place of PyPI, which has no URL here.
        instead = index.get("priority", "primary") in {"primary", "default"} and "--default-index" not in options
        if "url" in index:
            options += ["--default-index" if instead else "--index", str(index["url"])]
    return [*options, "--index-strategy", "unsafe-best-match"] if options else []
