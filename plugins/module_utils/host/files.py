"""Files that are whole or not there, also when the power goes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _no_room(_unused: Path) -> bool:
    return False


#: Frees something on the disk of a folder, and says whether there was anything: see reserve.py.
MAKE_ROOM: ContextVar[Callable[[Path], bool]] = ContextVar("MAKE_ROOM", default=_no_room)


def with_room(folder: Path, write: Callable[[], T]) -> T:
    """Write something in a folder; on a full disk, again for as long as room can be made."""
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL or not MAKE_ROOM.get()(folder):
                raise


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where the file is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables of an environment file of ours, which quotes nothing; none where it is missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: value for name, _unused, value in (line.partition("=") for line in lines) if name}


def environment_content(variables: Mapping[str, str]) -> bytes:
    """Return an environment file of ours; the values hold nothing that would need quotes."""
    return "".join(f"{name}={value}\n" for name, value in variables.items()).encode()


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file that only root may read."""
    write_atomically(path, json.dumps(value, indent=1).encode() + b"\n", 0o600)


def write_atomically(
    path: Path, content: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None, sync: bool = True
) -> None:
    """Replace a file whole or not at all. `owner` is a user's and a group's number, else who runs this.

    Without `sync` a power cut may bring the former file back, whole.
    """
    with_room(path.parent, lambda: _write(path, content, mode, owner))
    if sync:
        sync_folder(path.parent)


def _write(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def link_atomically(path: Path, target: Path | str) -> None:
    """Point a symbolic link at something else with one rename(); no moment without a link."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with_room(path.parent, lambda: new.symlink_to(target))
    try:
        new.replace(path)
    except OSError:
        new.unlink()
        raise
    with contextlib.suppress(OSError):
        # It has moved: what fails from here on must not look as if it had not.
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file for good, if it is there."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder last over a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
