"""The lease of a detached tuning run: it ends when nobody has polled it for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import Config
from .context import Context

#: What measuring holds the lock for.
VERB = "tune"
#: It ends when nobody has polled it for so many seconds; a poll takes this long at most.
LEASE_SECONDS, POLL_SECONDS = 30.0, 5.0


def unit(config: Config) -> str:
    """Return the transient unit that measures."""
    return f"{config.app}-release-tune.service"


class Lease:
    """State shared by a detached run and its pollers.

    An SSH connection is no lease: it stays for a minute after Ctrl-C, and longer when others share it.
    """

    def __init__(self, context: Context) -> None:
        self.context, run = context, context.config.run
        self.unit = unit(context.config).removesuffix(".service")
        self.polled, self.steps, self.output = (run / f"tune.{kind}" for kind in ("polled", "steps", "output"))
        self._last_poll, self._since = 0, context.clock.monotonic()

    def begin(self) -> Path:
        """Make the files; return the one for the outcome."""
        self.end()
        for path in (self.polled, self.steps, self.output):
            path.touch(0o600)
        return self.output

    def end(self) -> None:
        """Remove the files."""
        for path in (self.polled, self.steps, self.output):
            path.unlink(missing_ok=True)

    def reporter(self, report: Callable[[str], None]) -> Callable[[str], None]:
        """Return a function that reports a step, and writes it down for the pollers."""

        def write(step: str) -> None:
            report(step)
            with self.steps.open("a", encoding="utf-8") as stream:
                stream.write(f"{step}\n")

        return write

    def is_polled(self) -> bool:
        """Return whether somebody has polled lately. The file's time is only compared with itself."""
        now = self.context.clock.monotonic()
        with contextlib.suppress(OSError):
            if (polled := self.polled.stat().st_mtime_ns) != self._last_poll:
                self._last_poll, self._since = polled, now
        if now - self._since <= LEASE_SECONDS:
            return True
        self.end()
        return False

    def poll(self, shown: int) -> dict[str, Any]:
        """Wait for steps that the caller has not shown yet, for a while; `outcome` is there once it has ended."""
        clock = self.context.clock
        deadline = clock.monotonic() + POLL_SECONDS
        while True:
            running = not self.context.systemd.state(f"{self.unit}.service").down
            if running:
                os.utime(self.polled)
            steps = self.steps.read_text(encoding="utf-8").splitlines()
            if not running or len(steps) > shown or clock.monotonic() > deadline:
                break
            clock.sleep(0.3)
        state = {"new": steps[shown:], "running": running, "outcome": self.output.read_text(encoding="utf-8")}
        if not running:
            self.end()
        return state
