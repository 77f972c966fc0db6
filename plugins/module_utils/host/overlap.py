"""Two sets of workers side by side, where memory may hold only part of the second."""

from __future__ import annotations

import re
import time
from pathlib import Path

from ..workers.engines import DEFAULT, Engine
from .config import Config, HostError
from .systemd import Systemd
from .workers import anonymous_mib, is_idle, memory_mib, oldest_first, worker_pids

MEMINFO = Path("/proc/meminfo")
#: How long a server is given to add a worker before it is asked once more.
ASK_SECONDS = 10.0


class Overlap:
    """The memory of both slots, measured; decides how many workers the new one may have at a moment.

    The limit is what the plan has: the memory of the host, or of its control group, less the reserve. All figures are
    MiB of PSS.
    """

    def __init__(self, config: Config, systemd: Systemd, old: str | None, new: str) -> None:
        self.config, self.systemd, self.old, self.new = config, systemd, old, new
        inputs = config.plan.get("inputs", {})
        memory = float(inputs.get("memory_mib", 0))
        self.limit = min(memory, float(inputs.get("memory_limit_mib") or memory)) - float(inputs.get("reserve_mib", 0))
        sizes = [memory_mib(pid) for slot in (old, new) if slot for pid in self.pids(slot)]
        #: What one more worker takes: what a live one does, which has served for a while, or one of the new release's
        #: that is up already, where that is more; 0 where nothing is known.
        self.each = max(sizes, default=0.0)
        self._asked, self._patience = 0, 0.0
        #: Those of the old workers of which one was asked to end.
        self._leaving: set[int] = set()

    def pids(self, slot: str) -> list[int]:
        """Return a slot's workers."""
        main_pid = self.systemd.state(self.config.service(slot)).main_pid
        return worker_pids(main_pid, self.config.engine_of(slot)) if main_pid else []

    def used(self) -> float:
        """Return what both slots take now, their main processes included.

        A worker of the new slot counts for what it will take: one that was just started has not imported the app yet.
        """
        total = 0.0
        for slot, least in ((self.old, 0.0), (self.new, self.each)):
            main_pid = self.systemd.state(self.config.service(slot)).main_pid if slot else 0
            if slot and main_pid:
                pids = worker_pids(main_pid, self.config.engine_of(slot))
                total += sum(max(least, memory_mib(pid)) for pid in pids)
                total += memory_mib(main_pid) * (main_pid not in pids)
        return total

    def room(self) -> float:
        """Return how much more the slots may take: below the plan's limit, and of what the host has left now."""
        return min(self.limit - self.used(), available_mib())

    def first(self, workers: int, engine: Engine = DEFAULT, going_back: bool = False) -> int:
        """Return how many of its workers the new slot may start with; HostError where not even one fits.

        Who goes back from a release that eats the memory starts the fewest in any case.
        """
        least = min(workers, engine.least_workers)
        if not self.each or self.limit <= 0:
            return workers
        # The new main process has in it what its workers will share: while there are few, that is nearly all its own.
        main_pid = self.systemd.state(self.config.service(self.old)).main_pid if self.old else 0
        fits = int((self.room() - anonymous_mib(main_pid)) // self.each)
        if fits < least and not going_back:
            few = "one new worker" if least == 1 else f"{least} new workers (from fewer, {engine.name} cannot grow)"
            raise HostError(
                f"memory does not hold even {few} beside the live ones: {self.room():.0f} MiB are left, one "
                f"takes {self.each:.0f}. Nothing was changed. Lower service_workers or "
                "service_reserve_memory_mib, or use a larger host"
            )
        return min(workers, max(fits, least))

    def grow(self, workers: int) -> bool:
        """Bring the new slot one step nearer to its number; return whether it has it.

        Where there is no room, the old slot gives up one worker, but never one that still serves somebody: traffic has
        moved, so a worker that is idle now stays so.
        """
        pids = self.pids(self.new)
        now = len(pids)
        if now >= workers:
            return True
        if self.old is None:
            # What the old release took, one that leaks for instance, says nothing any more.
            self.each = max(map(memory_mib, pids), default=self.each)
        if now < self._asked and time.monotonic() < self._patience:
            return False  # the server has not done yet what it was asked for
        if self.room() >= self.each:
            self._asked, self._patience = now + 1, time.monotonic() + ASK_SECONDS
            self.systemd.resize(self.config.service(self.new), +1)
        elif self.old:
            # Whether a worker that may be the one to end is idle can be seen. One that takes its time to end is waited
            # for: asked again, the server would end the next one as well, be it idle or not.
            old = oldest_first(self.pids(self.old))
            leaving = self.config.engine_of(self.old).may_end(old)
            waiting = self._leaving and self._leaving <= set(old)
            if not waiting and len(old) > 1 and all(is_idle(pid, self.config.socket(self.old)) for pid in leaving):
                self._leaving = leaving
                self.systemd.resize(self.config.service(self.old), -1)
        return False


def available_mib() -> float:
    """Return what the kernel says could be had without swapping; infinite where it does not say."""
    found = re.search(r"^MemAvailable:\s+(\d+)", MEMINFO.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) / 1024 if found else float("inf")
