"""The artifact: one `.tar.gz` of two gzip members, written so that the same input gives the same bytes.

Member 1 is `lib/`, member 2 `app/`, `site/`, `manifest.json` and the end of the archive. Concatenated they are one
ordinary tar.gz; apart, a change of code does not touch the dependencies.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ..host.archive import ArchiveError, Limits, Rules, TarMember, ceiling, check_path, show
from ..host.tar import gzip_header, read_part
from .uv import EPOCH, BuildError

#: Raised where the same content is packed into other bytes, or more of it is refused: older cache entries are left.
PACKING = 2
CHUNK = 1 << 20
#: What to do about a file that hosts would refuse, by where it stands in the release.
_ADVICE = {
    "app": "Change it in the app's source, or leave it out with release_exclude.",
    "site": "It is in the app's own wheel: change what that packs.",
    "lib": "It comes from a dependency: choose another version of that.",
}
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

    @property
    def size(self) -> int:
        """The file's bytes, 0 for a folder or link."""
        return 0 if self.link else self.path.stat().st_size if self.path else len(self.data)

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
    entries = []
    for name in sorted(names):
        path = root / name
        if path.is_symlink():
            entries.append(Entry(prefix + name, link=os.readlink(path)))
            continue
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise BuildError(
                f"{show(prefix + name)} is no file, folder or symlink. Remove it, or leave it out with release_exclude."
            )
        entries.append(Entry(prefix + name, path, executable=bool(mode & 0o100)))
    return entries


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
    """Return what a pure wheel installs, below `site/`; its scripts and headers are left out.

    Read without uv or pip: an installation has a RECORD and file modes that differ from one to the next.
    """
    entries = {}
    with zipfile.ZipFile(wheel) as archive:
        check_size(wheel, archive)
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
            entries[name] = Entry(f"site/{name}", data=data, executable=bool(info.external_attr >> 16 & 0o100))
    return [entries[name] for name in sorted(entries)]


def check_size(wheel: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a wheel whose content no release would hold, before it is read into memory. Raises BuildError."""
    size, most = sum(info.file_size for info in archive.infolist()), ceiling(wheel.stat().st_size)
    if size > most.bytes or len(archive.infolist()) > most.files:
        raise BuildError(
            f"{wheel} would unpack to {size >> 20} MiB in {len(archive.infolist())} files; of its "
            f"{wheel.stat().st_size >> 10} KiB, hosts take {most.bytes >> 20} MiB and {most.files} files."
        )


def check_name(name: str) -> None:
    """Refuse a name in a wheel that leads out of it. Raises BuildError."""
    try:
        check_path(name.removesuffix("/"))
    except ArchiveError as error:
        raise BuildError(f"The wheel is refused: {error}.") from error


class _Sink(io.RawIOBase):
    """One gzip member that is written: compresses, counts and hashes what it gets.

    The gzip module can neither put into the header what the member unpacks to, nor leave out name and time.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._hash, self._count, self._crc = out, hashlib.sha256(), 0, 0
        self._engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)  # without a header: it has its own
        out.write(gzip_header(0, 0))

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self._count += len(data)
        self._crc = zlib.crc32(data, self._crc)
        self._out.write(self._engine.compress(data))
        return len(data)

    def tell(self) -> int:
        return self._count

    def finish(self, size: int, files: int) -> str:
        """End the member, which unpacks to so much; return the hash of everything written."""
        self._out.write(self._engine.flush())
        self._out.write(struct.pack("<LL", self._crc, self._count & 0xFFFFFFFF))
        self._out.seek(0)
        self._out.write(gzip_header(size, files))
        return self._hash.hexdigest()


def write_member(entries: Iterable[Entry], out: Path, last: bool) -> Member:
    """Write one gzip member; the `last` one ends the archive."""
    size = files = 0
    made: set[str] = set()
    with out.open("wb") as raw:
        sink = _Sink(raw)
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
        content = sink.finish(size, files)
    return Member(file_sha256(out), content, out.stat().st_size, size, files)


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, EPOCH
    return info


def file_sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(lib: Member, code: Member, sha256: str, python: str, arch: str) -> dict[str, Any]:
    """Return what hosts are told of an artifact: hashes, sizes in bytes and numbers of files and folders."""
    content = hashlib.sha256(f"{lib.content} {code.content}".encode()).hexdigest()
    return {
        "python": python,
        "arch": arch,
        "sha256": sha256,
        "content": content,
        "size": lib.size + code.size,
        **{f"lib_{key}": value for key, value in asdict(lib).items()},
        **{f"code_{key}": value for key, value in asdict(code).items()},
    }


@contextlib.contextmanager
def _as_hosts_would() -> Iterator[None]:
    """Turn what hosts would refuse into a BuildError that says what to do."""
    try:
        yield
    except ArchiveError as error:
        advice = _ADVICE.get(error.name.partition("/")[0], _ADVICE["app"])
        raise BuildError(f"{error}. Hosts would refuse such a release. {advice}") from error


def check_entries(entries: Iterable[Entry], part: str) -> None:
    """Refuse a tree that hosts would refuse, before it is packed. Raises BuildError."""
    rules = Rules(part, Limits())
    with _as_hosts_would():
        for entry in entries:
            kind = "link" if entry.link else "folder" if entry.name.endswith("/") else "file"
            rules.take(TarMember(entry.name.removesuffix("/"), kind, entry.size, entry.link))
        rules.finish()


def write_part(entries: list[Entry], out: Path, part: str) -> Member:
    """Write a part of an artifact, and read it as hosts will. Raises BuildError for what they would refuse."""
    check_entries(entries, part)
    member = write_member(entries, out, last=part == "code")
    with _as_hosts_would(), out.open("rb") as stream:
        rules = Rules(part, ceiling(member.size))
        for _unused in read_part(stream, rules):
            pass
        rules.finish()
    return member
