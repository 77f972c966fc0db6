"""The release's requirements: the app's lock plus what the engine adds, with hashes, the same for every platform."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

from ..workers.engines import ENGINES
from .source import Source, normal
from .uv import GLIBC, BuildError, Uv, UvError, explain, tail

OLDEST_PYTHON = (3, 10)  # Ubuntu 22.04's

_PIN = re.compile(
    r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*===?\s*([^\s;\\]+)\s*(?:;\s*([^\\]*?))?\s*(?:\\|--hash|$)"
)
LOCAL = re.compile(r"(?:-e\s+)?(?:file:(?://)?)?((?:\.{1,2})?/[^\s;]*|\.)(?:\s*;.*)?$")
_COMPILE = ("pip", "compile", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")


@dataclass(frozen=True)
class Pin:
    """One locked requirement: its text with its hashes as it stands in the lock."""

    name: str
    version: str
    marker: str
    text: str


def blocks(text: str) -> list[str]:
    """Split a requirements file into its requirements, continuation lines joined to theirs, comments left out."""
    found: list[str] = []
    open_line = False
    for line in text.splitlines():
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if not bare.strip():
            open_line = False
            continue
        if open_line:
            found[-1] += "\n    " + bare.strip()
        else:
            found.append(bare.strip())
        open_line = bare.endswith("\\")
    return found


def parse_pins(text: str) -> list[Pin]:
    """Return the `name==version` requirements of a lock; other lines (paths, URLs, options) are passed over."""
    pins = []
    for block in blocks(text):
        if match := _PIN.match(block):
            pins.append(Pin(normal(match[1]), match[2], (match[3] or "").strip(), block))
    return pins


def all_hashed(text: str) -> bool:
    """Whether each requirement of a file is pinned with a hash."""
    rows = blocks(text)
    included = any(row.startswith(("-r", "-c", "--req", "--con")) for row in rows)
    return not included and all("--hash=" in row for row in rows if not row.startswith("-"))


def numbers(version: str) -> tuple[int, ...]:
    """Return the release part of a version, as in "1.10rc1" -> (1, 10), without trailing zeros."""
    match = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)
    parts = [int(part) for part in match[1].split(".")] if match else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _minor(version: str) -> tuple[int, ...]:
    return (*numbers(version), 0, 0)[:2]


def python_meets(python: str, requires: str) -> bool:
    """Whether a host's Python, as in "3.11", meets a requires-python. Only major and minor count."""
    here = _minor(python)
    for clause in filter(None, (c.strip() for c in requires.split(","))):
        match = re.match(r"(~=|==|!=|>=|<=|>|<)\s*(\d+(?:\.\d+)*)", clause)
        if not match:
            continue
        want = _minor(match[2])
        patch = match[2].count(".") > 1  # a patch release is not known here: give it the benefit of the doubt
        good = {
            ">=": here >= want,
            "~=": here == want if patch else here >= want and here[0] == want[0],
            "==": here == want if "." in match[2] else here[0] == want[0],
            "!=": here != want or patch,
            "<=": here <= want,
            ">": here > want or (patch and here == want),
            "<": here < want or (patch and here == want),
        }[match[1]]
        if not good:
            return False
    return True


def lowest_python(requires: str) -> str:
    """Return the oldest Python to lock for: the app's own floor, at least Ubuntu 22.04's."""
    floors = [numbers(m)[:2] for m in re.findall(r"(?:>=|~=|==)\s*([0-9.]+)", requires)]
    return ".".join(map(str, max([OLDEST_PYTHON, *(f for f in floors if f[1:])])))


def is_older(version: str, floor: str) -> bool:
    """Return whether a version comes before a floor; a preview of the floor's own version does."""
    preview = re.search(r"\d[._-]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)[._-]?\d*(?:\+|$)", version.lower())
    return numbers(version) < numbers(floor) or (numbers(version) == numbers(floor) and preview is not None)


def floor_files(files: Path, engines: Iterable[str]) -> dict[str, str]:
    """Return the texts of the files that hold the floors of these engines, by name."""
    names = ["engine.in", *(f"engine-{engine}.in" for engine in sorted(set(engines)))]
    return {name: (files / name).read_text("utf-8") for name in names if (files / name).exists()}


