"""Unpack a release on a host: verified first, renamed into place last, so that a half one never looks whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .archive import NOT_OURS, ArchiveError, Limits, Rules
from .extract import extract
from .files import read_object, sync_folder, write_atomically
from .locks import releases_locked

MARKER = ".complete"
_MARKED = ("sha256", "content", "lib_sha256", "code_sha256", "python", "arch")
# Bytecode takes about as much as its source; the rest is for directories and for what else grows meanwhile.
_SPACE = 1.5
_INODES = 2.2


class UnpackError(Exception):
    """A foreseeable refusal; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Order:
    """What to unpack: `artifact` is the build's description of it, `live` ids of releases that must not be touched.

    `label` is what people call it, `origin` where it comes from (build/origin.py); neither is part of the release.
    """

    app: str
    root: Path
    release: str
    artifact: dict[str, Any]
    label: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    python: str = "/usr/bin/python3"
    live: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the release goes."""
        return self.root / "releases" / self.release


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return what a whole release says of itself; None when it is not whole."""
    marker = read_object(folder / MARKER)
    return marker if marker.get("id") == folder.name else None


def is_there(order: Order) -> bool:
    """Whether the host has this very release, whole.

    Another controller may compress the same files into other bytes: equal content counts as equal. Raises UnpackError
    when the live release has this id and other content: nothing may be changed under a running app. One for another
    Python or architecture is not spared: after an upgrade of the host nothing can start from it any more.
    """
    marker = read_marker(order.folder)
    if marker is None:
        return False
    if any(marker.get(key) == order.artifact[key] for key in ("sha256", "content")):
        return True
    if order.release in order.live and all(marker.get(key) == order.artifact[key] for key in ("python", "arch")):
        raise UnpackError(
            f"{order.folder} is live and has other content than the artifact of the same id (there: "
            f"{marker.get('content', '')[:12]}; here: {order.artifact['content'][:12]}). "
            "Deploy any change, be it a comment: it makes another id."
        )
    return False


def donor(order: Order) -> Path | None:
    """Return the lib/ of a whole release with the same dependencies, to be shared by hard links."""
    releases = order.root / "releases"
    for folder in sorted(releases.iterdir()) if releases.is_dir() else []:
        marker = read_marker(folder)
        if marker and marker.get("lib_sha256") == order.artifact["lib_sha256"] and (folder / "lib").is_dir():
            return folder / "lib"
    return None


def is_renamed(order: Order) -> bool:
    """Whether the host knows a whole release by another name: the same files are now of another commit or tag."""
    marker = read_marker(order.folder)
    return bool(marker and order.origin.get("commit") and marker.get("label") != order.label)


def rename(order: Order) -> None:
    """Write down a release's present name and origin; nothing else of it changes."""
    with releases_locked(order.root):
        if marker := read_marker(order.folder):
            marker |= {"label": order.label, "origin": dict(order.origin)}
            write_atomically(order.folder / MARKER, f"{json.dumps(marker, sort_keys=True)}\n".encode())


def needs(order: Order) -> list[str]:
    """Return which parts have to be sent: none when the release is there, else "code", and "lib" if no one has it."""
    if is_there(order):
        return []
    parts = ["code"] if donor(order) else ["lib", "code"]
    check_space(order, parts)
    return parts


def check_space(order: Order, parts: list[str], extra: int = 0) -> None:
    """Refuse before anything changes when the disk, with `extra` bytes for a while, or its inodes would not do."""
    place = order.root
    while not place.exists():
        place = place.parent
    disk = os.statvfs(place)
    size = int(sum(order.artifact[f"{part}_bytes"] for part in parts) * _SPACE) + (1 << 20) + extra
    files = int(sum(order.artifact[f"{part}_files"] for part in parts) * _INODES) + 100
    free = disk.f_bavail * disk.f_frsize
    if free < size:
        raise UnpackError(
            f"{order.root} has {free >> 20} MiB free, the release needs {(size >> 20) + 1} MiB. "
            f"Nothing was changed. Make room; old releases are in {order.root}/releases."
        )
    if disk.f_files and disk.f_favail < files:
        raise UnpackError(
            f"{order.root} has {disk.f_favail} inodes free, the release needs {files}. "
            f"Nothing was changed. Make room; old releases are in {order.root}/releases."
        )


