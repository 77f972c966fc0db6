"""The app's lock: its own, one that somebody names, or one that is made; with hashes, the same for every platform."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from . import poetry
from .encoding import read_text
from .pyproject import read_pyproject
from .request import Platform, oldest_hosts
from .requirements import LOCAL, all_hashed, blocks, from_pylock, parse_pins
from .source import Source
from .uv import (
    COMPILE,
    BuildError,
    UnsolvedError,
    Uv,
    UvError,
    explain,
    explained,
    names_python,
    refusal,
    tail,
)
from .workspace import Workspace

#: Names of files as PEP 751 has them.
_PYLOCK = re.compile(r"pylock\.(?:[^.]+\.)?toml")
_EXPORT = ("export", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate", "--quiet")


def stale_lock(pyproject: dict[str, Any], lock: dict[str, Any]) -> list[str]:
    """Name what differs between pyproject.toml and uv.lock, as far as can be seen without resolving.

    Used where uv itself cannot check, because the controller's Python is older than the app's. Raises
    InvalidRequirement or InvalidSpecifier.
    """
    project = pyproject.get("project", {})
    name = canonicalize_name(project.get("name", ""))
    packages = [p for p in lock.get("package", []) if "registry" not in p["source"]]
    own = next((p for p in packages if canonicalize_name(p["name"]) == name), None)
    if own is None:
        return [name]
    declared = {
        (canonicalize_name(requirement.name), requirement.specifier)
        for requirement in map(Requirement, project.get("dependencies", []))
        if not requirement.url
    }
    locked = {
        (canonicalize_name(row["name"]), SpecifierSet(row.get("specifier", "")))
        for row in own.get("metadata", {}).get("requires-dist", [])
        if "extra ==" not in row.get("marker", "") and not {"url", "git"} & set(row)
    }
    differ = {str(package) for package, _unused in declared ^ locked}
    if SpecifierSet(project.get("requires-python", "")) != SpecifierSet(lock.get("requires-python", "")):
        differ.add("requires-python")
    return sorted(differ)


def stale_workspace(workspace: Workspace, lock: dict[str, Any]) -> list[str]:
    """Name what differs between the members of a workspace and its lock. Raises as `stale_lock` does."""
    projects = [read_pyproject(file.parent) for file in workspace.projects.values()]
    differ = {name for project in projects if "project" in project for name in stale_lock(project, lock)}
    # The lock has what is common to all of them.
    return sorted(differ - {"requires-python"})


def export_lock(source: Source, uv: Uv) -> str:
    """Return the requirements of the app's uv.lock, with hashes. Raises BuildError when the lock is stale."""
    export = (*_EXPORT, "--format", "requirements.txt")
    file = source.workspace.lock if source.workspace else source.root / "uv.lock"
    stale = f"{file} does not fit pyproject.toml{{}}. Run in that folder: uv lock"
    try:
        return uv.run(*export, "--locked", cwd=source.root, indexed=False)
    except UvError as error:
        stderr = " ".join(str(error).split())
        if "needs to be updated" in stderr:
            raise BuildError(stale.format("")) from error
        if "Failed to parse" in stderr and "uv.lock" in stderr:
            raise BuildError(f"{file} cannot be read. Make it anew: uv lock\nuv said:\n{tail(stderr)}") from error
        try:
            lock = tomllib.loads(read_text(file))
            differ = stale_workspace(source.workspace, lock) if source.workspace else stale_lock(source.project, lock)
        except (InvalidRequirement, InvalidSpecifier) as invalid:
            raise BuildError(f"{source.root / 'pyproject.toml'} cannot be read: {invalid}.") from error
        if differ:
            raise BuildError(stale.format(f" (it differs in {', '.join(differ)})")) from error
    with explained(f"reading {file}"):
        return uv.run(*export, "--frozen", cwd=source.root, indexed=False)


def resolve(source: Source, uv: Uv, *options: str) -> str:
    """Let uv resolve what the source needs, without the source itself. Raises UvError."""
    listed = poetry.reads(source.project)
    if not source.wheel and not listed:
        return uv.run(*options, str(source.root / source.kind), cwd=source.root)
    name = source.name
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "app.in")
        if not source.wheel:
            file.write_text("\n".join(source.requires) + "\n", "utf-8")
            return uv.run(*options, *source.indexes, str(file), cwd=source.root)
        file.write_text(f"{name}[{','.join(source.extras)}] @ {source.wheel.as_uri()}\n", "utf-8")
        return uv.run(*options, "--no-emit-package", name, str(file), cwd=source.root)


def compile_lock(source: Source, uv: Uv, python: str, where: str) -> str:
    """Resolve what has no lock, for all platforms at once and from a Python on; `where` names who has that one.

    Raises BuildError, UnsolvedError where newer Pythons may do.
    """
    with explained(f"resolving the requirements of {source.kind}", where):
        return resolve(source, uv, *COMPILE, "--python-version", python)


