"""An artifact that was built before: judged as hosts will judge it, then split into the parts that they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from packaging.version import InvalidVersion

from ..host.archive import MANIFEST, NOT_OURS, PARTS, ArchiveError, Rules
from ..host.manifest import Manifest, ManifestError
from ..host.tar import limits_of, read_part
from .artifact import CHUNK, PACKING, Member, describe, file_sha256
from .cache import Cache, load, save
from .engine import ENGINES, floors, is_older
from .request import Request
from .uv import BuildError


@dataclass(frozen=True)
class Piece:
    """Where a part is in an artifact, the hash of its bytes uncompressed, and what it unpacks to."""

    begin: int
    end: int
    content: str
    bytes: int
    files: int


def judge(artifact: Path) -> tuple[list[Piece], Manifest]:
    """Return an artifact's two parts, and its manifest.

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


def _judge(stream: IO[bytes], size: int) -> tuple[list[Piece], Manifest]:
    pieces, text = [], b""
    for part in PARTS:
        begin, digest = stream.tell(), hashlib.sha256()
        rules = Rules(part, limits_of(stream, size - begin, part))
        for member, data in read_part(stream, rules, digest):
            if member.name == MANIFEST:
                text = b"".join(data)
        rules.finish()
        pieces.append(Piece(begin, stream.tell(), digest.hexdigest(), rules.bytes, rules.files))
    if stream.read(1):
        raise ArchiveError("there is something behind its end")
    try:
        manifest = Manifest.read(text)
    except ManifestError as error:
        raise ArchiveError(f"its {MANIFEST} {error}") from error
    if manifest.lib_content != pieces[0].content:
        raise ArchiveError(f"its {MANIFEST} was written for other dependencies")
    return pieces, manifest


def split(artifact: Path, into: Path) -> tuple[Member, Member, Manifest]:
    """Split an artifact into `lib.tar.gz` and `code.tar.gz`; return both and its manifest. Raises BuildError."""
    pieces, manifest = judge(artifact)
    members = []
    with artifact.open("rb") as stream:
        for part, piece in zip(PARTS, pieces, strict=True):
            digest = hashlib.sha256()
            stream.seek(piece.begin)
            with (into / f"{part}.tar.gz").open("wb") as out:
                while chunk := stream.read(min(CHUNK, piece.end - stream.tell())):
                    digest.update(chunk)
                    out.write(chunk)
            size = piece.end - piece.begin
            members.append(Member(digest.hexdigest(), piece.content, size, piece.bytes, piece.files))
    return members[0], members[1], manifest


def from_artifacts(request: Request, files: Sequence[Path], cache: Cache) -> dict[str, Any]:
    """Use artifacts that were built before, after a look at what they are. Raises BuildError."""
    if request.lock:
        raise BuildError(
            f"release_lock is {request.lock}, but app_source {request.source} is built already, with its dependencies. "
            "Unset release_lock."
        )
    artifacts: dict[str, dict[str, Any]] = {}
    releases: dict[str, Manifest] = {}
    for path in files:
        info, manifest = known_artifact(path, cache)
        check_manifest(request, path, manifest)
        releases[manifest.id] = manifest
        artifacts[f"{manifest.python}-{manifest.arch}"] = info
    if len(releases) > 1:
        raise BuildError(f"{files[0].parent} holds artifacts of several releases: {', '.join(releases)}. Keep one's.")
    missing = [str(platform) for platform in request.platforms if platform.key not in artifacts]
    if missing:
        raise BuildError(
            f"There is no artifact for {'; '.join(missing)}, only for {', '.join(sorted(artifacts))}. Build one for it "
            "and name the folder with all of them as app_source."
        )
    (manifest,) = releases.values()
    return {
        "id": manifest.id,
        "label": manifest.source["version"] or manifest.id,
        "artifacts": {platform.key: artifacts[platform.key] for platform in request.platforms},
        "notes": [],
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


def check_manifest(request: Request, path: Path, manifest: Manifest) -> None:
    """Refuse an artifact of another app, or one without what the engine needs."""
    for setting, built, value in (
        ("app_name", manifest.app, request.app),
        ("app_module", manifest.module, request.module),
    ):
        if built != value:
            raise BuildError(
                f"{path} was built for {setting.removeprefix('app_').replace('name', 'app')} {built}, not {value}. "
                f"Set {setting} to it, or build again."
            )
    lacking = [name for name in ENGINES[request.engine] if name not in manifest.packages]
    if lacking:
        raise BuildError(
            f"{path} was built for the engine {manifest.engine} and lacks {', '.join(lacking)}, which "
            f"{request.engine} needs. Build it again with that engine."
        )
    for engine in (request.engine, *request.other_engines):
        least = floors(request.engine_files, engine)
        for name, version in manifest.packages.items():
            try:
                old = is_older(version, least.get(name, "0"))
            except InvalidVersion as error:
                raise BuildError(f"{path} holds {name} {version}, which is no version. Build it again.") from error
            if old:
                raise BuildError(
                    f"{path} holds {name} {version}, but the engine {engine} needs {name} >= {least[name]}. "
                    "Build it again."
                )
