"""uv's workspaces: an app that is the root of several projects, or a member. One lock, in the root, is for all."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomllib

from .encoding import read_text
from .source import Source
from .uv import BuildError


@dataclass(frozen=True)
class Workspace:
    """A workspace: `members` are folders below `root`, which is one itself where it has a [project]."""

    root: Path
    members: list[str]

    @property
    def lock(self) -> Path:
        """Where its lock is."""
        return self.root / "uv.lock"

    @property
    def projects(self) -> dict[str, Path]:
        """All pyproject.toml of it, by their names below the root."""
        names = ["pyproject.toml", *(f"{member}/pyproject.toml" for member in self.members)]
        return {name: self.root / name for name in names}


def find(folder: Path) -> Workspace | None:
    """Return the workspace of which a folder is the root or a member."""
    for root in (folder, *folder.parents):
        table = _table(root)
        if table is not None:
            workspace = Workspace(root, _members(root, table))
            known = folder == root or folder.relative_to(root).as_posix() in workspace.members
            return workspace if known else None
    return None


def _table(root: Path) -> Mapping[str, Any] | None:
    """Return what a folder's pyproject.toml says of a workspace; None where it says nothing."""
    try:
        text = (root / "pyproject.toml").read_text("utf-8")
        table = tomllib.loads(text).get("tool", {}).get("uv", {}).get("workspace")
    except (OSError, ValueError, AttributeError):
        return None
    return table if isinstance(table, Mapping) else None


def _members(root: Path, table: Mapping[str, Any]) -> list[str]:
    folders = {path for pattern in table.get("members", []) for path in root.glob(str(pattern).rstrip("/"))}
    names = {path.relative_to(root).as_posix() for path in folders if (path / "pyproject.toml").is_file()}
    out = [str(pattern).rstrip("/") for pattern in table.get("exclude", [])]
    return sorted(name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in out))


def read(source: Source) -> Source:
    """Return a source with the workspace that it belongs to; any other as it is. Raises BuildError."""
    if source.wheel or "pyproject.toml" not in source.files:
        return source
    workspace = find(source.root)
    if workspace is None or (source.kind == "uv.lock" and workspace.root != source.root):
        return source
    own = source.project.get("project", {})
    if not workspace.lock.is_file():
        if own and workspace.root == source.root:
            return source  # resolved as any other project
        raise BuildError(
            f"{source.root} is of the uv workspace {workspace.root}, which has no uv.lock. Run in that folder: uv lock"
        )
    if not own:
        try:
            lock = tomllib.loads(read_text(workspace.lock))
        except ValueError as error:
            raise BuildError(f"{workspace.lock} cannot be read. Make it anew: uv lock\n{error}") from error
        own = {"requires-python": str(lock.get("requires-python", ""))}
    project = {**source.project, "project": own}
    return replace(source, kind="uv.lock", project=project, workspace=workspace)


def place(source: Source) -> str:
    """Return where the source is below the root of its workspace, "." where it is that itself."""
    return source.root.relative_to(source.workspace.root).as_posix() if source.workspace else "."


def inside(folder: str, source: Source) -> str | None:
    """Return the member of which a folder below the workspace's root is; None where the source itself has it."""
    name = posixpath.normpath(folder)
    if not source.workspace or place(source) == ".":
        return None
    return name if name in source.workspace.members and name != place(source) else None