def floors(files: Path, engine: str) -> dict[str, str]:
    """Return the engine's packages with the least version of each."""
    found: dict[str, str] = {}
    for block in blocks("\n".join(floor_files(files, [engine]).values())):
        match = re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)$", block)
        if match and normal(match[1]) in ENGINES[engine].packages:
            name = normal(match[1])
            found[name] = max(found.get(name, "0"), match[2], key=numbers)
    return found


def check_floors(pins: Iterable[Pin], least: dict[str, str], engine: str) -> None:
    """Refuse an app that pins a package older than its engine needs, for whatever platform a host may be."""
    for pin in pins:
        floor = least.get(pin.name)
        if floor and is_older(pin.version, floor) and not _is_for_older_python(pin.marker):
            raise BuildError(
                f"The app pins {pin.name} {pin.version}, but the engine {engine} needs {pin.name} >= {floor}. "
                f"Raise it in the app (uv add '{pin.name}>={floor}'), or drop it there: the bundle brings its own."
            )


def _is_for_older_python(marker: str) -> bool:
    """Return whether a marker holds only for a Python that no host has, as uv locks it for an app that allows one."""
    first, _, others = marker.partition(" and ")
    found = re.fullmatch(r"python_(?:full_)?version\s*<\s*['\"](\d+\.\d+)(?:\.0)?['\"]", first.strip())
    return found is not None and " or " not in others and _minor(found[1]) <= OLDEST_PYTHON


def check_own_lock(known: Iterable[Pin], least: dict[str, str], engine: str) -> None:
    """Refuse a lock of the bundle's own, engine.txt, that is older than the engine needs: somebody has changed it."""
    old = [f"{pin.name} {pin.version}" for pin in known if is_older(pin.version, least.get(pin.name, "0"))]
    if old:
        raise BuildError(
            f"engine.txt locks {', '.join(old)}, but the engine {engine} needs "
            f"{', '.join(f'{name} >= {floor}' for name, floor in least.items())}. Lock it again: engine.in says how."
        )


def merge(app: list[Pin], engine: list[Pin], known: list[Pin]) -> str:
    """Return the engine's requirements that the app's lock does not bring, with hashes that are known already.

    An app's pin without a marker wins outright; one with a marker holds for some platforms only, so the engine's
    stays beside it (uv accepts the same version twice).
    """
    always = {pin.name for pin in app if not pin.marker}
    hashed = {(pin.name, pin.version): pin.text.partition("--hash=")[2] for pin in [*known, *app]}
    rows = []
    for pin in engine:
        if pin.name in always:
            continue
        head, _, own = pin.text.partition("--hash=")
        rows.append(f"{head}--hash={hashed.get((pin.name, pin.version)) or own}")
    return "\n".join(rows)


def stale_lock(project: dict[str, object], lock: dict[str, object]) -> list[str]:
    """Name what differs between pyproject.toml and uv.lock, as far as can be seen without resolving.

    Used where uv itself cannot check, because the controller's Python is older than the app's.
    """
    declared: dict[str, object] = project.get("project", {})  # type: ignore[assignment]
    name = normal(str(declared.get("name", "")))
    packages: list[dict[str, dict[str, list[dict[str, str]]]]] = lock.get("package", [])  # type: ignore[assignment]
    own = next((p for p in packages if normal(str(p["name"])) == name and "registry" not in p["source"]), None)
    if own is None:
        return [name]

    def clauses(text: str) -> frozenset[str]:
        return frozenset(re.sub(r"[\s()]", "", clause) for clause in text.split(",") if clause.strip())

    wanted: set[tuple[str, frozenset[str]]] = set()
    for requirement in declared.get("dependencies", []):  # type: ignore[attr-defined]
        match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;@]*)", requirement)
        if match and "@" not in requirement.partition(";")[0]:
            wanted.add((normal(match[1]), clauses(match[2])))
    rows = own.get("metadata", {}).get("requires-dist", [])
    locked = {
        (normal(r["name"]), clauses(r.get("specifier", "")))
        for r in rows
        if "extra ==" not in r.get("marker", "") and not {"url", "git"} & set(r)
    }
    differ = {n for n, _ in wanted ^ locked}
    if clauses(str(declared.get("requires-python", ""))) != clauses(str(lock.get("requires-python", ""))):
        differ.add("requires-python")
    return sorted(differ)


