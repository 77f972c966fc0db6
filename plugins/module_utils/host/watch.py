"""Whether a release that has traffic is well: its unit, its workers, its health, and what nginx saw of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from .context import Context
from .endings import how_it_fell
from .gate import burst

#: Health is asked for about this often, and this many bad answers in a row are too many.
PROBE_SECONDS, BAD_PROBES = 1.0, 3
#: A probe waits no longer than this, so that a release that hangs is seen in some seconds.
PROBE_LIMIT = 3.0
#: Fewer errors than this show nothing.
LEAST_ERRORS = 3
#: How much of nginx's notes from before the switch is compared with, in bytes and seconds.
BEFORE_BYTES, BEFORE_SECONDS = 256 << 10, 120.0


@dataclass
class Count:
    """Requests that reached the app, and those of them that ended in a server error."""

    requests: int = 0
    errors: int = 0

    def add(self, status: int) -> None:
        """Count one answer."""
        self.requests += 1
        self.errors += status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def percent(self) -> float:
        """How many of 100 were errors."""
        return 100 * self.errors / self.requests if self.requests else 0.0


@dataclass
class ProxyLog:
    """What nginx notes of each request: `MSEC SECONDS STATUS`.

    That is when it ended, how long it took, and the status that the app gave (502 or 504 by nginx where it gave none,
    `-` where it was not asked).

    A request belongs to the new release when it began after the switch: one that began before was the old one's.
    """

    path: Path
    switched: float
    before: Count = field(default_factory=Count)
    after: Count = field(default_factory=Count)
    _inode: int = 0
    _offset: int = 0
    _rest: bytes = b""

    def __post_init__(self) -> None:
        """Read what stands there already: what was usual before the switch."""
        try:
            status = self.path.stat()
        except OSError:
            return
        self._inode, self._offset = status.st_ino, max(0, status.st_size - BEFORE_BYTES)

    def read(self) -> None:
        """Count what has been added since. nginx may have begun a new file meanwhile (logrotate)."""
        try:
            with self.path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                stream.seek(self._offset)
                data = self._rest + stream.read()
                self._offset = stream.tell()
        except OSError:
            return
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            self._count(line)

    def _count(self, line: bytes) -> None:
        try:
            ended, seconds, *statuses = line.split()
            # nginx may have asked twice ("502, 200"): the last one is what the client got.
            began, code = float(ended) - float(seconds), int(statuses[-1])
        except (ValueError, IndexError):
            return
        if began >= self.switched:
            self.after.add(code)
        elif began >= self.switched - BEFORE_SECONDS:
            self.before.add(code)


class Watch:
    """Watches the live slot for some time after a switch."""

    def __init__(self, context: Context, slot: str, switched: float) -> None:
        self.context, self.config, self.slot = context, context.config, slot
        config = self.config
        self.log = ProxyLog(Path(config.proxy_log), switched) if config.proxy_log else None
        state = context.state(slot)
        self._restarts = state.restarts
        self._seen = set(context.workers(slot, state))
        self._workers = config.workers_of(slot)
        self._died = 0
        self._bad = 0
        self._next_probe = context.clock.monotonic()

    def trouble(self) -> str:
        """Probe once; return what is wrong, "" where nothing is. Costs one request a second."""
        return self._unit() or self._health() or self._proxy()

    @property
    def is_stable(self) -> bool:
        """Whether the last answer was good: a watch does not end while something begins to go wrong."""
        return self._bad == 0

    def _unit(self) -> str:
        unit = self.config.service(self.slot)
        state = self.context.state(self.slot)
        if state.down or state.restarts > self._restarts:
            return f"{unit} failed: it {how_it_fell(state, self._restarts, state.down)}"
        now = set(self.context.workers(self.slot, state))
        self._died += len(self._seen - now)
        self._seen = now
        if 2 * self._died > self._workers:
            return f"{self._died} workers of {self._workers} died"
        return ""

    def _health(self) -> str:
        if self.context.clock.monotonic() < self._next_probe:
            return ""
        self._next_probe = self.context.clock.monotonic() + PROBE_SECONDS
        answers = burst(self.context, self.slot, [], 1, PROBE_LIMIT)
        self._bad = 0 if answers.good else self._bad + 1
        if self._bad < BAD_PROBES:
            return ""
        reason = answers.error or f"it answers {answers.statuses[0]}"
        return f"{self.config.health_path} failed {self._bad} times in a row: {reason}"

    def _proxy(self) -> str:
        if self.log is None:
            return ""
        self.log.read()
        after, before = self.log.after, self.log.before
        if after.errors < LEAST_ERRORS or after.percent <= before.percent + self.config.watch_errors:
            return ""
        return (
            f"{after.errors} of {after.requests} requests ended in a server error "
            f"({after.percent:.0f} %, before the switch {before.percent:.0f} %; allowed: service_watch_errors, "
            f"{self.config.watch_errors:g} % more)"
        )
