"""Build a release: source, lock, wheel, dependencies per platform, artifact. Each step is cached by what went in."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tarfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..host.archive import MANIFEST
from ..host.manifest import FORMAT, Manifest
from ..workers.engines import ENGINES
from .artifact import Entry, Member, check_entries, tree, wheel_tree
from .cache import Cache, hash_of, load, save
from .check import check_module, search_path
from .engine import add_engine, floor_files
from .git import fetch_git, prefix_of
from .lock import check_cover, compile_lock, export_lock, how_to_lock, own_lock, read_lock
from .platforms import artifact_of, lib_member
from .release_id import release_id
from .request import Request, check_python, lowest_python
from .requirements import LOCAL, blocks, parse_pins
from .source import Source, check_pure, read_folder, read_wheel
from .split import from_artifacts
from .uv import BuildError, Uv, explained, redact
from .versions import lend_git, version_inputs
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
    check_python(source.requires_python, request.platforms)
    app = tree(source.root, source.files, "app/") or [Entry("app/")]
    check_entries([*app, Entry(MANIFEST)], "code")  # before anything is asked or built
    shape = [entry.digest() for entry in app]
    requirements, local, notes = requirements_of(source, request, cache, uv)
    site = site_tree(source, local, hash_of(shape), cache, uv)
    check_entries([*app, *site, Entry(MANIFEST)], "code")  # with what its own wheel adds
    named = {*ENGINES[request.engine].packages, "fastapi", "starlette", "pydantic"}
    files = {entry.name: entry for entry in (*app, *site)}
    manifest = Manifest(
        app=request.app,
        module=request.module,
        engine=request.engine,
        packages={pin.name: pin.version for pin in parse_pins(requirements) if pin.name in named},
        path=search_path(set(files)),
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

    check_module(request.module, set(files), lambda n: files[n].read().decode("utf-8", "replace"), dependencies)
    artifacts = {}
    for platform in request.platforms:
        lib, member = libs()[platform.key]
        own = replace(manifest, python=platform.python, arch=platform.arch, lib_content=member.content)
        artifacts[platform.key] = artifact_of(own, lib, member, [*app, *site], cache, made)
    return {
        "id": manifest.id,
        "label": source.label or manifest.id,
        "origin": asdict(source.origin) if source.origin.commit else {},
        "artifacts": artifacts,
        "notes": source.notes + notes,
        "built": any(made),
    }


def requirements_of(source: Source, request: Request, cache: Cache, uv: Uv) -> tuple[str, list[str], list[str]]:
    """Return the whole release's requirements, the folders of local packages, and notes. Asks uv once."""
    lock = read_lock(source, request.lock) if request.lock else None
    notes = []
    if lock is None and not own_lock(source):
        advice = "Commit a uv.lock (run: uv lock)."
        if source.kind != "pyproject.toml":
            advice = f"Set release_lock to a file that this makes: {how_to_lock(source)}"
        notes = [f"{source.kind} has no lock: versions were chosen today. {advice}"]
    engines = (request.engine, *request.other_engines)
    engine_texts = {
        **floor_files(request.engine_files, engines),
        "engine.txt": (request.engine_files / "engine.txt").read_text("utf-8"),
    }
    low = lowest_python(source.requires_python)
    covers = None if lock is None else [lock, sorted(platform.key for platform in request.platforms)]
    key = hash_of(FORMAT, source.kind, lock_inputs(source), engine_texts, request.engine, low, covers)[:32]
    entry = cache.get("locks", key)
    if not entry:
        text = _lock_text(source, request, lock, uv)
        rows = blocks(text)
        for row in rows:
            if re.search(r"@\s*(git|hg|svn)\+", row):
                raise BuildError(
                    f"The app requires {redact(row.split(';')[0])}: a repository has no wheel and no hash. Publish a "
                    "wheel of it on an index, or move it into the app's own folder as a path dependency."
                )
        local = [match[1] for row in rows if (match := LOCAL.match(row))]
        text = "\n".join(row for row in rows if not LOCAL.match(row))
        whole = add_engine(text, low, engines, request.engine_files, uv)
        with cache.put("locks", key) as new:
            (new / "requirements.txt").write_text(whole, "utf-8")
            save(new / "about.json", {"local": local})
        entry = cache.root / "locks" / key
    about = load(entry / "about.json")
    return (entry / "requirements.txt").read_text("utf-8"), about["local"], notes


def _lock_text(source: Source, request: Request, lock: str | None, uv: Uv) -> str:
    """Return the app's own requirements: from `lock`, which release_lock names, from its own lock, or resolved."""
    if lock is not None:
        check_cover(source, request.lock, lock, request.platforms, uv)
        return lock
    if source.kind == "uv.lock":
        return export_lock(source, uv)
    return source.files[source.kind].read_text("utf-8") if own_lock(source) else compile_lock(source, uv)


def lock_inputs(source: Source) -> Any:
    """Return what decides the requirements: the text of each file by name, or what a wheel requires."""
    if source.requires:
        return source.requires + ([source.extras] if source.extras else [])
    names = ["pyproject.toml", "uv.lock"] if source.kind == "uv.lock" else [source.kind]
    texts: dict[str, str] = {}
    while names:
        name = os.path.normpath(names.pop())
        if name in texts or name not in source.files:
            continue
        texts[name] = source.files[name].read_text("utf-8")
        if name.endswith((".txt", ".in")):
            inside = re.findall(r"(?m)^\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)", texts[name])
            names += [os.path.join(os.path.dirname(name), other) for other in inside]
    return texts


def site_tree(source: Source, local: list[str], key: str, cache: Cache, uv: Uv) -> list[Entry]:
    """Return what the project's own wheel and its local packages install; nothing for a plain folder."""
    if source.wheel:
        return wheel_tree(source.wheel)
    folders = [f for f in (*local, *(["."] if source.packaged else [])) if f]
    if not folders:
        return []
    from_git = version_inputs(source.root, folders, source.fetched)
    key = hash_of(key, from_git)
    entry = cache.get("wheels", key)
    if not entry:
        with cache.put("wheels", key) as new, cache.scratch() as work:
            # From a copy of what ships, so that ignored files do not get in and build/ does not get out.
            copy = work / "app" / (prefix_of(source.root) if from_git else "")
            for name, path in source.files.items():
                target = copy / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target, follow_symlinks=False)
            if from_git:
                lend_git(source.root, work / "app")
            for folder in folders:
                where = os.path.normpath(os.path.join(copy, folder))
                if not Path(where).is_relative_to(copy) or not os.path.isdir(where):
                    raise BuildError(
                        f"The app requires the local package {folder}, which is outside of its folder, so a release "
                        "would not hold it. Move it inside, or publish a wheel of it."
                    )
                with explained(f"building the wheel of {source.root / folder}"):
                    uv.run("build", "--wheel", "--quiet", "-o", str(new), where, cwd=copy)
        entry = cache.root / "wheels" / key
    site: dict[str, Entry] = {}
    for wheel in sorted(entry.glob("*.whl")):
        check_pure(wheel)
        site.update((item.name, item) for item in wheel_tree(wheel))
    return [site[name] for name in sorted(site)]
