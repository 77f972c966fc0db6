"""One switch at a time on a host. The kernel frees the lock when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from .config import Config, HostError


@contextlib.contextmanager
def locked(config: Config, what: str, by: str) -> Iterator[None]:
    """Hold the app's lock while doing `what`; HostError at once, with the holder's name, where another has it.

    Nobody waits and nobody unlocks: a holder that dies has let go, one that hangs is ended by systemd (RuntimeMaxSec
    of its unit) at the time that it wrote down here.
    """
    # Readable by root only: whoever can open it can lock it.
    descriptor = os.open(config.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(f"the lock is held: {describe(_read(stream.read()))}. Nothing was done") from None
        now = time.time()
        about = {"what": what, "by": by, "pid": os.getpid(), "since": int(now), "expires": int(now + config.expiry)}
        stream.seek(0)
        stream.truncate(0)
        stream.write(json.dumps(about) + "\n")
        stream.flush()
        yield


def holder(config: Config) -> dict[str, Any] | None:
    """Return who holds the lock, None where nobody does."""
    try:
        with (config.root / ".lock").open("r", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(stream.read())
    except OSError:
        pass
    return None


def describe(about: dict[str, Any]) -> str:
    """Say who holds the lock, since when and until when at most."""
    if "since" not in about:
        return "by a switch that has just begun"
    since, expires = (time.strftime("%F %T %Z", time.localtime(about[key])) for key in ("since", "expires"))
    who = f"{about['what']} by {about['by']} (process {about['pid']})"
    return f"{who} since {since}; it ends by itself, at {expires} at the latest"


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
