"""Two sets of workers side by side, where memory may hold only part of the second."""

from __future__ import annotations

import math

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
        #: What one more worker takes, which is what a fresh one does: those that serve may have grown to many times of
        #: that, and are the very ones to be replaced. 0 where nothing is known.
        usual = self._recorded(old) or min(self.sizes(old), default=0.0)
        self.each = self._recorded(new) or max([usual, *self.sizes(new)])
        self._asked, self._patience = 0, 0.0
        #: Those of the old workers of which one was asked to end.
        self._leaving: set[int] = set()

    def _recorded(self, slot: str | None) -> float:
        """Return what the live slot's workers took before they served anybody; 0 where nobody knows."""
        return float(self.config.live_record().fresh_mib) if slot and slot == self.config.live_slot() else 0.0

    def sizes(self, slot: str | None) -> list[float]:
        """Return what the workers of a slot take now, each."""
        return [self.context.kernel.memory_mib(pid) for pid in self.context.pids(slot)]

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
        fits = self.fits()
        if fits < least and not going_back:
            raise HostError(self.refusal(least, engine))
        return min(workers, max(fits, least))

    def fits(self, given_up: float = 0.0) -> int:
        """Return how many new workers may start now, or once the old ones have given up so much."""
        return int((self.room() + given_up - self._main_mib()) // self.each)

    def _main_mib(self) -> float:
        """Return what the new main process will take for itself.

        It has in it what its workers will share: while there are few, that is nearly all its own.
        """
        main_pid = self.context.state(self.old).main_pid if self.old else 0
        return self.context.kernel.anonymous_mib(main_pid)

    def refusal(self, least: int, engine: Engine = DEFAULT, given_up: float = 0.0) -> str:
        """Say that not even the fewest workers fit, once the old ones have given up so much, and what would do."""
        few = "one new worker" if least == 1 else f"{least} new workers (from fewer, {engine.name} cannot grow)"
        left, free = self.limit - self.used(), self.context.kernel.available_mib()
        beside = f"beside the fewest live ones ({given_up:.0f} MiB given up)" if given_up else "beside the live ones"
        main = self._main_mib()
        alone = f" and its main process {main:.0f}" if main >= 1 else ""
        advice = self._remedy(*(least * self.each + main - given_up - there for there in (left, free)))
        return (
            f"memory does not hold even {few} {beside}: {max(0.0, min(left, free) + given_up):.0f} MiB are left, one "
            f"takes {self.each:.0f}{alone}. Nothing was changed. {advice}"
        )

    def _remedy(self, below_limit: float, below_free: float) -> str:
        """Say what would be enough where so many MiB are missing, below the plan's limit and of what is free now."""
        inputs = self.config.plan.inputs
        reserve, memory = float(inputs.get("reserve_mib", 0)), float(inputs.get("memory_mib", 0))
        limit, more = float(inputs.get("memory_limit_mib") or memory), math.ceil(max(below_limit, below_free))
        if below_limit <= 0:
            return (
                f"Other programs of the host take the rest: end some that take {more} MiB, or use a host with {more} "
                "MiB more"
            )
        if limit >= memory:
            advice = f"use a host with {more} MiB more"
        elif below_free <= 0:
            advice = f"raise the memory limit of its control group ({limit:g} MiB now) by {more}"
        else:
            advice = (
                f"use a host with {more} MiB more, and raise the limit of its control group ({limit:g} MiB) by as many"
            )
        if below_free <= 0 and below_limit <= reserve:
            lower = math.floor(reserve - below_limit)
            return f"Lower service_reserve_memory_mib ({reserve:g} now) to {lower} or less, or {advice}"
        return f"{advice[0].upper()}{advice[1:]}"

    def grow(self, workers: int) -> bool:
        """Bring the new slot one step nearer to its number; return whether it has it.

        Where there is no room, the old slot gives up one worker, but never one that still serves somebody: traffic has
        moved, so a worker that is idle now stays so.
        """
        now = len(self.context.pids(self.new))
        if now >= workers:
            return True
        if self.old is None:
            # What the old release took says nothing any more.
            self.each = self._recorded(self.new) or max(self.sizes(self.new), default=self.each)
        if now < self._asked and self.context.clock.monotonic() < self._patience:
            return False  # the server has not done yet what it was asked for
        if self.room() >= self.each:
            self._asked, self._patience = now + 1, self.context.clock.monotonic() + ASK_SECONDS
            self.context.systemd.resize(self.config.service(self.new), +1)
        elif self.old:
            self.shrink(self.old)
        return False

    def shrink(self, slot: str) -> None:
        """Have a slot end one worker, if that is idle, and never one of the fewest.

        Whether a worker that may be the one to end is idle can be seen. One that takes its time to end is waited for:
        asked again, the server would end the next one as well, be it idle or not.
        """
        workers = self.context.kernel.oldest_first(self.context.pids(slot))
        leaving = self.config.engine_of(slot).may_end(workers)
        alone, waiting = len(workers) <= self.fewest(slot), self._leaving and self._leaving <= set(workers)
        if alone or waiting:
            return
        if all(self.context.kernel.is_idle(pid, self.config.socket(slot)) for pid in leaving):
            self._leaving = leaving
            self.context.systemd.resize(self.config.service(slot), -1)

    def fewest(self, slot: str) -> int:
        """Return how many workers a slot keeps in any case."""
        return 1 if slot != self.config.live_slot() else self.config.engine_of(slot).least_workers
