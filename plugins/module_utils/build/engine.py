"""What an engine adds to the app's requirements: its packages, the least version of each, and their hashes.

engine.in and engine-ENGINE.in hold the floors, engine.txt what is locked.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..workers.engines import ENGINES
from .request import OLDEST_MINOR, PATCHES
from .requirements import Pin, blocks, parse_pins
from .uv import COMPILE, BuildError, UnsolvedError, Uv, UvError, names_python, refusal, tail


def is_older(version: str, floor: str) -> bool:
    """Return whether a version comes before a floor: a preview of the floor's own does, and what is no version."""
    try:
        return Version(version) < Version(floor)
    except InvalidVersion:
        return True


def floor_files(files: Path, engines: Iterable[str]) -> dict[str, str]:
    """Return the texts of the files that hold the floors of these engines, by name."""
    names = ["engine.in", *(f"engine-{engine}.in" for engine in sorted(set(engines)))]
    return {name: (files / name).read_text("utf-8") for name in names if (files / name).exists()}


def floors(files: Path, engine: str) -> dict[str, str]:
    """Return the engine's packages with the least version of each."""
    least: dict[str, str] = {}
    for requirement in map(Requirement, blocks("\n".join(floor_files(files, [engine]).values()))):
        name = canonicalize_name(requirement.name)
        for clause in requirement.specifier:
            if name in ENGINES[engine].packages and clause.operator == ">=":
                least[name] = max(least.get(name, "0"), clause.version, key=Version)
    return least


def check_complete(known: Iterable[Pin], least: Mapping[str, str], engine: str) -> None:
    """Refuse an engine some of whose packages no file brings: its release would lack them on every host."""
    locked, packages = {pin.name for pin in known}, ENGINES[engine].packages
    lacking = {
        f"engine.in or engine-{engine}.in": [name for name in packages if name not in least],
        "engine.txt": [name for name in packages if name not in locked],
    }
    gaps = [f"{file} lacks {', '.join(names)}" for file, names in lacking.items() if names]
    if gaps:
        raise BuildError(
            f"The engine {engine} needs {', '.join(packages)}, but in roles/release/files {'; '.join(gaps)}. Write "
            "each with its least version (NAME>=VERSION) and lock again: engine.in says how."
        )


def check_floors(pins: Iterable[Pin], least: dict[str, str], engine: str) -> None:
    """Refuse an app that pins a package older than its engine needs, for whatever platform a host may be."""
    for pin in pins:
        floor = least.get(pin.name)
        if floor and is_older(pin.version, floor) and _holds_on_a_host(pin.marker):
            raise BuildError(
                f"The app pins {pin.name} {pin.version}, but the engine {engine} needs {pin.name} >= {floor}. "
                f"Raise it in the app (uv add '{pin.name}>={floor}'), or drop it there: the bundle brings its own."
            )


def _holds_on_a_host(marker: str) -> bool:
    """Return whether a marker holds for a host; uv locks others, too, for an app that allows an older Python."""
    linux = {
        "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux",
        "platform_python_implementation": "CPython", "implementation_name": "cpython",
    }  # fmt: skip
    if not marker:
        return True
    condition = Marker(marker)
    pythons = [(f"3.{minor}", patch) for minor in range(OLDEST_MINOR, 30) for patch in PATCHES]
    return any(
        condition.evaluate(
            {**linux, "platform_machine": arch, "python_version": python, "python_full_version": f"{python}.{patch}"}
        )
        for arch in ("x86_64", "aarch64")
        for python, patch in pythons
    )


def check_own_lock(known: Iterable[Pin], least: dict[str, str], engine: str) -> None:
    """Refuse a lock of the bundle's own, engine.txt, that is older than the engine needs: somebody has changed it."""
    old = [f"{pin.name} {pin.version}" for pin in known if is_older(pin.version, least.get(pin.name, "0"))]
    if old:
        raise BuildError(
            f"engine.txt locks {', '.join(old)}, but the engine {engine} needs {_listed(least)}. Lock it again: "
            "engine.in says how."
        )


def _listed(least: dict[str, str]) -> str:
    return ", ".join(f"{name} >= {floor}" for name, floor in least.items())


def merge(app: list[Pin], engine: list[Pin], known: list[Pin]) -> str:
    """Return the engine's requirements that the app's lock does not bring, with hashes that are known already.

    An app's pin without a marker wins outright; one with a marker holds for some platforms only, so the engine's
    stays beside it (uv accepts the same version twice).
    """
    pinned = {pin.name for pin in app if not pin.marker}
    hashes = {pin.key: pin.text.partition("--hash=")[2] for pin in [*known, *app]}
    rows = []
    for pin in engine:
        if pin.name not in pinned:
            head, _unused, own = pin.text.partition("--hash=")
            rows.append(f"{head}--hash={hashes.get(pin.key) or own}")
    return "\n".join(rows)


def add_engine(app_text: str, python: str, where: str, engines: Sequence[str], files: Path, uv: Uv) -> str:
    """Return the app's requirements plus what its engine needs. Raises BuildError on a conflict, by name.

    `python` is the oldest one to lock for, which the hosts `where` have. The first of `engines` is what the release is
    built for; the others, of other hosts, run the same release: its packages are among those of the first.
    """
    app, known = parse_pins(app_text), parse_pins((files / "engine.txt").read_text("utf-8"))
    least: dict[str, str] = {}
    for engine in engines:
        own = floors(files, engine)
        check_complete(known, own, engine)
        check_floors(app, own, engine)
        check_own_lock(known, own, engine)
        least |= {name: max(floor, least.get(name, "0"), key=Version) for name, floor in own.items()}
    names = {pin.name for pin in app}
    with tempfile.TemporaryDirectory() as scratch:
        needed, limits = Path(scratch, "engine.in"), Path(scratch, "limits.txt")
        needed.write_text("".join(f"{name}>={floor}\n" for name, floor in least.items()), "utf-8")
        rows = [*app, *(pin for pin in known if pin.name not in names)]
        limits.write_text("".join(f"{pin.constraint}\n" for pin in rows), "utf-8")
        try:
            options = (*COMPILE, "--python-version", python, "-c", str(limits))
            resolved = uv.run(*options, str(needed), cwd=Path(scratch))
        except UvError as error:
            stderr = str(error)
            if "No solution found" not in stderr or names_python(stderr):
                raise refusal(stderr, "locking the engine", where) from error
            guilty = [f"{p.name} {p.version}" for p in app if re.search(rf"\b{re.escape(p.name)}\b", stderr)]
            raise UnsolvedError(
                f"The app's lock and the engine {engines[0]} do not go together: the app pins "
                f"{', '.join(guilty) or 'a package'}, the engine needs {_listed(least)}. Raise the app's pin.\n"
                f"uv said:\n{tail(stderr)}"
            ) from error
    return app_text.rstrip() + "\n" + merge(app, parse_pins(resolved), known) + "\n"