def export_lock(source: Source, uv: Uv) -> str:
    """Return the requirements of the app's uv.lock, with hashes. Raises BuildError when the lock is stale."""
    args = [
        "export",
        "--no-dev",
        "--no-emit-project",
        "--no-header",
        "--no-annotate",
        "--quiet",
        "--format",
        "requirements.txt",
    ]
    stale = f"{source.root / 'uv.lock'} does not fit pyproject.toml{{}}. Run in that folder: uv lock"
    try:
        return uv.run(*args, "--locked", cwd=source.root, indexed=False)
    except UvError as error:
        text = " ".join(str(error).split())
        if "needs to be updated" in text:
            raise BuildError(stale.format("")) from error
        if "Failed to parse" in text and "uv.lock" in text:
            raise BuildError(
                f"{source.root / 'uv.lock'} cannot be read. Make it anew: uv lock\nuv said:\n{tail(text)}"
            ) from error
        lock = tomllib.loads((source.root / "uv.lock").read_text("utf-8"))
        differ = stale_lock(source.project, lock)
        if differ:
            raise BuildError(stale.format(f" (it differs in {', '.join(differ)})")) from error
    try:
        return uv.run(*args, "--frozen", cwd=source.root, indexed=False)
    except UvError as error:
        raise BuildError(explain(str(error), f"reading {source.root / 'uv.lock'}")) from error


def resolve(source: Source, uv: Uv, *options: str) -> str:
    """Let uv find out what the source needs. Raises UvError."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = source.root / source.kind
        if source.wheel:
            wanted = Path(scratch, "app.in")
            wanted.write_text("\n".join(source.requires), "utf-8")
        return uv.run(*options, str(wanted), cwd=source.root)


def compile_lock(source: Source, uv: Uv) -> str:
    """Resolve what has no lock, for all platforms at once. Raises BuildError."""
    try:
        return resolve(source, uv, *_COMPILE, "--python-version", lowest_python(source.requires_python))
    except UvError as error:
        raise BuildError(explain(str(error), f"resolving the requirements of {source.kind}")) from error


def own_lock(source: Source) -> str:
    """Return which of the source's files is its lock, or nothing."""
    if source.kind == "requirements.txt":
        return source.kind if all_hashed(source.files[source.kind].read_text("utf-8")) else ""
    return source.kind if source.kind == "uv.lock" else ""


def how_to_lock(source: Source, path: str = "") -> str:
    """Say how to make the file for `release_lock`."""
    low = lowest_python(source.requires_python)
    command = f"uv pip compile --universal --generate-hashes --python-version {low} -o "
    command += shlex.quote(path or "requirements.lock.txt")
    if not source.wheel:
        return f"in the source's folder: {command} {source.kind}"
    wheel = shlex.quote(str(source.wheel) + (f"[{','.join(source.extras)}]" if source.extras else ""))
    return f"echo {wheel} | {command} --no-emit-package {source.project['project']['name']} -"


