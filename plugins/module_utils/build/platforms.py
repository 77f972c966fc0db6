"""The part of a release that differs by platform: the dependencies, the artifact, and artifacts built before."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..workers.engines import ENGINES
from .artifact import FORMAT, PACKING, Entry, Member, describe, file_sha256, lib_tree, write_part
from .cache import Cache, hash_of, load, save
from .check import place
from .lock import floors, is_older
from .split import split
from .uv import GLIBC, BuildError, Uv
from .wheels import install


@dataclass(frozen=True)
class Wanted:
    """What to build: `platforms` are {python, arch, hosts}, `engine_files` holds engine.in and engine.txt.

    `engine` decides which packages are added; `engines` are all that hosts run the release with. `lock` is a file with
    the requirements of a source that brings no lock; `sdists` lets hosts build source distributions.
    """

    app: str
    source: str
    module: str
    platforms: list[dict[str, Any]]
    engine: str
    engine_files: Path
    exclude: list[str]
    lock: str = ""
    sdists: bool = False
    engines: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """Engines that run the release beside the one that it is built for."""
        return sorted({*self.engines} - {self.engine})


def key_of(platform: dict[str, Any]) -> str:
    """Return a platform's name, as in "3.11-x86_64"."""
    return f"{platform['python']}-{platform['arch']}"


def lib_member(
    requirements: str,
    platform: dict[str, Any],
    indexes: list[str],
    cache: Cache,
    uv: Uv,
    made: list[bool],
    sdists: bool = False,
) -> tuple[Path, Member]:
    """Return `lib/` of a platform as a gzip member, installed by uv when it is not in the cache.

    Raises WheelsNeededError where hosts have to build something for it first.
    """
    # What source distributions went into is not given to somebody who does not want them.
    more = ["sdists"] if sdists else []
    key = hash_of(FORMAT, PACKING, GLIBC, requirements, platform["python"], platform["arch"], *more)[:32]
    entry = whole(cache, "libs", key)
    if not entry:
        made.append(True)
        with cache.put("libs", key) as new, cache.scratch() as work:
            install(requirements, platform, indexes, cache, uv, work, sdists)
            (work / "lib").mkdir(exist_ok=True)
            member = write_part(lib_tree(work / "lib") or [Entry("lib/")], new / "lib.tar.gz", "lib")
            save(new / "about.json", {"lib": asdict(member), "sizes": {"lib.tar.gz": member.size}})
        entry = cache.root / "libs" / key
    return entry / "lib.tar.gz", Member(**load(entry / "about.json")["lib"])


def whole(cache: Cache, kind: str, key: str) -> Path | None:
    """Return an entry whose files have the recorded sizes; one that a power cut spoilt is removed."""
    entry = cache.get(kind, key)
    if entry:
        try:
            if all((entry / n).stat().st_size == size for n, size in load(entry / "about.json")["sizes"].items()):
                return entry
        except (OSError, ValueError, KeyError):
            pass
        shutil.rmtree(entry, ignore_errors=True)
    return None


def artifact_of(
    about: dict[str, Any], lib: Path, member: Member, rest: list[Entry], cache: Cache, made: list[bool]
) -> dict[str, Any]:
    """Return what is known of one platform's artifact, written when it is not in the cache."""
    platform = {"python": about["python"], "arch": about["arch"]}
    name = f"{about['app']}-{about['id']}-py{about['python']}-{about['arch']}"
    file = f"{name}.tar.gz"
    # The same lock may have been packed into other bytes meanwhile: an artifact is of these.
    key = f"{name}-{PACKING}-{member.sha256[:12]}"
    entry = whole(cache, "builds", key)
    if not entry:
        made.append(True)
        with cache.put("builds", key) as new:
            code = write_part(rest, new / "code.tar.gz", "code")
            with (new / file).open("wb") as out:
                for part in (lib, new / "code.tar.gz"):
                    with part.open("rb") as stream:
                        shutil.copyfileobj(stream, out, 1 << 20)
            info = describe(member, code, file_sha256(new / file), platform)
            save(new / "about.json", {"info": info, "sizes": {file: info["size"], "code.tar.gz": code.size}})
        entry = cache.root / "builds" / key
    paths = {"path": str(entry / file), "lib_path": str(lib), "code_path": str(entry / "code.tar.gz")}
    return {**load(entry / "about.json")["info"], **paths}


def from_artifacts(wanted: Wanted, files: list[Path], cache: Cache) -> dict[str, Any]:
    """Use artifacts that were built before, after a look at what they are."""
    if wanted.lock:
        raise BuildError(
            f"release_lock is {wanted.lock}, but app_source {wanted.source} is built already, with its dependencies. "
            "Unset release_lock."
        )
    found: dict[str, dict[str, Any]] = {}
    release = {}
    for path in files:
        sha256 = file_sha256(path)
        key = f"{sha256}-{PACKING}"
        entry = whole(cache, "builds", key)
        if not entry:
            with cache.put("builds", key) as new:
                lib, code, manifest = split(path, new)
                info = describe(lib, code, sha256, {"python": manifest["python"], "arch": manifest["arch"]})
                sizes = {"lib.tar.gz": lib.size, "code.tar.gz": code.size}
                save(new / "about.json", {"info": info, "manifest": manifest, "sizes": sizes})
            entry = cache.root / "builds" / key
        known = load(entry / "about.json")
        manifest = known["manifest"]
        check_manifest(wanted, path, manifest)
        release[manifest["id"]] = manifest
        paths = {"path": str(path), "lib_path": str(entry / "lib.tar.gz"), "code_path": str(entry / "code.tar.gz")}
        found[key_of(manifest)] = {**known["info"], **paths}
    if len(release) > 1:
        raise BuildError(f"{files[0].parent} holds artifacts of several releases: {', '.join(release)}. Keep one's.")
    missing = [place(platform) for platform in wanted.platforms if key_of(platform) not in found]
    if missing:
        raise BuildError(
            f"There is no artifact for {'; '.join(missing)}, only for {', '.join(sorted(found))}. Build one for it and "
            "name the folder with all of them as app_source."
        )
    (manifest,) = release.values()
    artifacts = {key_of(platform): found[key_of(platform)] for platform in wanted.platforms}
    label = manifest["source"]["version"] or manifest["id"]
    return {"id": manifest["id"], "label": label, "artifacts": artifacts, "notes": [], "built": False}


def check_manifest(wanted: Wanted, path: Path, manifest: dict[str, Any]) -> None:
    """Refuse an artifact of another app, or one without what the engine needs."""
    for key, value in (("app", wanted.app), ("module", wanted.module)):
        if manifest[key] != value:
            raise BuildError(
                f"{path} was built for {key} {manifest[key]}, not {value}. "
                f"Set app_{'name' if key == 'app' else key} to it, or build again."
            )
    lacking = [name for name in ENGINES[wanted.engine].packages if name not in manifest["packages"]]
    if lacking:
        raise BuildError(
            f"{path} was built for the engine {manifest['engine']} and lacks {', '.join(lacking)}, which "
            f"{wanted.engine} needs. Build it again with that engine."
        )
    for engine in (wanted.engine, *wanted.others):
        least = floors(wanted.engine_files, engine)
        for name, version in manifest["packages"].items():
            if is_older(version, least.get(name, "0")):
                raise BuildError(
                    f"{path} holds {name} {version}, but the engine {engine} needs {name} >= {least[name]}. "
                    "Build it again."
                )
