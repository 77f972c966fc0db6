"""This machine: where the lab keeps its files, how it runs commands, locks and speaks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .definition import LabError

_STARTED = time.monotonic()
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# A Unix socket's path holds 107 bytes; dockerd puts its own deep below the folder it is given, and ssh adds to a name
# while it makes the socket.
_LONGEST_RUN_DIR = 50


def cache() -> Path:
    """Return the folder that holds everything the lab keeps."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(home).resolve() / "fastapi-fleet"
    path.mkdir(parents=True, exist_ok=True)
    return path


def private(name: str) -> Path:
    """Return a folder below the cache that only this user can enter."""
    path = cache() / name
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def run_dir() -> Path:
    """Return the folder for sockets: in the cache, or in /run where the cache's path is too long."""
    path = cache() / "engine"
    if len(str(path)) > _LONGEST_RUN_DIR:
        path = Path("/run") / f"fastapi-fleet-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def say(text: str) -> None:
    """Print one line of progress, with the seconds since the start, at once."""
    line = f"[{time.monotonic() - _STARTED:5.1f} s] {text}\n"
    sys.stdout.write(line)
    sys.stdout.flush()


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock against other lab processes (and threads); it ends with the process."""
    with (private("locks") / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another lab process ({name})")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command, bounded in time (seconds), and return its code and output."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout, env=env, input=stdin)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed: run script/bootstrap") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no answer within {timeout:.0f} s: {' '.join(argv[:6])}") from error


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of a log, indented."""
    return "\n".join("    " + line for line in text.strip().splitlines()[-lines:])


def within(seconds: float, *questions: threading.Thread) -> None:
    """Start threads and wait for all of them together at most `seconds`."""
    end = time.monotonic() + seconds
    for question in questions:
        question.start()
    for question in questions:
        question.join(max(0.0, end - time.monotonic()))


def certificates_in(text: str) -> dict[str, str]:
    """Return the PEM certificates of a file, by their body without white space."""
    return {"".join(found.group(1).split()): found.group(0) for found in _PEM.finditer(text)}


def extra_certificates() -> list[str]:
    """Return the certificates that this machine trusts beyond its distribution's own.

    A network may put a certificate authority of its own in front of HTTPS; hosts have to trust it, too.
    """

    def read(path: Path) -> dict[str, str]:
        return certificates_in(path.read_text(errors="replace")) if path.is_file() else {}

    found: dict[str, str] = {}
    for path in sorted(Path("/usr/local/share/ca-certificates").rglob("*.crt")):
        found |= read(path)
    shipped: dict[str, str] = {}
    for path in Path("/usr/share/ca-certificates").rglob("*.crt"):
        shipped |= read(path)
    if shipped:
        bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
        found |= {body: pem for body, pem in read(bundle).items() if body not in shipped}
    return [found[body] for body in sorted(found)]
