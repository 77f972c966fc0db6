"""The artifact: one `.tar.gz` of two gzip members, written so that the same input gives the same bytes.

Member 1 is `lib/`, member 2 `app/`, `site/`, `manifest.json` and the end of the archive. Concatenated they are one
ordinary tar.gz; apart, a change of code does not touch the dependencies.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .release_uv import EPOCH, BuildError

FORMAT = 1
CHUNK = 1 << 20
_LIB_JUNK = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}


@dataclass(frozen=True)
class Entry:
    """One file of a tree: its bytes come from `path` or `data`; a symlink has `link` instead."""

    name: str
    path: Path | None = None
    data: bytes = b""
    link: str = ""
    executable: bool = False

    def read(self) -> bytes:
        """Return the file's bytes."""
        return self.path.read_bytes() if self.path else self.data

    def digest(self) -> list[str]:
        """Return what of the file counts: name, kind and content."""
        if self.link:
            return [self.name, "link", self.link]
        return [self.name, "x" if self.executable else "-", hashlib.sha256(self.read()).hexdigest()]


@dataclass(frozen=True)
class Member:
    """What is known of one gzip member. `content` is the hash of its bytes uncompressed; `bytes` their size on disk."""

    sha256: str
    content: str
    size: int
    bytes: int
    files: int


def tree(root: Path, names: Iterable[str], prefix: str) -> list[Entry]:
    """Return the entries of files on disk, sorted. Only the owner's executable bit counts, so no umask does."""
    found = []
    for name in sorted(names):
        path = root / name
        if path.is_symlink():
            found.append(Entry(prefix + name, link=os.readlink(path)))
        else:
            found.append(Entry(prefix + name, path, executable=bool(path.stat().st_mode & 0o100)))
    return found


def lib_tree(root: Path) -> list[Entry]:
    """Return the entries of installed dependencies, without what differs from one installation to the next.

    Scripts in `bin/` name the controller's Python; servers are started as `python3 -m`. A package's RECORD is
    rewritten to what is left, so that importlib.metadata tells the truth.
    """
    names = []
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = sorted(d for d in folders if d != "__pycache__" and (here / d) != Path("bin"))
        dist_info = here.name.endswith(".dist-info")
        names += [
            str(here / name)
            for name in files
            if not name.endswith(".pyc") and not (dist_info and name in _LIB_JUNK) and str(here / name) != ".lock"
        ]
    kept = set(names)
    entries = tree(root, names, "lib/")
    for i, entry in enumerate(entries):
        if re.fullmatch(r"lib/[^/]+\.dist-info/RECORD", entry.name):
            rows = [r for r in entry.read().decode("utf-8").splitlines() if r.rsplit(",", 2)[0].strip('"') in kept]
            entries[i] = Entry(entry.name, data=("\n".join(sorted(rows)) + "\n").encode())
    return entries


