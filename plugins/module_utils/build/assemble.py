"""Build a release: source, lock, wheel, dependencies per platform, artifact. Each step is cached by what went in."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

from ..host.archive import MANIFEST
from ..workers.engines import ENGINES
from .artifact import FORMAT, Entry, Member, check_entries, tree, wheel_tree
from .cache import Cache, hash_of, load, save
from .check import check_module, check_python, search_path
from .lock import (
    LOCAL,
    add_engine,
    blocks,
    check_cover,
    compile_lock,
    export_lock,
    floor_files,
    how_to_lock,
    lowest_python,
    own_lock,
    parse_pins,
    read_lock,
)
from .platforms import Wanted, artifact_of, from_artifacts, key_of, lib_member
from .source import Source, check_pure, fetch_git, read_folder, read_wheel
from .uv import BuildError, Uv, UvError, explain, redact
from .wheels import WheelsNeededError, accept

_EXTRAS = re.compile(r"(.+\.whl)\[([^\[\]]*)\]")


def build(wanted: Wanted, cache: Cache, uv: Uv, results: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Build a release for each platform, or find it in the cache. Raises BuildError; touches no host.

    Where hosts have to build wheels for it, there are no artifacts yet: `needs_sdists` says which, and `results` are
    what came of it.
    """
    began = time.monotonic()
    notes = accept(results or [], cache, uv)
    with cache.scratch() as work:
        try:
            result = {**_build(wanted, cache, uv, work), "needs_sdists": []}
        except WheelsNeededError as error:
            result = {"artifacts": {}, "notes": [], "built": False, "needs_sdists": error.builds}
    result["notes"] += notes
    if result["built"]:
        cache.prune()
    return {**result, "seconds": round(time.monotonic() - began, 3)}


def _build(wanted: Wanted, cache: Cache, uv: Uv, work: Path) -> dict[str, Any]:
    if wanted.source.startswith("git+"):
        root, label = fetch_git(wanted.source, cache.root, work)
        return from_source(wanted, read_folder(root, wanted.exclude, label), cache, uv)
    named = _EXTRAS.fullmatch(wanted.source)
    extras = [extra.strip() for extra in named[2].split(",") if extra.strip()] if named else []
    path = Path(os.path.abspath(Path(named[1] if named else wanted.source).expanduser()))
    if path.is_dir():
        artifacts = sorted(path.glob("*.tar.gz"))
        if artifacts and not any((path / name).exists() for name in ("pyproject.toml", "requirements.txt")):
            return from_artifacts(wanted, artifacts, cache)
        return from_source(wanted, read_folder(path, wanted.exclude), cache, uv)
    if not path.exists():
        raise BuildError(
            f"app_source {redact(wanted.source)} does not exist on the controller. Name a folder, git+URL@REF, "
            "a wheel (.whl) or an artifact (.tar.gz)."
        )
    if path.name.endswith(".whl"):
        return from_source(wanted, read_wheel(path, extras), cache, uv)
    if path.name.endswith(".tar.gz"):
        return from_artifacts(wanted, [path], cache)
    raise BuildError(f"app_source {path} is neither a folder, nor a wheel (.whl), nor an artifact (.tar.gz).")


def from_source(wanted: Wanted, source: Source, cache: Cache, uv: Uv) -> dict[str, Any]:
    """Build from a folder, a git commit or a wheel."""
    check_python(source.requires_python, wanted.platforms)
    app = tree(source.root, source.files, "app/") or [Entry("app/")]
    check_entries([*app, Entry(MANIFEST)], "code")  # before anything is asked or built
    shape = [entry.digest() for entry in app]
    requirements, local, notes = requirements_of(source, wanted, cache, uv)
    site = site_tree(source, local, hash_of(shape), cache, uv)
    check_entries([*app, *site, Entry(MANIFEST)], "code")  # with what its own wheel adds
    pins = parse_pins(requirements)
    named = {*ENGINES[wanted.engine].packages, "fastapi", "starlette", "pydantic"}
    names = {entry.name for entry in (*app, *site)}
    manifest = {
        "format": FORMAT,
        "app": wanted.app,
        "module": wanted.module,
        "engine": wanted.engine,
        "packages": {pin.name: pin.version for pin in pins if pin.name in named},
        "path": search_path(names),
        "requires_python": source.requires_python,
        "source": {"kind": source.kind, "version": str(source.project.get("project", {}).get("version", ""))},
    }
    digest = hash_of(manifest, shape, [entry.digest() for entry in site], requirements)
    release = digest[:12]

    made: list[bool] = []
    texts = {entry.name: entry for entry in (*app, *site)}

    @functools.cache
    def libs() -> dict[str, tuple[Path, Member]]:
        found, builds = {}, []
        for platform in wanted.platforms:
            try:
                found[key_of(platform)] = lib_member(
                    requirements, platform, source.indexes, cache, uv, made, wanted.sdists
                )
            except WheelsNeededError as error:
                builds += error.builds
        if builds:  # of all platforms at once, so that hosts build at the same time
            raise WheelsNeededError(builds)
        return found

    def dependencies() -> set[str]:
        with tarfile.open(next(iter(libs().values()))[0]) as archive:
            return set(archive.getnames())

    check_module(wanted.module, names, lambda n: texts[n].read().decode("utf-8", "replace"), dependencies)
    artifacts = {}
    for platform in wanted.platforms:
        lib, member = libs()[key_of(platform)]
        about = {**manifest, "id": release, "python": platform["python"], "arch": platform["arch"]}
        about["lib_content"] = member.content
        rest = [*app, *site, Entry(MANIFEST, data=(json.dumps(about, sort_keys=True, indent=1) + "\n").encode())]
        artifacts[key_of(platform)] = artifact_of(about, lib, member, rest, cache, made)
    return {
        "id": release,
        "label": source.label or release,
        "artifacts": artifacts,
        "notes": source.notes + notes,
        "built": any(made),
    }


