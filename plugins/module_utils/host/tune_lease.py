"""A measuring that goes on by itself, for those who look at it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from .config import Config
from .systemd import Systemd

#: It ends when nobody has looked at it for so long; a look takes this long at most.
LEASE_SECONDS, LOOK_SECONDS = 30.0, 5.0


class Lease:
    """What a detached run and those who look at it have in common: it ends when nobody has looked for a while.

    An SSH connection is no such thing: it stays for a minute after Ctrl-C, and longer when others share it.
    """

    def __init__(self, config: Config) -> None:
        self.unit = f"{config.app}-release-tune"
        self.looked, self.steps, self.output = (config.run / f"tune.{kind}" for kind in ("looked", "steps", "output"))
        self._seen, self._since = 0, time.monotonic()

    def begin(self) -> Path:
        """Make the files; return the one for the outcome."""
        self.end()
        for path in (self.looked, self.steps, self.output):
            path.touch(0o600)
        return self.output

    def end(self) -> None:
        """Remove the files."""
        for path in (self.looked, self.steps, self.output):
            path.unlink(missing_ok=True)

    def say(self, step: str) -> None:
        """Note a step for those who look."""
        with self.steps.open("a", encoding="utf-8") as stream:
            stream.write(f"{step}\n")

    def is_wanted(self) -> bool:
        """Return whether somebody has looked lately. The file's time is only compared with itself."""
        with contextlib.suppress(OSError):
            if (looked := self.looked.stat().st_mtime_ns) != self._seen:
                self._seen, self._since = looked, time.monotonic()
        if time.monotonic() - self._since <= LEASE_SECONDS:
            return True
        self.end()
        return False

    def look(self, systemd: Systemd, seen: int) -> dict[str, Any]:
        """Wait for steps that the caller has not seen, for a while; `said` is the outcome once it has ended."""
        deadline = time.monotonic() + LOOK_SECONDS
        while True:
            running = not systemd.state(f"{self.unit}.service").down
            if running:
                os.utime(self.looked)
            steps = self.steps.read_text(encoding="utf-8").splitlines()
            if not running or len(steps) > seen or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        found = {"new": steps[seen:], "running": running, "said": self.output.read_text(encoding="utf-8")}
        if not running:
            self.end()
        return found
