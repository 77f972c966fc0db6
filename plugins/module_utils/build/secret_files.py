"""Files of a source that may hold secrets, by their names: one rule for all of them."""

from __future__ import annotations

import fnmatch
from pathlib import Path

#: Compared with a file's own name, in small letters.
_NAMES = (
    ".env", ".env.*", "*.env", ".envrc", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.ppk", "*.p12", "*.pfx",
    "*.jks", "*.keystore", "*.kdbx", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".pypirc", ".git-credentials",
    ".htpasswd", "credentials.json", "client_secret*.json", "service-account*.json", "service_account*.json",
)  # fmt: skip
#: Keys and certificates alike have these names: what is in them decides.
_KEYS = ("*.pem", "*.key")
_READ_MAX = 1 << 20  # bytes; a file of keys is shorter
#: Of AWS; other files of that name are somebody's own.
_AWS = ".aws/credentials"


def is_secret(root: Path, name: str) -> bool:
    """Whether a file, by its name relative to `root`, may hold secrets. A public key or certificate does not."""
    own = name.rpartition("/")[2].lower()
    if any(fnmatch.fnmatchcase(own, pattern) for pattern in _NAMES) or f"/{name}".endswith(f"/{_AWS}"):
        return True
    return any(fnmatch.fnmatchcase(own, pattern) for pattern in _KEYS) and _is_private(root / name)


def _is_private(path: Path) -> bool:
    """Whether a file holds a private key; one in which nothing is known to be public, is taken for one."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_READ_MAX)
    except OSError:
        return True
    return b"PRIVATE KEY" in text or not any(word in text for word in (b"PUBLIC KEY", b"CERTIFICATE", b"DH PARAMETERS"))