def compile_poetry(source: Source, uv: Uv, python: str, where: str) -> str:
    """Resolve within what the app's poetry.lock has, with its hashes. Raises BuildError as `compile_lock` does."""
    file = source.files[poetry.LOCK]
    try:
        text = read_text(file)
        packages = poetry.locked(text)
    except (ValueError, LookupError, TypeError) as error:
        raise BuildError(f"{file} cannot be read. Make it anew: poetry lock\n{error}") from error
    with tempfile.TemporaryDirectory() as scratch:
        limits = Path(scratch, "limits.txt")
        limits.write_text(poetry.constraints(packages), "utf-8")
        more = ("--python-version", python, "--prerelease", "allow", "-c", str(limits))
        try:
            resolved = resolve(source, uv, *COMPILE, *more)
        except UvError as error:
            if "No solution found" in str(error) and not names_python(str(error)):
                raise UnsolvedError(poetry.stale(file, stderr=str(error))) from error
            raise refusal(str(error), f"reading {file}", where) from error
    return poetry.with_lock(packages, resolved, file)


def own_lock(source: Source) -> str:
    """Return which of the source's files is its lock, or nothing."""
    if source.kind == "requirements.txt":
        return source.kind if all_hashed(read_text(source.files[source.kind])) else ""
    if source.kind == "pyproject.toml":
        return poetry.LOCK if poetry.LOCK in source.files else ""
    return source.kind if source.kind == "uv.lock" else ""


def how_to_lock(source: Source, python: str, path: str = "") -> str:
    """Say how to make the file for `release_lock`, from a Python on: the oldest of the hosts'."""
    command = f"uv pip compile --universal --generate-hashes --python-version {python} -o "
    command += shlex.quote(path or "requirements.lock.txt")
    if poetry.reads(source.project):
        return "poetry lock, in the source's folder; then unset release_lock"
    if not source.wheel:
        return f"in the source's folder: {command} {source.kind}"
    wheel = shlex.quote(str(source.wheel) + (f"[{','.join(source.extras)}]" if source.extras else ""))
    return f"echo {wheel} | {command} --no-emit-package {source.name} -"


def read_lock(source: Source, path: str, python: str) -> str:
    """Return the requirements in the file that `release_lock` names, without the source itself. Raises BuildError.

    `python` is the oldest of the hosts', for advice.
    """
    if own := own_lock(source):
        raise BuildError(
            f"release_lock is {path}, but app_source has a lock of its own, {own}. Unset release_lock, or remove {own}."
        )
    make = f"Make it with: {how_to_lock(source, python, path)}"
    file = Path(path).expanduser()
    try:
        text = read_text(file)
        if file.name == "uv.lock":
            raise BuildError(
                f"release_lock {path} is the lock of a project. Write its requirements into a file, and name that: "
                f"cd {shlex.quote(str(file.parent))} && uv export --frozen --no-dev --no-emit-project "
                "-o requirements.lock.txt"
            )
        rows = blocks(from_pylock(text) if _PYLOCK.fullmatch(file.name) else text)
    except FileNotFoundError as error:
        raise BuildError(f"release_lock {path} does not exist on the controller. {make}") from error
    except (OSError, ValueError) as error:
        raise BuildError(f"release_lock {path} cannot be read: {error}. {make}") from error
    kept = []
    for row in rows:
        head = re.split(r"[\s;\[=<>~!]", row)[0]
        local = LOCAL.match(row)
        itself = (local and local[1] == ".") or (source.name and canonicalize_name(head) == source.name)
        if itself or (source.wheel and source.wheel.name in head):
            continue
        option = row.startswith("-") and not row.startswith(("-r", "-c", "--requirement", "--constraint"))
        if not (local or option or "--hash=" in row):
            raise BuildError(f"release_lock {path} has no hash for {head}. {make}")
        kept.append(row)
    return "\n".join(kept)


def check_cover(source: Source, path: str, lock: str, platforms: Sequence[Platform], uv: Uv) -> None:
    """Refuse a lock that lacks what the source needs, itself or through others, or has it in a wrong version."""
    make = f"Make it anew: {how_to_lock(source, oldest_hosts(platforms).python, path)}"
    pins = parse_pins(lock)
    locked = {(pin.name, Version(pin.version)) for pin in pins}
    rows = [row for row in blocks(lock) if row.startswith("--")]  # as in --extra-index-url
    with tempfile.TemporaryDirectory() as scratch:
        limits = Path(scratch, "limits.txt")
        limits.write_text("\n".join([*rows, *(pin.constraint for pin in pins)]), "utf-8")
        quiet = ("--no-header", "--no-annotate", "--quiet", "--prerelease", "allow", "-c", str(limits))
        for platform in platforms:
            try:
                resolved = resolve(source, uv, "pip", "compile", *quiet, *platform.uv_options)
            except UvError as error:
                if "No solution found" not in str(error):
                    raise BuildError(explain(str(error), f"comparing release_lock with {source.kind}")) from error
                raise BuildError(
                    f"release_lock {path} does not fit what the source needs. {make}\nuv said:\n{tail(str(error))}"
                ) from error
            lacking = [pin.name for pin in parse_pins(resolved) if (pin.name, Version(pin.version)) not in locked]
            if lacking:
                raise BuildError(
                    f"release_lock {path} lacks {', '.join(lacking)}, which the source needs with Python "
                    f"{platform.python} on {platform.arch}. {make}"
                )
