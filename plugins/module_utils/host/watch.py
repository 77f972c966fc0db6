"""Whether a release that has traffic is well: its unit, its workers, its health, and what nginx saw of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from statistics import median

from .context import Context
from .endings import how_it_fell
from .gate import burst
from .proxy import Entrance, entrances, read

#: Health is asked for about this often, and this many bad answers in a row are too many.
PROBE_SECONDS, BAD_PROBES = 1.0, 3
#: A probe waits no longer than this, so that a release that hangs is seen in some seconds.
PROBE_LIMIT = 3.0
#: Fewer errors than this show nothing.
LEAST_ERRORS = 3
#: Fewer good answers than this say nothing of how long they take.
LEAST_TIMES = 50
#: A median that grew by less than this is no reason to go back, in seconds: it may be a cache that is still cold.
LEAST_SLOWER = 0.05
#: nginx notes a request within half a second. One that does not show after this many is not noted at all.
NOTED_SECONDS = 5.0
#: How what is wrong begins where it is not the release's fault: nobody has counted what became of its requests.
UNCOUNTED = "nothing was counted of the release's requests"
#: How much of nginx's notes from before the switch is compared with, in bytes and seconds.
BEFORE_BYTES, BEFORE_SECONDS = 256 << 10, 120.0


@dataclass
class Count:
    """Requests that reached the app, and those of them that ended in a server error."""

    requests: int = 0
    errors: int = 0
    #: How long the good answers took, in seconds.
    times: list[float] = field(default_factory=list)

    def add(self, status: int, seconds: float = 0.0) -> None:
        """Count one answer."""
        self.requests += 1
        self.errors += status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if status < HTTPStatus.BAD_REQUEST:
            self.times.append(seconds)

    @property
    def median(self) -> float:
        """How long half of the good answers took at most, in seconds."""
        return median(self.times) if self.times else 0.0

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
            return  # told when it is read
        self._inode, self._offset = status.st_ino, max(0, status.st_size - BEFORE_BYTES)

    def read(self) -> str:
        """Count what has been added since; say why it cannot be read, "" where it can.

        nginx may have begun a new file meanwhile (logrotate).
        """
        try:
            with self.path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                stream.seek(self._offset)
                data = self._rest + stream.read()
                self._offset = stream.tell()
        except OSError as error:
            return str(error)
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            self._count(line)
        return ""

    def _count(self, line: bytes) -> None:
        try:
            ended, seconds, *statuses = line.split()
            # nginx may have asked twice ("502, 200"): the last one is what the client got.
            began, code = float(ended) - float(seconds), int(statuses[-1])
        except (ValueError, IndexError):
            return
        if began >= self.switched:
            self.after.add(code, float(seconds))
        elif began >= self.switched - BEFORE_SECONDS:
            self.before.add(code, float(seconds))


class Watch:
    """Watches the live slot for some time after a switch."""

    def __init__(self, context: Context, slot: str, switched: float) -> None:
        self.context, self.config, self.slot = context, context.config.of(slot), slot
        config = self.config
        self.log = ProxyLog(Path(config.proxy_log), switched) if config.proxy_log else None
        state = context.state(slot)
        self._restarts = state.restarts
        self._seen = set(context.workers(slot, state))
        self._workers = config.workers_of(slot)
        self._died = 0
        self._bad = 0
        self._next_probe = context.clock.monotonic()
        self._counting = _Counting(context, slot, self.log)

    def trouble(self) -> str:
        """Probe once; return what is wrong, "" where nothing is. Costs one request a second."""
        return self._unit() or self._health() or self._proxy()

    @property
    def is_stable(self) -> bool:
        """Whether a watch may end: not while something begins to go wrong, nor before anything was counted."""
        return self._bad == 0 and self._counting.is_sure

    def count_no_more(self, trouble: str) -> None:
        """Go on without what nginx notes: who goes back must not be kept from it by a full disk."""
        self.context.report(f"note: {trouble}")
        self._counting.entrance = None

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
        """Judge what nginx noted; where it notes nothing, that is the trouble."""
        if self.log is None:
            return ""
        return self._counting.trouble(self.log.read()) or self._errors(self.log) or self._times(self.log)

    def _errors(self, log: ProxyLog) -> str:
        after, before = log.after, log.before
        if after.errors < LEAST_ERRORS or after.percent <= before.percent + self.config.watch_errors:
            return ""
        return (
            f"{after.errors} of {after.requests} requests ended in a server error "
            f"({after.percent:.0f} %, before the switch {before.percent:.0f} %; allowed: service_watch_errors, "
            f"{self.config.watch_errors:g} % more)"
        )

    def _times(self, log: ProxyLog) -> str:
        """Compare how long good answers take, where there were enough of them before and after."""
        after, before, allowed = log.after, log.before, self.config.watch_latency
        if not allowed or min(len(after.times), len(before.times)) < LEAST_TIMES:
            return ""
        if after.median <= max(before.median * allowed / 100, before.median + LEAST_SLOWER):
            return ""
        return (
            f"half of {len(after.times)} answers took more than {1000 * after.median:.0f} ms, before the switch "
            f"{1000 * before.median:.0f} ms (allowed: service_watch_latency, {allowed:g} % of that)"
        )


class _Counting:
    """Whether nginx notes what becomes of requests. While nobody else asks, the watch asks through it itself."""

    def __init__(self, context: Context, slot: str, log: ProxyLog | None) -> None:
        self.context, self.config, self.slot, self.log = context, context.config.of(slot), slot, log
        places = entrances(read(self.config.proxy_file) or "") if log and self.config.watch_seconds else []
        #: None where another proxy than nginx with a file of ours is in front: nothing is noted there.
        self.entrance: Entrance | None = places[-1] if places else None
        self._next = self._since = context.clock.monotonic()
        self._answered = False
        self._refused = ""

    @property
    def is_sure(self) -> bool:
        """Whether something was counted, or cannot be expected to be."""
        return self.log is None or self.entrance is None or self.log.after.requests > 0

    def trouble(self, unreadable: str) -> str:
        """Say that nothing can be counted, once that is certain; `unreadable` is why the log cannot be read."""
        now = self.context.clock.monotonic()
        if self.is_sure or self.entrance is None or self.log is None or now < self._next:
            return ""
        self._next = now + PROBE_SECONDS
        status, error = self.context.proxy.ask(self.entrance, self.config.health_path, PROBE_LIMIT)
        self._refused = error
        # Another answer than the slot's own may be nginx's, which asked nobody: then there is nothing to note.
        self._answered = self._answered or status in burst(self.context, self.slot, [], 1, PROBE_LIMIT).statuses
        if now - self._since < NOTED_SECONDS:
            return ""
        if not (self._answered or error):
            self.entrance = None
            path = self.config.health_path
            self.context.report(f"note: nginx answers {path} with {status}, not as the app does: nothing is counted")
            return ""
        return f"{UNCOUNTED}: {self._why(unreadable)}"

    def _why(self, unreadable: str) -> str:
        path = Path(self.config.proxy_log)
        if self._refused and self.entrance:
            return f"nginx gives no answer at {self.entrance.text} ({self._refused}): systemctl status nginx"
        if unreadable:
            return f"{path} cannot be read ({unreadable}): where it is not there, nginx -s reopen makes it"
        disk = os.statvfs(path.parent)
        if not disk.f_bavail or (disk.f_files and not disk.f_favail):
            return f"the disk of {path.parent} is full: make room"
        return f"nginx answers, but does not write to {path}: nginx -s reopen has it open the file again"