def wheel_tree(wheel: Path) -> list[Entry]:
    """Return what a pure wheel installs, below `site/`; its scripts and headers are left out."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            name = info.filename
            if info.is_dir() or name.endswith(".dist-info/RECORD"):
                continue
            if match := re.match(r"[^/]+\.data/(\w+)/(.*)", name):
                if match[1] not in {"purelib", "platlib"}:
                    continue
                name = match[2]
            check_name(name)
            data = archive.read(info)
            if name.endswith(".dist-info/WHEEL"):  # which version of the backend built it does not count
                data = re.sub(rb"(?m)^Generator:.*\n", b"", data)
            found[name] = Entry(f"site/{name}", data=data, executable=bool(info.external_attr >> 16 & 0o100))
    return [found[name] for name in sorted(found)]


def check_name(name: str) -> None:
    """Refuse a name in an archive that leads out of it."""
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise BuildError(f"The archive holds {name!r}, which leads out of it. It was not made by a release build.")


class _Sink(io.RawIOBase):
    """Counts and hashes what passes through on its way to a gzip stream."""

    def __init__(self, target: gzip.GzipFile) -> None:
        self._target, self._hash, self._count = target, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self._count += len(data)
        return self._target.write(data)

    def tell(self) -> int:
        return self._count

    def hexdigest(self) -> str:
        """Return the hash of everything written."""
        return self._hash.hexdigest()


def write_member(entries: Iterable[Entry], out: Path, last: bool) -> Member:
    """Write one gzip member; the `last` one ends the archive."""
    size = files = 0
    made: set[str] = set()
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        sink = _Sink(packed)
        # Never closed: closing would end the archive after the first member.
        tar = tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT)
        for entry in entries:
            for parent in [*reversed(Path(entry.name).parents)][1:]:
                if str(parent) not in made:
                    made.add(str(parent))
                    tar.addfile(_info(str(parent), tarfile.DIRTYPE, 0o755))
                    files += 1
            if entry.link:
                info = _info(entry.name, tarfile.SYMTYPE, 0o777)
                info.linkname = entry.link
                tar.addfile(info)
            elif entry.name.endswith("/"):
                tar.addfile(_info(entry.name.rstrip("/"), tarfile.DIRTYPE, 0o755))
            else:
                data = entry.read()
                info = _info(entry.name, tarfile.REGTYPE, 0o755 if entry.executable else 0o644)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                size += -(-len(data) // 4096) * 4096
            files += 1
        if last:
            sink.write(b"\0" * 1024)
    return Member(file_sha256(out), sink.hexdigest(), out.stat().st_size, size, files)


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, EPOCH
    return info


def file_sha256(*paths: Path) -> str:
    """Return the hash of files read one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def describe(lib: Member, code: Member, sha256: str, platform: dict[str, str]) -> dict[str, Any]:
    """Return what hosts are told of an artifact: hashes, sizes in bytes and numbers of files and folders."""
    content = hashlib.sha256(f"{lib.content} {code.content}".encode()).hexdigest()
    return {
        **platform,
        "sha256": sha256,
        "content": content,
        "size": lib.size + code.size,
        **{f"lib_{key}": value for key, value in asdict(lib).items()},
        **{f"code_{key}": value for key, value in asdict(code).items()},
    }


def _inflate(stream: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Yield (member number, bytes uncompressed) of a file of gzip members."""
    number, engine = 0, zlib.decompressobj(31)
    while chunk := stream.read(CHUNK):
        while chunk:
            yield number, engine.decompress(chunk)
            chunk = engine.unused_data
            if engine.eof and chunk:
                number, engine = number + 1, zlib.decompressobj(31)
    if not engine.eof:
        raise zlib.error("it ends too early")


def split(artifact: Path, into: Path) -> tuple[Member, Member, dict[str, Any]]:
    """Split an artifact into `lib.tar.gz` and `code.tar.gz`; return both and its manifest. Raises BuildError."""
    hashes = [hashlib.sha256(), hashlib.sha256()]
    sizes, counts = [0, 0], [0, 0]
    try:
        with artifact.open("rb") as stream:
            for number, data in _inflate(stream):
                hashes[number].update(data)
        with tarfile.open(artifact) as tar:
            for info in tar:
                which = 0 if info.name == "lib" or info.name.startswith("lib/") else 1
                counts[which] += 1
                sizes[which] += -(-info.size // 4096) * 4096
            manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        whole = manifest["format"] == FORMAT and manifest["lib_content"] == hashes[0].hexdigest()
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, IndexError, ValueError) as error:
        raise BuildError(f"{artifact} is no whole artifact of a release build ({error}). Build it again.") from error
    if not whole:
        raise BuildError(f"{artifact} does not fit its manifest, or has another format than {FORMAT}. Build it again.")
    cut = _boundary(artifact)
    data = artifact.read_bytes()
    parts = []
    for number, (name, piece) in enumerate((("lib.tar.gz", data[:cut]), ("code.tar.gz", data[cut:]))):
        (into / name).write_bytes(piece)
        sha256, content = hashlib.sha256(piece).hexdigest(), hashes[number].hexdigest()
        parts.append(Member(sha256, content, len(piece), sizes[number], counts[number]))
    return parts[0], parts[1], manifest


def _boundary(artifact: Path) -> int:
    """Return the offset of the second gzip member."""
    engine, offset = zlib.decompressobj(31), 0
    with artifact.open("rb") as stream:
        while not engine.eof and (chunk := stream.read(CHUNK)):
            engine.decompress(chunk)
            offset += len(chunk)
    return offset - len(engine.unused_data)
