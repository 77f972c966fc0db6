"""Digests of secret files, with a key that stays on the host: what may be shown and written down of them.

The same as in secrets.py, which makes the key (`digest.key`) when a deploy writes the first secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

KEY = "digest.key"
#: Before the digest of a secret file in a slot's record; others are plain SHA-256.
PREFIX = "keyed:"
#: Units and what goes with them, then the secrets. Earlier versions had one plain hash of both.
FINGERPRINT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")


def keyed(folder: Path, content: bytes) -> str:
    """Return the digest of a content with the key in an app's folder below /etc; "" where there is no key."""
    try:
        key = (folder / KEY).read_bytes()
    except OSError:
        return ""
    return hmac.new(key, content, hashlib.sha256).hexdigest()[:32]


def public(record: dict[str, Any]) -> dict[str, Any]:
    """Return what may leave the host of a slot's record: no digests of files, and no plain hash of secrets."""
    shown = {name: value for name, value in record.items() if name != "files"}
    if not FINGERPRINT.fullmatch(str(shown.get("fingerprint", ""))):
        shown.pop("fingerprint", None)
    return shown
