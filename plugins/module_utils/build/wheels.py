"""Wheels that no index has: what a host needs to build one from its source distribution, and what it gives back.

No code of a source distribution runs on the controller. It is downloaded, checked against the lock, and looked into;
its build requirements are installed into a folder from wheels. A host does the rest (module release_sdist).
"""

from __future__ import annotations

import shutil
import uuid
import zipfile
from pathlib import Path
from typing import Any

from .artifact import check_name, tree, write_member
from .cache import Cache, hash_of, load, save
from .request import Platform
from .requirements import Pin, blocks, parse_pins
from .sdists import Sdist, check_requirements, fetch, stored, to_compile
from .uv import BuildError, Uv, UvError, explain, explained, lacks_wheel, tail


class WheelsNeededError(Exception):
    """Hosts have to build wheels before the release can be built; `builds` says which, one entry for each."""

    def __init__(self, builds: list[dict[str, Any]]) -> None:
        super().__init__(", ".join(f"{build['name']} {build['version']} on {build['host']}" for build in builds))
        self.builds = builds


def key_of(sdist: str, platform: Platform) -> str:
    """Return the cache's key of a wheel. Nobody's build matters, nor which versions the build requirements had."""
    return f"{sdist}-{platform.key}"


def install(
    requirements: str, platform: Platform, indexes: list[str], cache: Cache, uv: Uv, work: Path, sdists: bool
) -> None:
    """Install a lock into `work/lib`, from wheels. Raises BuildError, or WheelsNeededError where hosts may build some.

    What uv itself finds no wheel for is taken out and asked of the cache: no second opinion on which wheels fit.
    """
    lacking: list[Pin] = []
    while True:
        gone = {pin.key for pin in lacking}
        rest = [row for row in blocks(requirements) if not gone & {pin.key for pin in parse_pins(row)}]
        (work / "requirements.txt").write_text("\n".join(rest) + "\n", "utf-8")
        try:
            uv.run(
                *("pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"),
                *("--link-mode", "copy", "--target", str(work / "lib"), "-r", str(work / "requirements.txt")),
                *platform.uv_options,
                *indexes,
                # Not in the app's folder: uv would apply [tool.uv] there, which the lock has in it already.
                cwd=work,
            )
            break
        except UvError as error:
            named = lacks_wheel(str(error))
            pin_without = next((pin for pin in parse_pins("\n".join(rest)) if pin.key == named), None)
            if not sdists or pin_without is None:
                raise BuildError(explain(str(error), "installing the dependencies", str(platform))) from error
            lacking.append(pin_without)
    builds = []
    for pin in lacking:
        sdist = fetch(pin, platform, indexes, cache, uv)
        wheel = cache.get("built", key_of(sdist.sha256, platform))
        if wheel:
            with explained("installing what was built from source", platform):
                uv.run(*from_folder(wheel, sdist, work / "lib", platform), cwd=work, indexed=False)
        else:
            builds.append(build_order(sdist, platform, indexes, cache, uv))
    if builds:
        raise WheelsNeededError(builds)


def from_folder(folder: Path, sdist: Sdist, target: Path, platform: Platform) -> tuple[str, ...]:
    """Return uv's arguments to install one wheel from a folder: uv judges name, version and platform of it."""
    return (
        *("pip", "install", "--quiet", "--no-config", "--no-deps", "--no-index", "--only-binary", ":all:"),
        *("--find-links", str(folder), "--link-mode", "copy", "--target", str(target)),
        *(*platform.uv_options, f"{sdist.name}=={sdist.version}"),
    )


def build_order(sdist: Sdist, platform: Platform, indexes: list[str], cache: Cache, uv: Uv) -> dict[str, Any]:
    """Return what a host needs to build a wheel: the module release_sdist takes it as it is."""
    key = key_of(sdist.sha256, platform)
    asked = cache.get("asked", key)
    requires = sdist.requires + (load(asked / "requires.json") if asked else [])
    return {
        "key": key,
        "name": sdist.name,
        "version": sdist.version,
        "python": platform.python,
        "arch": platform.arch,
        "host": next(iter(platform.hosts), ""),
        "sdist": sdist.file,
        "tools": str(tools(requires, f"{sdist.name} {sdist.version}", platform, indexes, cache, uv)),
        "have": requires,
        "backend": sdist.backend,
        "backend_path": sdist.backend_path,
        "into": str(cache.root / "tmp" / f"wheel-{uuid.uuid4().hex}"),
    }