def unpack(order: Order, files: dict[str, Path]) -> list[str]:
    """Put the release in place; return which parts are still missing (then nothing was changed).

    `files` are the parts that were sent, "lib" and "code". Raises UnpackError.
    """
    releases = order.root / "releases"
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o022))
        opened = {part: stack.enter_context(verified(path, part, order)) for part, path in files.items()}
        missing = [part for part in needs(order) if part not in opened]
        if missing or is_there(order):
            return missing
        for folder in (order.root, releases):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        stack.enter_context(releases_locked(order.root))
        if is_there(order):
            return []
        for old in releases.glob(f".{order.release}.*"):  # under the lock: whoever made it is dead
            shutil.rmtree(old, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{order.release}.tmp-", dir=releases))
        try:
            work.chmod(0o755)
            shared = donor(order)
            if shared:
                link_tree(shared, work / "lib")
            else:
                extract(opened["lib"], work, rules_of(order, "lib"))
            extract(opened["code"], work, rules_of(order, "code"))
            folders = [n for n in ("app", "site", *(() if shared else ("lib",))) if (work / n).is_dir()]
            compile_bytecode(order, work, folders)
            finish(order, work, releases)
        except ArchiveError as error:
            raise UnpackError(
                f"The artifact of {order.app} {order.release} is refused: {error}. Nothing was changed. {NOT_OURS}"
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise UnpackError(f"{order.root} is full: {error}. Nothing was changed. Make room.") from error
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return []


def rules_of(order: Order, part: str) -> Rules:
    """Return what is allowed in a part: no more than the controller has found in it, which had room on the disk."""
    return Rules(part, Limits(order.artifact[f"{part}_bytes"], order.artifact[f"{part}_files"]))


@contextlib.contextmanager
def verified(path: Path, part: str, order: Order) -> Iterator[IO[bytes]]:
    """Open a part that was sent and check its hash; what is read later is what was checked."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        if digest.hexdigest() != order.artifact[f"{part}_sha256"]:
            raise UnpackError(
                f"The {part} part of {order.app} {order.release} changed on its way (sha256 is "
                f"{digest.hexdigest()[:12]}…, not {order.artifact[f'{part}_sha256'][:12]}…). No release was created. "
                "Run the deploy again; if it happens again, someone or something alters it."
            )
        stream.seek(0)
        yield stream


def link_tree(source: Path, target: Path) -> None:
    """Copy a tree by hard links, bytecode included."""
    for folder, folders, files in os.walk(source):
        here = target / os.path.relpath(folder, source)
        here.mkdir(0o755)
        for name in files:
            try:
                os.link(os.path.join(folder, name), here / name, follow_symlinks=False)
            except OSError as error:
                if error.errno not in {errno.EMLINK, errno.EXDEV, errno.EPERM}:
                    raise
                shutil.copy2(os.path.join(folder, name), here / name, follow_symlinks=False)
        for name in [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            (here / name).symlink_to(os.readlink(os.path.join(folder, name)))


def compile_bytecode(order: Order, work: Path, folders: list[str]) -> None:
    """Compile what is new with the Python that will run it, in at most four processes.

    Unchecked: workers cannot write to a release and its files do not change, so no import has to look at a source.
    A file that does not compile is no error here: dependencies ship such files for other Pythons.
    """
    jobs = str(min(4, len(os.sched_getaffinity(0))) if "lib" in folders else 1)  # processes cost more than a few files
    args = ["-I", "-m", "compileall", "-qq", "-j", jobs, "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [order.python, *args, "-s", str(work), "-p", str(order.folder), *folders],
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        umask=0o022,
    )


def finish(order: Order, work: Path, releases: Path) -> None:
    """Put everything on the disk, mark it whole, and give it its name: after a power cut it is whole or not there."""
    marker: dict[str, Any] = {"format": 1, "id": order.release, "app": order.app}
    marker.update({"label": order.label, "origin": dict(order.origin)})
    marker.update({key: order.artifact[key] for key in _MARKED})
    with (work / MARKER).open("w", encoding="utf-8") as out:
        if ctypes.CDLL(None).syncfs(out.fileno()):  # one call for all files of the release
            os.sync()
        out.write(json.dumps(marker, sort_keys=True) + "\n")
        out.flush()
        os.fsync(out.fileno())
    sync_folder(work)
    if order.folder.exists():  # half a release, or one of another Python
        order.folder.rename(releases / f".{order.release}.old-{work.name[-8:]}")
    work.rename(order.folder)
    sync_folder(releases)
    for old in releases.glob(f".{order.release}.old-*"):
        shutil.rmtree(old, ignore_errors=True)


def valid_id(release: str) -> bool:
    """Whether this can be a release's id: it becomes a folder's name."""
    return bool(re.fullmatch(r"[0-9a-f]{12,64}", release))
