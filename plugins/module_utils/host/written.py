"""What deploys have written on a host, so that what somebody made of it by hand is seen and not lost.

`/etc/APP/files.json` has a digest for each path. A host that an earlier version deployed to has none: nothing counts as
edited there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .digests import PREFIX, keyed, sha256
from .files import read_object, write_object

RECORD = "files.json"
#: Before the target of a link.
LINK = "link:"


def read_written(etc: Path) -> dict[str, str]:
    """Return the digests of what deploys have written, by path."""
    return {path: str(digest) for path, digest in read_object(etc / RECORD).items()}


def write_written(etc: Path, digests: Mapping[str, str]) -> None:
    """Write them down, for root only."""
    write_object(etc / RECORD, dict(sorted(digests.items())))


def digest_of(path: Path, like: str, key: bytes | None) -> str | None:
    """Return a path's digest, of the kind of another one; None where nothing is there, or the key is gone."""
    try:
        if path.is_symlink():
            return f"{LINK}{os.readlink(path)}"
        content = path.read_bytes()
    except OSError:
        return None
    if like.startswith(PREFIX):
        return f"{PREFIX}{keyed(key, content)}" if key else None
    return sha256(content)


def is_as_recorded(path: Path, digest: str, key: bytes | None) -> bool:
    """Return whether a path has what a record says; a secret's, without its key, cannot be told and counts as such."""
    if digest.startswith(PREFIX) and key is None:
        return path.exists()
    return digest_of(path, digest, key) == digest


def edited(written: Mapping[str, str], key: bytes | None) -> dict[str, str]:
    """Return the paths that are not as they were written, each with what happened to it."""
    changed = [Path(path) for path, digest in written.items() if not is_as_recorded(Path(path), digest, key)]
    return {str(path): "was edited" if os.path.lexists(path) else "is gone" for path in changed}
