"""Digests of secret files that may leave a host: they take a key that does not.

A plain hash of a weak secret can be searched for by whoever sees it, in a log, a fact cache or with -vvv. The key is
random, for root only, one for each app and host. The host's command has the same digest (keyed.py).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

KEY_BYTES = 32


def read_key(path: Path) -> bytes | None:
    """Return the key; None where there is none, and for one that others could have read."""
    try:
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            key = stream.read(KEY_BYTES + 1)
    except OSError:
        return None
    private = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077 and found.st_uid == os.geteuid()
    return key if private and len(key) == KEY_BYTES else None


def make_key(path: Path) -> bytes:
    """Make a new key and return it; the file is whole or not there."""
    key = os.urandom(KEY_BYTES)
    new = path.with_name(f".{path.name}.new")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(key)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)
    return key


def keyed(key: bytes | None, content: bytes) -> str:
    """Return the digest of a content, "" without a key."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()[:32] if key else ""