def tools(requires: list[str], of: str, platform: Platform, indexes: list[str], cache: Cache, uv: Uv) -> Path:
    """Return a tar of build requirements, installed for a platform from wheels. Raises BuildError."""
    key = hash_of(sorted(requires), platform.python, platform.arch)[:32]
    entry = cache.get("tools", key)
    if not entry:
        with cache.put("tools", key) as new, cache.scratch() as work:
            (work / "build.in").write_text("\n".join(requires) + "\n", "utf-8")
            (work / "lib").mkdir()
            with explained(f"installing what {of} needs to be built", platform):
                arguments = ("pip", "install", "--quiet", "--only-binary", ":all:", "--link-mode", "copy")
                target = ("--target", str(work / "lib"), "-r", "build.in")
                uv.run(*arguments, *target, *platform.uv_options, *indexes, cwd=work)
            names = [
                str(p.relative_to(work / "lib")) for p in (work / "lib").rglob("*") if p.is_file() or p.is_symlink()
            ]
            write_member(tree(work / "lib", names, ""), new / "tools.tar.gz", last=True)
        entry = cache.root / "tools" / key
    return entry / "tools.tar.gz"


def accept(results: list[dict[str, Any]], cache: Cache, uv: Uv) -> list[str]:
    """Take over what hosts have built, or asked for; return notes on it. Raises BuildError.

    A result is what the module release_sdist returns: `key`, `host`, `have`, `seconds`, and `wheel` or `requires`. One
    that was taken over already, by an earlier task of the same run, is passed over.
    """
    notes = []
    for result in results:
        sha256, python, arch = result["key"].split("-")
        sdist, platform = stored(sha256, cache), Platform(python, arch, [result["host"]])
        if sdist is None:
            continue  # removed meanwhile by another run: it will be asked for again
        of = f"{sdist.name} {sdist.version}"
        if "wheel" in result:
            if not Path(result["wheel"]).exists():
                continue
            pure = _accept_wheel(sdist, platform, Path(result["wheel"]), cache, uv)
            notes.append(f"{of} was built from source in {result['seconds']:.0f} s, for {platform}.{pure}")
        else:
            _accept_requires(of, result, cache)
    return notes


def _accept_wheel(sdist: Sdist, platform: Platform, wheel: Path, cache: Cache, uv: Uv) -> str:
    """Keep a wheel when uv takes it for that name, version and platform; return a note where it lacks compiled code."""
    with cache.scratch() as work:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    check_name(name)
            uv.run(*from_folder(wheel.parent, sdist, work / "lib", platform), cwd=work, indexed=False)
        except (UvError, zipfile.BadZipFile, OSError) as error:
            raise BuildError(
                f"{wheel.name}, built from source, is no wheel of {sdist.name} {sdist.version} for {platform}. "
                f"Choose a version with wheels.\n{tail(str(error))}"
            ) from error
        compiled = any(path.suffix == ".so" for path in (work / "lib").rglob("*"))
        with cache.put("built", key_of(sdist.sha256, platform)) as new:
            shutil.move(wheel, new / wheel.name)
    shutil.rmtree(wheel.parent, ignore_errors=True)
    sources = [] if compiled else to_compile(Path(sdist.file))
    if not sources:
        return ""
    return (
        f" It holds code to compile ({sources[0].partition('/')[2]}), but the wheel has none that is compiled: it runs "
        "as pure Python, which may be slow. If a compiler was missing, set release_build_packages: [build-essential, "
        "python3-dev], and release_cache to a new folder, so that it is built again."
    )


def _accept_requires(of: str, result: dict[str, Any], cache: Cache) -> None:
    """Keep which build requirements a package has asked for when its build began; the next build has them."""
    requires = list(result["requires"])
    check_requirements(requires, of)
    known = cache.get("asked", result["key"])
    if known and not set(load(known / "requires.json")) <= set(result["have"]):
        return
    if known:
        shutil.rmtree(known, ignore_errors=True)
        raise BuildError(
            f"{of} cannot be built from source: on {result['host']} it asked for more build requirements again "
            f"({', '.join(requires)}), after it got what it had asked for. Choose a version with wheels."
        )
    with cache.put("asked", result["key"]) as new:
        save(new / "requires.json", requires)
