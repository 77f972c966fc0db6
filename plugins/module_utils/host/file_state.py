"""What a path is, and whether that is what is wanted of it: for the probe, the module host_files and its action."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .digests import keyed, sha256

DEFAULT_MODES = {"present": "0644", "directory": "0755"}


def file_state(path: Path, key: bytes | None = None) -> dict[str, str] | None:
    """Return a link's target, or the content's digest, owner and mode; None where nothing is there.

    The digest is `sha256`, or with a key `keyed`; that of a folder is empty. Nothing is known of what cannot be read.
    """
    try:
        if path.is_symlink():
            return {"link": os.readlink(path)}
        status = path.stat()
        digest = "" if path.is_dir() else "no file"
        if path.is_file():
            digest = keyed(key, path.read_bytes()) if key else sha256(path.read_bytes())
    except OSError:
        return {} if os.path.lexists(path) else None
    owner, group = _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid)
    mode = f"{status.st_mode & 0o7777:04o}"
    return {"keyed" if key else "sha256": digest, "owner": owner, "group": group, "mode": mode}


def _name(look_up: Callable[[int], Sequence[Any]], number: int) -> str:
    """Return the name of a user or group, its number where it has none."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def content_of(item: Mapping[str, Any]) -> bytes:
    """Return what a file is to hold; texts of a host's may be no UTF-8."""
    return str(item.get("content") or "").encode("utf-8", "surrogateescape")


def mode_of(item: Mapping[str, Any]) -> int:
    """Return the permission bits that a file or folder is to have; ValueError where they are no octal number."""
    return int(item.get("mode") or DEFAULT_MODES[item.get("state", "present")], 8)


def matches(item: Mapping[str, Any], current: Mapping[str, str] | None) -> bool:
    """Return whether a path was found to be what an item of host_files describes."""
    state = item.get("state", "present")
    if state == "absent" or current is None:
        return state == "absent" and current is None
    if item.get("link"):
        return current == {"link": item["link"]}
    return dict(current) == {
        "sha256": "" if state == "directory" else sha256(content_of(item)),
        "owner": item.get("owner", "root"),
        "group": item.get("group", "root"),
        "mode": f"{mode_of(item):04o}",
    }
