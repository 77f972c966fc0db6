"""Two sets of workers side by side, where memory may hold only part of the second."""

from __future__ import annotations

from ..workers.engines import DEFAULT, Engine
from .config import HostError
from .context import Context

#: How long a server is given to add a worker before it is asked once more.
ASK_SECONDS = 10.0


class Overlap:
    """The memory of both slots, measured; decides how many workers the new one may have at a moment.

    The limit is what the plan has: the memory of the host, or of its control group, less the reserve. All figures are
    MiB of PSS.
    """

    def __init__(self, context: Context, old: str | None, new: str) -> None:
        self.context, self.config, self.old, self.new = context, context.config, old, new
        self.limit = self.config.plan.limit_mib
        sizes = [context.kernel.memory_mib(pid) for slot in (old, new) for pid in context.pids(slot)]
        #: What one more worker takes: what a live one does, which has served for a while, or one of the new release's
        #: that is up already, where that is more; 0 where nothing is known.
        self.each = max(sizes, default=0.0)
        self._asked, self._patience = 0, 0.0
        #: Those of the old workers of which one was asked to end.
        self._leaving: set[int] = set()

    def used(self) -> float:
        """Return what both slots take now, their main processes included.

        A worker of the new slot counts for what it will take: one that was just started has not imported the app yet.
        """
        kernel, total = self.context.kernel, 0.0
        for slot, least in ((self.old, 0.0), (self.new, self.each)):
            if slot and (main_pid := (state := self.context.state(slot)).main_pid):
                pids = self.context.workers(slot, state)
                total += sum(max(least, kernel.memory_mib(pid)) for pid in pids)
                total += kernel.memory_mib(main_pid) * (main_pid not in pids)
        return total

    def room(self) -> float:
        """Return how much more the slots may take: below the plan's limit, and of what the host has left now."""
        return min(self.limit - self.used(), self.context.kernel.available_mib())

    def first(self, workers: int, engine: Engine = DEFAULT, going_back: bool = False) -> int:
        """Return how many of its workers the new slot may start with; HostError where not even one fits.

        A rollback always starts at least the fewest.
        """
        least = min(workers, engine.least_workers)
        if not self.each or self.limit <= 0:
            return workers
        # The new main process has in it what its workers will share: while there are few, that is nearly all its own.
        main_pid = self.context.state(self.old).main_pid if self.old else 0
        fits = int((self.room() - self.context.kernel.anonymous_mib(main_pid)) // self.each)
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
        pids = self.context.pids(self.new)
        now = len(pids)
        if now >= workers:
            return True
        if self.old is None:
            # What the old release took, one that leaks for instance, says nothing any more.
            self.each = max(map(self.context.kernel.memory_mib, pids), default=self.each)
        if now < self._asked and self.context.clock.monotonic() < self._patience:
            return False  # the server has not done yet what it was asked for
        if self.room() >= self.each:
            self._asked, self._patience = now + 1, self.context.clock.monotonic() + ASK_SECONDS
            self.context.systemd.resize(self.config.service(self.new), +1)
        elif self.old:
            self._shrink(self.old)
        return False

    def _shrink(self, slot: str) -> None:
        """Have the old slot end one worker, if that is idle.

        Whether a worker that may be the one to end is idle can be seen. One that takes its time to end is waited for:
        asked again, the server would end the next one as well, be it idle or not.
        """
        workers = self.context.kernel.oldest_first(self.context.pids(slot))
        leaving = self.config.engine_of(slot).may_end(workers)
        alone, waiting = len(workers) <= 1, self._leaving and self._leaving <= set(workers)
        if alone or waiting:
            return
        if all(self.context.kernel.is_idle(pid, self.config.socket(slot)) for pid in leaving):
            self._leaving = leaving
            self.context.systemd.resize(self.config.service(slot), -1)
