"""What differs by platform: the dependencies, and the artifact that has them and the app."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..host.archive import MANIFEST
from ..host.manifest import FORMAT, Manifest
from .artifact import PACKING, Entry, Member, describe, file_sha256, lib_tree, write_part
from .cache import Cache, hash_of, load, save
from .request import Platform
from .uv import GLIBC, Uv
from .wheels import install


def lib_member(
    requirements: str,
    platform: Platform,
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
    key = hash_of(FORMAT, PACKING, GLIBC, requirements, platform.python, platform.arch, *more)[:32]
    entry = cache.whole("libs", key)
    if not entry:
        made.append(True)
        with cache.put("libs", key) as new, cache.scratch() as work:
            install(requirements, platform, indexes, cache, uv, work, sdists)
            (work / "lib").mkdir(exist_ok=True)
            member = write_part(lib_tree(work / "lib") or [Entry("lib/")], new / "lib.tar.gz", "lib")
            save(new / "about.json", {"lib": asdict(member), "sizes": {"lib.tar.gz": member.size}})
        entry = cache.root / "libs" / key
    return entry / "lib.tar.gz", Member(**load(entry / "about.json")["lib"])


def artifact_of(
    manifest: Manifest, lib: Path, member: Member, rest: list[Entry], cache: Cache, made: list[bool]
) -> dict[str, Any]:
    """Return what hosts are told of one platform's artifact, written when it is not in the cache."""
    name = f"{manifest.app}-{manifest.id}-py{manifest.python}-{manifest.arch}"
    file = f"{name}.tar.gz"
    # The same lock may have been packed into other bytes meanwhile: an artifact is of these.
    key = f"{name}-{PACKING}-{member.sha256[:12]}"
    entry = cache.whole("builds", key)
    if not entry:
        made.append(True)
        with cache.put("builds", key) as new:
            code = write_part([*rest, Entry(MANIFEST, data=manifest.text())], new / "code.tar.gz", "code")
            with (new / file).open("wb") as out:
                for part in (lib, new / "code.tar.gz"):
                    with part.open("rb") as stream:
                        shutil.copyfileobj(stream, out, 1 << 20)
            info = describe(member, code, file_sha256(new / file), manifest.python, manifest.arch)
            save(new / "about.json", {"info": info, "sizes": {file: info["size"], "code.tar.gz": code.size}})
        entry = cache.root / "builds" / key
    paths = {"path": str(entry / file), "lib_path": str(lib), "code_path": str(entry / "code.tar.gz")}
    return {**load(entry / "about.json")["info"], **paths}
