"""An artifact that was built before: judged as hosts will judge it, then split into the parts that they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from ..host.archive import MANIFEST, NOT_OURS, PARTS, ArchiveError, Rules
from ..host.manifest import Manifest, ManifestError
from ..host.tar import limits_of, read_part
from ..workers.engines import ENGINES
from .artifact import CHUNK, PACKING, Member, describe, file_sha256
from .cache import Cache, load, save
from .engine import floors, is_older
from .origin import read_side_file
from .request import Request
from .uv import BuildError


def judge(artifact: Path) -> tuple[list[Member], Manifest]:
    """Return an artifact's two parts, without their hashes, and its manifest.

    It is inflated no further than it says of itself, and than so many bytes may be. Raises BuildError.
    """
    try:
        with artifact.open("rb") as stream:
            return _judge(stream, artifact.stat().st_size)
    except ArchiveError as error:
        if error.name:
            raise BuildError(f"{artifact} is refused: {error}. No host was changed. {NOT_OURS}") from error
        raise BuildError(f"{artifact} is no whole artifact of a release build: {error}. Build it again.") from error
    except OSError as error:
        raise BuildError(f"{artifact} cannot be read: {error.strerror}.") from error


def _judge(stream: IO[bytes], size: int) -> tuple[list[Member], Manifest]:
    members, text = [], b""
    for part in PARTS:
        begin, digest = stream.tell(), hashlib.sha256()
        rules = Rules(part, limits_of(stream, size - begin, part))
        for member, data in read_part(stream, rules, digest):
            if member.name == MANIFEST:
                text = b"".join(data)
        rules.finish()
        members.append(Member("", digest.hexdigest(), stream.tell() - begin, rules.bytes, rules.files))
    if stream.read(1):
        raise ArchiveError("there is something behind its end")
    try:
        manifest = Manifest.read(text)
    except ManifestError as error:
        raise ArchiveError(f"its {MANIFEST} {error}") from error
    if manifest.lib_content != members[0].content:
        raise ArchiveError(f"its {MANIFEST} was written for other dependencies")
    return members, manifest


def split(artifact: Path, into: Path) -> tuple[Member, Member, Manifest]:
    """Split an artifact into `lib.tar.gz` and `code.tar.gz`; return both and its manifest. Raises BuildError."""
    members, manifest = judge(artifact)
    with artifact.open("rb") as stream:
        for part, member in zip(PARTS, members, strict=True):
            left = member.size
            with (into / f"{part}.tar.gz").open("wb") as out:
                while chunk := stream.read(min(CHUNK, left)):
                    left -= out.write(chunk)
    lib, code = (replace(m, sha256=file_sha256(into / f"{p}.tar.gz")) for p, m in zip(PARTS, members, strict=True))
    return lib, code, manifest


def from_artifacts(request: Request, files: Sequence[Path], cache: Cache) -> dict[str, Any]:
    """Use artifacts that were built before, after a look at what they are. Raises BuildError."""
    if request.lock:
        raise BuildError(
            f"release_lock is {request.lock}, but app_source {request.source} is built already, with its dependencies. "
            "Unset release_lock."
        )
    artifacts, manifests = {}, {}
    for path in files:
        info, manifests[path] = known_artifact(path, cache)
        artifacts[f"{info['python']}-{info['arch']}"] = info
    manifest = check_release(manifests, request.app, request.module)
    for path in files:
        check_engines(request, path, manifests[path])
    missing = [str(platform) for platform in request.platforms if platform.key not in artifacts]
    if missing:
        raise BuildError(
            f"There is no artifact for {'; '.join(missing)}, only for {', '.join(sorted(artifacts))}. Build one for it "
            "and name the folder with all of them as app_source."
        )
    # The artifact itself says only what is the same for all who build it; a file beside it says the rest.
    beside = [read_side_file(path, manifest.id) for path in files]
    label, origin = next(((label, origin) for label, origin, _unused in beside if label), ("", {}))
    return {
        "id": manifest.id,
        "label": label or manifest.source["version"] or manifest.id,
        "origin": origin,
        "artifacts": {platform.key: artifacts[platform.key] for platform in request.platforms},
        "notes": [note for _unused, _origin, note in beside if note],
        "built": False,
    }


def known_artifact(path: Path, cache: Cache) -> tuple[dict[str, Any], Manifest]:
    """Return what hosts are told of an artifact, and its manifest; split when it is not in the cache."""
    sha256 = file_sha256(path)
    key = f"{sha256}-{PACKING}"
    entry = cache.whole("builds", key)
    if not entry:
        with cache.put("builds", key) as new:
            lib, code, manifest = split(path, new)
            info = describe(lib, code, sha256, manifest.python, manifest.arch)
            sizes = {"lib.tar.gz": lib.size, "code.tar.gz": code.size}
            save(new / "about.json", {"info": info, "manifest": asdict(manifest), "sizes": sizes})
        entry = cache.root / "builds" / key
    about = load(entry / "about.json")
    paths = {"path": str(path), "lib_path": str(entry / "lib.tar.gz"), "code_path": str(entry / "code.tar.gz")}
    return {**about["info"], **paths}, Manifest.read(about["manifest"])


def check_release(manifests: Mapping[Path, Manifest], app: str, module: str) -> Manifest:
    """Return the manifest of one of a release's artifacts; refuse those of another app or of several releases."""
    for path, manifest in manifests.items():
        # Where a call makes the app, the build has put () behind it.
        made = manifest.module if manifest.module == f"{module}()" else module
        for setting, built, value in (("app_name", manifest.app, app), ("app_module", manifest.module, made)):
            if built != value:
                raise BuildError(
                    f"{path} was built for {setting} {built}, not {value}. Set {setting} to it, or build again."
                )
    releases = {manifest.id: manifest for manifest in manifests.values()}
    if len(releases) > 1:
        folder = next(iter(manifests)).parent
        raise BuildError(f"{folder} holds artifacts of several releases: {', '.join(releases)}. Keep one's.")
    return next(iter(releases.values()))


def check_engines(request: Request, path: Path, manifest: Manifest) -> None:
    """Refuse an artifact without what its engines need. Raises BuildError."""
    lacking = [name for name in ENGINES[request.engine].packages if name not in manifest.packages]
    if lacking:
        raise BuildError(
            f"{path} was built for the engine {manifest.engine} and lacks {', '.join(lacking)}, which "
            f"{request.engine} needs. Build it again with that engine."
        )
    for engine in (request.engine, *request.other_engines):
        for name, floor in floors(request.engine_files, engine).items():
            version = manifest.packages.get(name, floor)
            if is_older(version, floor):
                raise BuildError(
                    f"{path} holds {name} {version}, but the engine {engine} needs {name} >= {floor}. Build it again."
                )
