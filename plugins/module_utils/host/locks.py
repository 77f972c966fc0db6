"""How a lock is taken: one switch at a time on a host, and one writer below `releases/`.

The kernel frees a lock when its holder ends, however it ends: nobody unlocks, nothing is left to tidy up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import Config, HostError

NAME = ".lock"
#: How long to wait for somebody who only looks at the lock, in seconds, one after the other.
READER_PAUSES = (0.01, 0.05, 0.1, 0.3)


@contextlib.contextmanager
def locked(config: Config, what: str, by: str, limit: float | None = None) -> Iterator[None]:
    """Hold the app's lock while doing `what`; HostError at once, with the holder's name, where another has it.

    Nobody waits and nobody unlocks: a holder that dies has let go, one that hangs is ended by systemd (RuntimeMaxSec
    of its unit) at the time that it wrote down here: `limit` seconds from now, by default a switch's.
    """
    with _opened(config.root) as descriptor:
        if not _lock(descriptor):
            raise HostError(f"the lock is held: {describe(_read(descriptor))}. Nothing was done")
        now = time.time()
        expires = int(now + (config.longest if limit is None else limit))
        about = {"what": what, "by": by, "pid": os.getpid(), "since": int(now), "expires": expires}
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):
            # A full disk costs the name, not the lock: nobody could make room with `prune` otherwise.
            os.pwrite(descriptor, f"{json.dumps(about)}\n".encode(), 0)
        yield


@contextlib.contextmanager
def releases_locked(root: Path) -> Iterator[None]:
    """Wait for the lock of `releases/`: nobody links files out of a release that is being removed."""
    with _opened(root / "releases") as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder's lock file, readable by root only: whoever can open it can lock it."""
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def holder(config: Config) -> dict[str, Any] | None:
    """Return who holds the lock, None where nobody does."""
    try:
        with (config.root / NAME).open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(stream.fileno())
    except OSError:
        pass
    return None


def describe(about: dict[str, Any]) -> str:
    """Say who holds the lock, since when and until when at most."""
    if not about:
        return "by a switch that has just begun"
    since, expires = (time.strftime("%F %T %Z", time.localtime(about[key])) for key in ("since", "expires"))
    who = f"{about['what']} by {about['by']} (process {about['pid']})"
    return f"{who} since {since}; it ends by itself, at {expires} at the latest"


def _lock(descriptor: int) -> bool:
    """Take the lock; who only looks at it (holder) has it for a moment, and is not to stop a switch."""
    for pause in (*READER_PAUSES, None):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if pause:
            time.sleep(pause)
    return False


def _read(descriptor: int) -> dict[str, Any]:
    """Return what a holder wrote of itself; nothing where it is not that, or not yet."""
    try:
        about = json.loads(os.pread(descriptor, 1 << 16, 0))
        whole = all(isinstance(about[key], int) for key in ("pid", "since", "expires"))
        return about if whole and {"what", "by"} <= about.keys() else {}
    except (ValueError, TypeError, KeyError):
        return {}
