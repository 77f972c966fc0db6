"""Poetry's projects: what they require, as poetry-core itself puts it, and what their poetry.lock has locked.

No uv reads [tool.poetry], and Poetry's ways to write versions are its own: poetry-core builds the metadata of a project
that has nothing but the requirements. Its lock says which version and which files; uv works out which of it is needed.
"""

from __future__ import annotations

import email.parser
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .cache import Cache, hash_of, load, save
from .requirements import blocks, parse_pins
from .source import Source
from .uv import BuildError, UnsolvedError, Uv, explained, tail

#: What reads [tool.poetry]. Pinned, as its reading goes into a release; it is fetched by uv as any build backend.
CORE = "poetry-core==2.5.0"
LOCK = "poetry.lock"
#: By name and version, the marker and the hashes.
Packages = Mapping[str, Mapping[str, tuple[str, list[str]]]]


def reads(project: Mapping[str, Any]) -> bool:
    """Whether Poetry alone knows what a project requires, as its pyproject.toml has it in [tool.poetry]."""
    poetry = project.get("tool", {}).get("poetry", {})
    return "dependencies" in poetry and "dependencies" not in project.get("project", {})


def read(source: Source, cache: Cache, uv: Uv) -> Source:
    """Return a source with the requirements that it has in [tool.poetry]; any other as it is. Raises BuildError."""
    if not reads(source.project):
        return source
    if source.kind != "pyproject.toml":
        raise BuildError(
            f"{source.root / source.kind} holds nothing of what the app requires: that is in [tool.poetry] of "
            f"pyproject.toml, which uv does not read. Remove {source.kind}: versions come from {LOCK}, or are chosen "
            "where there is none."
        )
    text = skeleton(source.project)
    key = hash_of(CORE, text)[:32]
    entry = cache.get("locks", key)
    if not entry:
        with cache.put("locks", key) as new, explained(f"reading [tool.poetry] of {source.root / 'pyproject.toml'}"):
            save(new / "about.json", _metadata(text, uv))
        entry = cache.root / "locks" / key
    about = load(entry / "about.json")
    own = {**source.project.get("project", {}), "requires-python": about["requires-python"]}
    return replace(source, project={**source.project, "project": own}, requires=about["requires"])


def _metadata(text: str, uv: Uv) -> dict[str, Any]:
    """Return `requires` and `requires-python` of a project; paths in them are relative to it. Raises UvError."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "app"
        folder.mkdir()
        (folder / "pyproject.toml").write_text(text, "utf-8")
        (folder / "app.py").touch()  # a package holds at least a module
        uv.run("build", "--wheel", "-o", f"{scratch}/dist", str(folder), cwd=folder)
        (wheel,) = Path(scratch, "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            meta = email.parser.HeaderParser().parsestr(archive.read(name).decode("utf-8"))
        rows = [str(row) for row in meta.get_all("Requires-Dist", [])]
        return {
            "requires": [_relative(row, folder) for row in rows if "extra ==" not in row.partition(";")[2]],
            "requires-python": str(meta["Requires-Python"] or ""),
        }


def _relative(row: str, folder: Path) -> str:
    """Return a requirement, one that is a folder as a path, as in `./libs/x`."""
    requirement = Requirement(row)
    if not (requirement.url or "").startswith("file://"):
        return row
    path = os.path.relpath((requirement.url or "").removeprefix("file://"), folder)
    return (path if path.startswith("..") else f"./{path}") + (f" ; {requirement.marker}" if requirement.marker else "")


def skeleton(project: Mapping[str, Any]) -> str:
    """Return a pyproject.toml of the same requirements and nothing else: no code, no readme, no version from git."""
    poetry, own = project["tool"]["poetry"], project.get("project", {})
    kept = {key: poetry[key] for key in ("dependencies", "extras") if key in poetry}
    rows = [
        f'[build-system]\nrequires = ["{CORE}"]\nbuild-backend = "poetry.core.masonry.api"',
        "[tool.poetry]",
        *(["name = 'app'\nversion = '0'\ndescription = ''\nauthors = []"] if not own else []),
        *(f"{key} = {_toml(value)}" for key, value in kept.items()),
    ]
    if own:
        rows += ["[project]\nname = 'app'\nversion = '0'\ndynamic = ['dependencies']"]
        rows += [f"requires-python = {_toml(own['requires-python'])}"] if "requires-python" in own else []
    return "\n".join(rows) + "\n"


def _toml(value: Any) -> str:
    """Return a value as TOML on one line; one that is neither table, list, number nor text is not in requirements."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, default=str)


def locked(text: str) -> Packages:
    """Return what a poetry.lock has. Raises ValueError, LookupError or TypeError for one that cannot be read."""
    lock = tomllib.loads(text)
    older = lock.get("metadata", {}).get("files", {})
    packages: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for row in lock.get("package", []):
        files = row.get("files") or older.get(row["name"], [])
        marker = row.get("markers", "")
        if isinstance(marker, Mapping):  # by group
            marker = marker.get("main", "")
        hashes = sorted({file["hash"] for file in files if str(file.get("hash", "")).startswith("sha256:")})
        packages.setdefault(canonicalize_name(row["name"]), {})[row["version"]] = (marker, hashes)
    return packages


def constraints(packages: Packages) -> str:
    """Return the versions of a poetry.lock as constraints for uv."""
    rows = []
    for name, versions in packages.items():
        if len(versions) > 1 and not all(marker for marker, _unused in versions.values()):
            low, *_unused, high = sorted(versions, key=Version)  # a lock of Poetry 1 does not say which one is when
            rows.append(f"{name}>={low},<={high}")
        else:
            rows += [
                f"{name}=={version}" + (f" ; {marker}" if marker else "") for version, (marker, _h) in versions.items()
            ]
    return "\n".join(rows) + "\n"


def with_lock(packages: Packages, resolved: str, file: Path) -> str:
    """Return resolved requirements with the hashes of a poetry.lock. Raises BuildError for what it does not hold."""
    rows, lacking = [], []
    for row in blocks(resolved):
        pins = parse_pins(row)
        hashes = packages.get(pins[0].name, {}).get(pins[0].version, ("", []))[1] if pins else []
        if pins and not hashes:
            lacking.append(f"{pins[0].name} {pins[0].version}")
        rows.append(" \\\n    ".join([pins[0].constraint, *(f"--hash={h}" for h in hashes)]) if pins else row)
    if lacking:
        raise UnsolvedError(stale(file, f" (it lacks {', '.join(lacking)})"))
    return "\n".join(rows)


def stale(file: Path, why: str = "", stderr: str = "") -> str:
    """Say that a poetry.lock does not fit, and what to do."""
    said = f"\nuv said:\n{tail(stderr)}" if stderr else ""
    return f"{file} does not fit pyproject.toml{why}. Run in that folder: poetry lock{said}"
