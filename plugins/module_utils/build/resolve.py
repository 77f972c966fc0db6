"""A release's requirements: what the app needs and what its engine adds, locked; resolved once, then from the cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from ..host.manifest import FORMAT
from . import poetry
from .cache import Cache, hash_of, load, save
from .encoding import read_text
from .engine import add_engine, floor_files
from .lock import check_cover, compile_lock, compile_poetry, export_lock, how_to_lock, own_lock, read_lock
from .request import Platform, Request, lock_pythons, minor_of, oldest_hosts
from .requirements import LOCAL, blocks
from .source import Source
from .uv import BuildError, UnsolvedError, Uv, redact
from .workspace import place


def requirements_of(source: Source, request: Request, cache: Cache, uv: Uv) -> tuple[str, list[str], list[str]]:
    """Return the whole release's requirements, the folders of local packages, and notes. Asks uv once."""
    hosts = oldest_hosts(request.platforms).python
    lock = read_lock(source, request.lock, hosts) if request.lock else None
    engines = (request.engine, *request.other_engines)
    engine_texts = {
        **floor_files(request.engine_files, engines),
        "engine.txt": (request.engine_files / "engine.txt").read_text("utf-8"),
    }
    covers = None if lock is None else [lock, sorted(platform.key for platform in request.platforms)]
    pythons = lock_pythons(source.requires_python, request.platforms)
    texts = lock_inputs(source)
    keys = {
        python: hash_of(FORMAT, source.kind, texts, engine_texts, request.engine, python, covers)[:32]
        for python in pythons
    }
    python = next((python for python in pythons if cache.get("locks", keys[python])), "")
    if not python:
        python = _resolve(source, request, lock, pythons, keys, cache, uv)
    entry = cache.root / "locks" / keys[python]
    notes = [] if lock is not None or own_lock(source) else [advise(source, hosts, python != pythons[0])]
    return (entry / "requirements.txt").read_text("utf-8"), load(entry / "about.json")["local"], notes


def advise(source: Source, python: str, narrowed: bool) -> str:
    """Say that a source has no lock, and how it gets one that does for hosts with `python` and newer.

    `narrowed`: its requirements fit these hosts, but not all the Pythons that the app allows.
    """
    note = f"{source.kind} has no lock: versions were chosen today. "
    if poetry.reads(source.project):
        first = f'Set python = ">={python}" in it, as its requirements need, then c' if narrowed else "C"
        return f"{note}{first}ommit a {poetry.LOCK} (run: poetry lock)."
    if source.kind != "pyproject.toml":
        return f"{note}Set release_lock to a file that this makes: {how_to_lock(source, python)}"
    first = f'Set requires-python = ">={python}" in it, as its requirements need, then c' if narrowed else "C"
    return f"{note}{first}ommit a uv.lock (run: uv lock)."


def _resolve(
    source: Source,
    request: Request,
    lock: str | None,
    pythons: Sequence[str],
    keys: dict[str, str],
    cache: Cache,
    uv: Uv,
) -> str:
    """Put the requirements into the cache, under one of `keys`; return the Python from which on they are locked."""
    for python in pythons:
        try:
            _lock_from(python, source, request, lock, keys[python], cache, uv)
        except UnsolvedError:
            if python == pythons[-1]:
                raise
        else:
            break
    return python


def _lock_from(python: str, source: Source, request: Request, lock: str | None, key: str, cache: Cache, uv: Uv) -> None:
    """Lock from a Python on. Raises BuildError."""
    where = lowest_hosts(python, request.platforms)
    text = _lock_text(source, request, lock, uv, python, where)
    rows = blocks(text)
    for row in rows:
        if re.search(r"@\s*(git|hg|svn)\+", row):
            raise BuildError(
                f"The app requires {redact(row.split(';')[0])}: a repository has no wheel and no hash. Publish a "
                "wheel of it on an index, or move it into the app's own folder as a path dependency."
            )
    local = [match[1] for row in rows if (match := LOCAL.match(row))]
    text = "\n".join(row for row in rows if not LOCAL.match(row))
    engines = (request.engine, *request.other_engines)
    whole = add_engine(text, python, where, engines, request.engine_files, uv)
    with cache.put("locks", key) as new:
        (new / "requirements.txt").write_text(whole, "utf-8")
        save(new / "about.json", {"local": local})


def lowest_hosts(python: str, platforms: Sequence[Platform]) -> str:
    """Name the hosts for which a lock from this Python on is made: those with the oldest."""
    oldest = oldest_hosts(platforms)
    return str(oldest) if minor_of(oldest.python) == minor_of(python) else f"Python {python}"


def _lock_text(source: Source, request: Request, lock: str | None, uv: Uv, python: str, where: str) -> str:
    """Return the app's own requirements: from `lock`, which release_lock names, from its own lock, or resolved."""
    if lock is not None:
        check_cover(source, request.lock, lock, request.platforms, uv)
        return lock
    if source.kind == "uv.lock":
        return export_lock(source, uv)
    if own_lock(source) == poetry.LOCK:
        return compile_poetry(source, uv, python, where)
    return read_text(source.files[source.kind]) if own_lock(source) else compile_lock(source, uv, python, where)


def lock_inputs(source: Source) -> Any:
    """Return what decides the requirements: the text of each file by name, or what a wheel requires."""
    if source.wheel and source.requires:
        return source.requires + ([source.extras] if source.extras else [])
    if source.workspace:
        files = {"uv.lock": source.workspace.lock, **source.workspace.projects}
        return [place(source), {name: read_text(path) for name, path in files.items()}]
    names = ["pyproject.toml", "uv.lock"] if source.kind == "uv.lock" else [source.kind]
    names += [poetry.LOCK] if own_lock(source) == poetry.LOCK else []
    texts: dict[str, str] = {}
    while names:
        name = os.path.normpath(names.pop())
        if name in texts or name not in source.files:
            continue
        texts[name] = read_text(source.files[name])
        if name.endswith((".txt", ".in")):
            inside = re.findall(r"(?m)^\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)", texts[name])
            names += [os.path.join(os.path.dirname(name), other) for other in inside]
    return texts
