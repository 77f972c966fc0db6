"""What a release is made of: the files of a folder, of a git commit, or of a wheel."""

from __future__ import annotations

import email.parser
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .notes import notes_on, uncommitted
from .origin import Origin, read_origin
from .secret_files import is_secret
from .selection import (
    check_links,
    check_pointers,
    check_readable,
    check_submodules,
    list_folder,
    list_included,
    select,
)
from .uv import BuildError

DESCRIPTIONS = ("uv.lock", "pyproject.toml", "requirements.txt")


@dataclass
class Source:
    """A source that was looked at. `files` maps relative names to what is on disk."""

    kind: str  # uv.lock, pyproject.toml, requirements.txt or wheel
    root: Path
    files: dict[str, Path]
    label: str
    notes: list[str] = field(default_factory=list)
    project: dict[str, Any] = field(default_factory=dict)  # parsed pyproject.toml
    wheel: Path | None = None  # the source itself, when it is a wheel
    requires: list[str] = field(default_factory=list)  # and what that wheel requires, as in its metadata
    extras: list[str] = field(default_factory=list)  # with these of its extras
    fetched: bool = False  # by this build, from a git URL: nobody has changed anything in it
    origin: Origin = field(default_factory=Origin)

    @property
    def name(self) -> str:
        """The project's name as the index spells it, or nothing."""
        return canonicalize_name(str(self.project.get("project", {}).get("name", "")))

    @property
    def version(self) -> str:
        """The project's version, or nothing."""
        return str(self.project.get("project", {}).get("version", ""))

    @property
    def requires_python(self) -> str:
        """The app's own requirement, as in ">=3.11", or nothing."""
        return str(self.project.get("project", {}).get("requires-python", ""))

    @property
    def packaged(self) -> bool:
        """Whether the project is one to be built as a wheel (uv's own rule)."""
        declared = self.project.get("tool", {}).get("uv", {}).get("package")
        return bool("build-system" in self.project if declared is None else declared)

    @property
    def indexes(self) -> list[str]:
        """Uv's options for the package indexes that the project names; hashes decide which file is the right one."""
        options: list[str] = []
        for index in self.project.get("tool", {}).get("uv", {}).get("index", []):
            options += ["--default-index" if index.get("default") else "--index", str(index["url"])]
        return [*options, "--index-strategy", "unsafe-best-match"] if options else []


def read_folder(root: Path, exclude: Sequence[str], include: Sequence[str] = (), ref: str = "") -> Source:
    """Look at an app's folder. `ref` is of what git fetched for this build. Raises BuildError when it is none."""
    if not os.access(root, os.R_OK | os.X_OK):
        raise BuildError(
            f"The folder {root} cannot be read by this user. Give it permission, or name another app_source."
        )
    kind = next((name for name in DESCRIPTIONS if (root / name).is_file()), None)
    if not kind:
        raise BuildError(
            f"{root} is no app folder: it has none of {', '.join(DESCRIPTIONS)}. Point app_source to the folder that "
            "has one, or create it there with: uv init --bare && uv add fastapi"
        )
    names, secrets = selected(root, exclude, include)
    if kind not in names:
        raise BuildError(
            f"{root / kind} is ignored by git or by release_exclude, so nothing would ship. Do not ignore it."
        )
    check_submodules(root, names)
    check_links(root, names)
    check_readable(root, names)
    check_pointers(root, names, fetched=bool(ref))
    project = _pyproject(root) if "pyproject.toml" in names else {}
    if kind == "uv.lock" and not project:
        raise BuildError(f"{root} has a uv.lock, but no pyproject.toml that it belongs to. Add it, or remove uv.lock.")
    changed = [] if ref else uncommitted(root, names)
    origin = read_origin(root, len(changed), ref)
    label = origin.label or str(project.get("project", {}).get("version", ""))
    notes = notes_on(root, names, secrets, changed)
    return Source(kind, root, {n: root / n for n in names}, label, notes, project, fetched=bool(ref), origin=origin)


def selected(root: Path, exclude: Sequence[str], include: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of what ships, and of what was left out as it may hold secrets. Raises BuildError."""
    included = list_included(root, include)
    asked_for = {pattern.rstrip("/") for pattern in include}
    names = sorted({*list_folder(root), *(name for found in included.values() for name in found)})
    ships, secrets = select(names, exclude, lambda name: name not in asked_for and is_secret(root, name))
    for pattern, found in included.items():
        if not {*ships, *secrets}.intersection(found):
            raise BuildError(
                f"release_include has {pattern!r}, of which nothing ships: release_exclude has it, too, or it is among "
                "what never does, as node_modules and .git."
            )
    return ships, secrets


def _pyproject(root: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"{root / 'pyproject.toml'} is not valid TOML: {error}") from error


def read_wheel(path: Path, extras: list[str] | None = None) -> Source:
    """Look at a wheel, of which some extras may be wanted. Raises BuildError."""
    try:
        with zipfile.ZipFile(path) as wheel:
            name = next(n for n in wheel.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
            meta = email.parser.HeaderParser().parsestr(wheel.read(name).decode("utf-8"))
        requires = [str(row) for row in meta.get_all("Requires-Dist", [])]
        if not extras:
            requires = [row for row in requires if "extra ==" not in str(Requirement(row).marker)]
    except (OSError, zipfile.BadZipFile, StopIteration, UnicodeDecodeError, InvalidRequirement) as error:
        raise BuildError(
            f"{path} is not a readable wheel: {str(error) or 'it has no METADATA'}. Build it with: uv build --wheel"
        ) from error
    check_pure(path)
    version, python = str(meta["Version"]), meta["Requires-Python"] or ""
    known = [str(e) for e in meta.get_all("Provides-Extra", [])]
    for extra in extras or []:
        if canonicalize_name(extra) not in map(canonicalize_name, known):
            raise BuildError(f"{path.name} has no extra {extra!r}; it has: {', '.join(known) or 'none'}.")
    project = {"project": {"name": str(meta["Name"]), "version": version, "requires-python": python}}
    return Source("wheel", path.parent, {}, version, [], project, path, requires, extras or [])


def check_pure(wheel: Path) -> None:
    """Refuse a wheel with compiled code as the app itself: one release serves several platforms."""
    if not wheel.name.endswith("-none-any.whl"):
        raise BuildError(
            f"{wheel.name} holds compiled code for one platform. Put such code into a package of its own on an index, "
            "and let the app require it."
        )
