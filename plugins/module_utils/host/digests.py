"""Digests of secret files that may leave a host: they take a key that does not.

A plain hash of a weak secret can be searched for by whoever sees it, in a log, a fact cache or with -vvv. The key is
random, for root only, one for each app and host; a deploy makes it when it writes the first secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from pathlib import Path

from .files import write_atomically

KEY, KEY_BYTES = "digest.key", 32
#: Before the digest of a secret file in a slot's record; others are plain SHA-256.
PREFIX = "keyed:"
#: Units and what goes with them, then the secrets. Earlier versions had one plain hash of both.
FINGERPRINT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")


def read_key(path: Path) -> bytes | None:
    """Return the key; None where there is none, and for one that others could have read."""
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            key = stream.read(KEY_BYTES + 1)
    except OSError:
        return None
    private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077 and status.st_uid == os.geteuid()
    return key if private and len(key) == KEY_BYTES else None


def make_key(path: Path) -> bytes:
    """Make a new key and return it; the file is whole or not there."""
    key = os.urandom(KEY_BYTES)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomically(path, key, 0o600)
    return key


def keyed(key: bytes | None, content: bytes) -> str:
    """Return the digest of a content, "" without a key."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()[:32] if key else ""


def sha256(content: bytes) -> str:
    """Return the plain digest of what is no secret."""
    return hashlib.sha256(content).hexdigest()