def read_lock(source: Source, path: str) -> str:
    """Return the requirements in the file that `release_lock` names, without the source itself. Raises BuildError."""
    if own := own_lock(source):
        raise BuildError(
            f"release_lock is {path}, but app_source has a lock of its own, {own}. Unset release_lock, or remove {own}."
        )
    file = Path(path).expanduser()
    make = f"Make it with: {how_to_lock(source, path)}"
    try:
        rows = blocks(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise BuildError(f"release_lock {path} does not exist on the controller. {make}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"release_lock {path} cannot be read: {error}. {make}") from error
    itself = normal(str(source.project.get("project", {}).get("name", "")))
    found = []
    for row in rows:
        head = re.split(r"[\s;\[=<>~!]", row)[0]
        local = LOCAL.match(row)
        own_row = (local and local[1] == ".") or (itself and normal(head) == itself)
        if own_row or (source.wheel and source.wheel.name in head):
            continue
        option = row.startswith("-") and not row.startswith(("-r", "-c", "--requirement", "--constraint"))
        if not (local or option or "--hash=" in row):
            raise BuildError(f"release_lock {path} has no hash for {head}. {make}")
        found.append(row)
    return "\n".join(found)


def check_cover(source: Source, path: str, lock: str, platforms: list[dict[str, Any]], uv: Uv) -> None:
    """Refuse a lock that lacks what the source needs, itself or through others, or has it in a wrong version."""
    make = f"Make it anew: {how_to_lock(source, path)}"
    pins = parse_pins(lock)
    there = {(pin.name, numbers(pin.version)) for pin in pins}
    rows = [row for row in blocks(lock) if row.startswith("--")]  # as in --extra-index-url
    rows += [f"{pin.name}=={pin.version}{' ; ' if pin.marker else ''}{pin.marker}" for pin in pins]
    with tempfile.TemporaryDirectory() as scratch:
        limits = Path(scratch, "limits.txt")
        limits.write_text("\n".join(rows), "utf-8")
        for platform in platforms:
            place = ("--python-version", platform["python"], "--python-platform", f"{platform['arch']}-{GLIBC}")
            quiet = ("--no-header", "--no-annotate", "--quiet", "--prerelease", "allow")
            try:
                found = resolve(source, uv, "pip", "compile", *quiet, *place, "-c", str(limits))
            except UvError as error:
                if "No solution found" not in str(error):
                    raise BuildError(explain(str(error), f"comparing release_lock with {source.kind}")) from error
                raise BuildError(
                    f"release_lock {path} does not fit what the source needs. {make}\nuv said:\n{tail(str(error))}"
                ) from error
            lacking = [pin.name for pin in parse_pins(found) if (pin.name, numbers(pin.version)) not in there]
            if lacking:
                raise BuildError(
                    f"release_lock {path} lacks {', '.join(lacking)}, which the source needs with Python "
                    f"{platform['python']} on {platform['arch']}. {make}"
                )


def add_engine(app_text: str, source: Source, engine: str, files: Path, uv: Uv, others: Iterable[str] = ()) -> str:
    """Return the app's requirements plus what the engine needs. Raises BuildError on a conflict, by name.

    `others` are engines of other hosts, which run the same release: its packages are among those of `engine`.
    """
    app, known = parse_pins(app_text), parse_pins((files / "engine.txt").read_text("utf-8"))
    least: dict[str, str] = {}
    for one in (engine, *others):
        own = floors(files, one)
        check_floors(app, own, one)
        check_own_lock(known, own, one)
        least |= {name: max(floor, least.get(name, "0"), key=numbers) for name, floor in own.items()}
    names = {pin.name for pin in app}
    with tempfile.TemporaryDirectory() as scratch:
        wanted, limits = Path(scratch, "engine.in"), Path(scratch, "limits.txt")
        wanted.write_text("".join(f"{name}>={floor}\n" for name, floor in least.items()), "utf-8")
        rows = [*app, *(pin for pin in known if pin.name not in names)]
        limits.write_text(
            "".join(f"{p.name}=={p.version}{' ; ' if p.marker else ''}{p.marker}\n" for p in rows), "utf-8"
        )
        python = lowest_python(source.requires_python)
        try:
            found = uv.run(*_COMPILE, "--python-version", python, "-c", str(limits), str(wanted), cwd=Path(scratch))
        except UvError as error:
            said = str(error)
            if "No solution found" not in said:
                raise BuildError(explain(said, "locking the engine")) from error
            guilty = [f"{p.name} {p.version}" for p in app if re.search(rf"\b{re.escape(p.name)}\b", said)]
            raise BuildError(
                f"The app's lock and the engine {engine} do not go together: the app pins "
                f"{', '.join(guilty) or 'a package'}, the engine needs "
                f"{', '.join(f'{n} >= {v}' for n, v in least.items())}. Raise the app's pin.\nuv said:\n{tail(said)}"
            ) from error
    return app_text.rstrip() + "\n" + merge(app, parse_pins(found), known) + "\n"
