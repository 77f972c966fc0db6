"""Build a release: source, lock, wheel, dependencies per platform, artifact. Each step is cached by what went in."""

from __future__ import annotations

import functools
import os
import re
import tarfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..host.archive import MANIFEST
from ..host.manifest import Manifest
from ..workers.engines import ENGINES
from ..workers.factory import called
from . import poetry, workspace
from .artifact import Entry, Member, check_entries, tree
from .cache import Cache
from .check import check_module, find_module, search_path
from .git import fetch_git
from .local import site_tree
from .origin import write_side_file
from .platforms import artifact_of, lib_member
from .release_id import release_id
from .request import Request, check_python
from .requirements import parse_pins
from .resolve import requirements_of
from .source import Source, read_folder, read_wheel
from .split import from_artifacts
from .uv import BuildError, Uv, redact
from .wheels import WheelsNeededError, accept

_EXTRAS = re.compile(r"(.+\.whl)\[([^\[\]]*)\]")


def build(request: Request, cache: Cache, uv: Uv, results: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Build a release for each platform, or find it in the cache. Raises BuildError; touches no host.

    Where hosts have to build wheels for it, there are no artifacts yet: `needs_sdists` says which, and `results` are
    what came of it.
    """
    began = time.monotonic()
    notes = accept(results or [], cache, uv)
    with cache.scratch() as work:
        try:
            result = {**_build(request, cache, uv, work), "needs_sdists": []}
        except WheelsNeededError as error:
            result = {"artifacts": {}, "origin": {}, "notes": [], "built": False, "needs_sdists": error.builds}
    result["notes"] += notes
    if result["built"]:
        cache.prune()
    return {**result, "seconds": round(time.monotonic() - began, 3)}


def _build(request: Request, cache: Cache, uv: Uv, work: Path) -> dict[str, Any]:
    if request.source.startswith("git+"):
        root, ref = fetch_git(request.source, cache.root, work)
        return from_source(request, read_folder(root, request.exclude, request.include, ref), cache, uv)
    named = _EXTRAS.fullmatch(request.source)
    extras = [extra.strip() for extra in named[2].split(",") if extra.strip()] if named else []
    path = Path(os.path.abspath(Path(named[1] if named else request.source).expanduser()))
    if path.is_dir():
        artifacts = sorted(path.glob("*.tar.gz"))
        if artifacts and not any((path / name).exists() for name in ("pyproject.toml", "requirements.txt")):
            return from_artifacts(request, artifacts, cache)
        return from_source(request, read_folder(path, request.exclude, request.include), cache, uv)
    if not path.exists():
        raise BuildError(
            f"app_source {redact(request.source)} does not exist on the controller. Name a folder, git+URL@REF, "
            "a wheel (.whl) or an artifact (.tar.gz)."
        )
    if request.include:
        raise BuildError(
            f"release_include is {', '.join(request.include)}, but app_source {path} is a file: it has all that ships. "
            "Unset release_include."
        )
    if path.name.endswith(".whl"):
        return from_source(request, read_wheel(path, extras), cache, uv)
    if path.name.endswith(".tar.gz"):
        return from_artifacts(request, [path], cache)
    raise BuildError(f"app_source {path} is neither a folder, nor a wheel (.whl), nor an artifact (.tar.gz).")


def from_source(request: Request, source: Source, cache: Cache, uv: Uv) -> dict[str, Any]:
    """Build from a folder, a git commit or a wheel."""
    source = poetry.read(workspace.read(source), cache, uv)
    check_python(source.requires_python, request.platforms)
    app = tree(source.root, source.files, "app/") or [Entry("app/")]
    check_entries([*app, Entry(MANIFEST)], "code")  # before anything is asked or built
    shape = [entry.digest() for entry in app]
    requirements, local, notes = requirements_of(source, request, cache, uv)
    site = site_tree(source, local, shape, request.exclude, cache, uv)
    check_entries([*app, *site, Entry(MANIFEST)], "code")  # with what its own wheel adds
    named = {*ENGINES[request.engine].packages, "fastapi", "starlette", "pydantic"}
    files = {entry.name: entry for entry in (*app, *site)}
    path = search_path(set(files))

    def read(name: str) -> str:
        return files[name].read().decode("utf-8", "replace")

    def source_of(module: str) -> str | None:
        name = find_module(module, path, set(files))
        return read(name) if name else None

    manifest = Manifest(
        app=request.app,
        module=called(request.module, source_of),
        engine=request.engine,
        packages={pin.name: pin.version for pin in parse_pins(requirements) if pin.name in named},
        path=path,
        requires_python=source.requires_python,
        source={"kind": source.kind, "version": source.version},
    )
    manifest = replace(manifest, id=release_id(manifest, app, site, requirements))
    made: list[bool] = []

    @functools.cache
    def libs() -> dict[str, tuple[Path, Member]]:
        members, builds = {}, []
        for platform in request.platforms:
            try:
                members[platform.key] = lib_member(
                    requirements, platform, source.indexes, cache, uv, made, request.sdists
                )
            except WheelsNeededError as error:
                builds += error.builds
        if builds:  # of all platforms at once, so that hosts build at the same time
            raise WheelsNeededError(builds)
        return members

    def dependencies() -> set[str]:
        with tarfile.open(next(iter(libs().values()))[0]) as archive:
            return set(archive.getnames())

    check_module(request.module, set(files), read, dependencies)
    artifacts = {}
    for platform in request.platforms:
        lib, member = libs()[platform.key]
        own = replace(manifest, python=platform.python, arch=platform.arch, lib_content=member.content)
        artifacts[platform.key] = artifact_of(own, lib, member, [*app, *site], cache, made)
    label = source.label or manifest.id
    origin = {**(asdict(source.origin) if source.origin.commit else {}), "by": request.by}
    for artifact in artifacts.values():
        write_side_file(Path(artifact["path"]), manifest.id, label, origin)
    return {
        "id": manifest.id,
        "label": label,
        "origin": origin,
        "artifacts": artifacts,
        "notes": source.notes + notes,
        "built": any(made),
    }