def requirements_of(source: Source, wanted: Wanted, cache: Cache, uv: Uv) -> tuple[str, list[str], list[str]]:
    """Return the whole release's requirements, the folders of local packages, and notes. Asks uv once."""
    given = read_lock(source, wanted.lock) if wanted.lock else None
    notes = []
    if given is None and not own_lock(source):
        advice = "Commit a uv.lock (run: uv lock)."
        if source.kind != "pyproject.toml":
            advice = f"Set release_lock to a file that this makes: {how_to_lock(source)}"
        notes = [f"{source.kind} has no lock: versions were chosen today. {advice}"]
    inputs = source.requires or lock_inputs(source)
    floors = {
        **floor_files(wanted.engine_files, (wanted.engine, *wanted.others)),
        "engine.txt": (wanted.engine_files / "engine.txt").read_text("utf-8"),
    }
    low = lowest_python(source.requires_python)
    lock = None if given is None else [given, sorted(map(key_of, wanted.platforms))]
    key = hash_of(FORMAT, source.kind, inputs, floors, wanted.engine, low, lock)[:32]
    entry = cache.get("locks", key)
    if not entry:
        if given is not None:
            check_cover(source, wanted.lock, given, wanted.platforms, uv)
            text = given
        elif source.kind == "uv.lock":
            text = export_lock(source, uv)
        elif own_lock(source):
            text = source.files[source.kind].read_text("utf-8")
        else:
            text = compile_lock(source, uv)
        rows = blocks(text)
        for row in rows:
            if re.search(r"@\s*(git|hg|svn)\+", row):
                raise BuildError(
                    f"The app requires {redact(row.split(';')[0])}: a repository has no wheel and no hash. Publish a "
                    "wheel of it on an index, or move it into the app's own folder as a path dependency."
                )
        local = [match[1] for row in rows if (match := LOCAL.match(row))]
        text = "\n".join(row for row in rows if not LOCAL.match(row))
        whole = add_engine(text, source, wanted.engine, wanted.engine_files, uv, wanted.others)
        with cache.put("locks", key) as new:
            (new / "requirements.txt").write_text(whole, "utf-8")
            save(new / "about.json", {"local": local})
        entry = cache.root / "locks" / key
    about = load(entry / "about.json")
    return (entry / "requirements.txt").read_text("utf-8"), about["local"], notes


def lock_inputs(source: Source) -> dict[str, str]:
    """Return the text of each file that decides the requirements, by name."""
    wanted = ["pyproject.toml", "uv.lock"] if source.kind == "uv.lock" else [source.kind]
    found: dict[str, str] = {}
    while wanted:
        name = os.path.normpath(wanted.pop())
        if name in found or name not in source.files:
            continue
        found[name] = source.files[name].read_text("utf-8")
        if name.endswith((".txt", ".in")):
            inside = re.findall(r"(?m)^\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)", found[name])
            wanted += [os.path.join(os.path.dirname(name), other) for other in inside]
    return found


def site_tree(source: Source, local: list[str], key: str, cache: Cache, uv: Uv) -> list[Entry]:
    """Return what the project's own wheel and its local packages install; nothing for a plain folder."""
    if source.wheel:
        return wheel_tree(source.wheel)
    folders = [f for f in (*local, *(["."] if source.packaged else [])) if f]
    if not folders:
        return []
    entry = cache.get("wheels", key)
    if not entry:
        with cache.put("wheels", key) as new, cache.scratch() as work:
            # From a copy of what ships, so that ignored files do not get in and build/ does not get out.
            for name, path in source.files.items():
                target = work / "app" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target, follow_symlinks=False)
            for folder in folders:
                where = os.path.normpath(os.path.join(work / "app", folder))
                if not Path(where).is_relative_to(work / "app") or not os.path.isdir(where):
                    raise BuildError(
                        f"The app requires the local package {folder}, which is outside of its folder, so a release "
                        "would not hold it. Move it inside, or publish a wheel of it."
                    )
                try:
                    uv.run("build", "--wheel", "--quiet", "-o", str(new), where, cwd=work / "app")
                except UvError as error:
                    raise BuildError(explain(str(error), f"building the wheel of {source.root / folder}")) from error
        entry = cache.root / "wheels" / key
    site: dict[str, Entry] = {}
    for wheel in sorted(entry.glob("*.whl")):
        check_pure(wheel)
        site.update((item.name, item) for item in wheel_tree(wheel))
    return [site[name] for name in sorted(site)]
