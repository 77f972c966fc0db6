"""How many workers a release gets, by what one of them takes: settled before it has traffic.

Before it boots: as many as memory holds beside the live ones, which make room first where they have grown. Behind the
gate: its workers are measured, and where they take more than the plan counted with, there will be fewer of them.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

from ..workers.engines import engine
from ..workers.plan import count, cut_sum, replan
from . import recycle
from .config import HostError
from .context import Context
from .gate import POLL_SECONDS, GateError, prove
from .overlap import Overlap
from .slots import SlotSettings, start_with_all, with_number
from .systemd import SystemdError

#: A live worker that takes so many times what a fresh one does is replaced by a fresh one, to make room.
GROWN = 1.5


class CrowdedError(Exception):
    """The live slot has not made room: nothing was seen of the new release, which has not been started."""


class Sizing:
    """The number of workers of one switch. `old` is the slot that serves, None before the first release."""

    def __init__(self, context: Context, settings: SlotSettings, old: str | None, going_back: bool) -> None:
        self.context, self.config = context, context.config
        self.settings, self.record, self.old, self.going_back = settings, settings.record, old, going_back
        self.overlap = Overlap(context, old, self.record.slot)
        self.server = engine(self.record.engine)
        self.least = min(self.record.plan.workers, self.server.least_workers)
        #: Whether the live slot has to make room before anything can start.
        self.crowded = False

    def first(self) -> int:
        """Return how many workers start; HostError where the fewest would not fit, whatever the live slot gives up.

        Where nothing is known of what one takes, the fewest: all at once might be more than there is.
        """
        overlap, plan, workers = self.overlap, self.record.plan, self.record.plan.workers
        if not self.settings.number_is_data:
            return workers
        if not overlap.each:
            known = (
                not plan.is_by_rule
                or plan.inputs.get("worker_mib") != "auto"
                or plan.measured_mib
                or plan.inputs.get("fresh_mib")
            )
            return workers if known or self.going_back else self.least
        if self.old and not self.going_back and overlap.limit > 0 and overlap.fits() < self.least:
            given_up = self._can_give_up(self.old)
            if overlap.fits(given_up) < self.least:
                raise HostError(overlap.refusal(self.least, self.server, given_up))
            self.crowded = True
            return self.least
        return overlap.first(workers, self.server, self.going_back)

    def _can_give_up(self, old: str) -> float:
        """Return how many MiB a slot can do without, down to its fewest workers, those as large as fresh ones."""
        kernel = self.context.kernel
        sizes = [kernel.memory_mib(pid) for pid in kernel.oldest_first(self.context.pids(old))]
        stay = sizes[-self.overlap.fewest(old) :]
        if self._can_replace(old):
            stay = [self.overlap.each if self._has_grown(size) else size for size in stay]
        return max(0.0, sum(sizes) - sum(stay))

    def _can_replace(self, slot: str) -> bool:
        """Return whether a slot's workers can leave without losing a request, for a fresh one that takes the place."""
        try:
            return recycle.WORKER_CLASS in self.config.slot_files(slot)["service"].read_bytes()
        except FileNotFoundError:
            return False  # somebody removed it: what the workers were started with is not known

    def _has_grown(self, size: float) -> bool:
        return size > GROWN * self.overlap.each

    def make_room(self) -> None:
        """Have an overfull live slot give up memory until the fewest new workers fit; CrowdedError where it does not.

        First its workers that have grown are replaced, one at a time, the largest first, which loses nothing. Where
        they cannot be, or take too much even when fresh, idle ones are ended.
        """
        if not self.crowded or not self.old:
            return
        try:
            self._make_room(self.old)
        except (GateError, SystemdError, OSError) as error:
            raise CrowdedError(f"the live {self.old} slot was to make room for a new worker, but {error}") from error

    def _make_room(self, old: str) -> None:
        """See make_room. Raises GateError, SystemdError and OSError."""
        clock, limit = self.context.clock, self.config.boot_timeout + self.config.drain_timeout
        deadline = clock.monotonic() + limit
        self.context.report(f"memory is full: the {old} slot makes room first")
        while self.overlap.fits() < self.least:
            if clock.monotonic() > deadline:
                raise GateError(f"it has not within {limit:g} s: {self._why_not(old)}")
            grown = [pid for pid in self.context.pids(old) if self._has_grown(self.context.kernel.memory_mib(pid))]
            if grown and self._can_replace(old):
                self._replace(old, max(grown, key=self.context.kernel.memory_mib))
            else:
                self.overlap.shrink(old)
            clock.sleep(POLL_SECONDS)

    def _why_not(self, old: str) -> str:
        """Say what its workers do at this moment."""
        pids, socket = self.context.pids(old), self.config.socket(old)
        busy = sum(not self.context.kernel.is_idle(pid, socket) for pid in pids)
        if busy:
            return (
                f"{busy} of {count(len(pids))} have clients (long requests, streams, WebSockets). Deploy when fewer "
                "are connected"
            )
        return f"{count(len(pids))}, none with clients, {'takes' if len(pids) == 1 else 'take'} what is missing"

    def _replace(self, slot: str, pid: int) -> None:
        """Have a worker leave, and wait until a fresh one has answered in its place."""
        workers, state = len(self.context.pids(slot)), self.context.state(slot)
        self.context.report(f"worker {pid} with {self.context.kernel.memory_mib(pid):.0f} MiB leaves, for a fresh one")
        with contextlib.suppress(ProcessLookupError):
            self.context.kernel.kill(pid, recycle.RETIRE)
        recycle.wait_until_gone(self.context, pid)
        prove(self.context, slot, workers, state.restarts)

    def settle(self) -> SlotSettings:
        """Measure the workers that have passed the gate, and bring the slot to the number that follows; return it.

        Beside a slot that serves, it does not grow before the traffic has moved. GateError where one more does not
        prove itself.
        """
        record, slot = self.record, self.record.slot
        mib = math.ceil(max(self.overlap.sizes(slot), default=0.0))
        if self.going_back or not self.settings.number_is_data:
            return with_number(self.config, self.settings, replace(record, fresh_mib=mib))
        plan, planned = replan(record.plan, mib), record.plan.workers
        if planned < min(plan.workers, self.server.least_workers):
            plan = record.plan  # from so few, this engine cannot grow: the next deploy plans with what was measured
        number = max(plan.workers, self.least)
        if number < planned:
            self.context.report(f"{cut_sum(record.plan, mib)}: {number} instead of {planned} workers")
        elif number > planned:
            self.context.report(f"a worker takes {mib} MiB, less than those before: {number} workers, not {planned}")
        elif not plan.is_by_rule and number * mib > plan.limit_mib > 0:
            self.context.report(f"note: {cut_sum(plan, mib)}; service_workers asks for all of them")
        self.overlap.each = float(mib)
        if (held := self._resize(slot, number)) < number:
            reason = f"{count(held)}: memory has held no more when they started (without that: {plan.reason})"
            plan = replace(plan, bound_by="memory", reason=reason)
        plan = replace(plan, workers=held)
        return with_number(self.config, self.settings, replace(record, plan=plan, fresh_mib=mib))

    def _resize(self, slot: str, number: int) -> int:
        """Bring a slot without traffic to a number of workers that have answered; return what memory has held of it."""
        first = running = len(self.context.pids(slot))
        deadline = self.context.clock.monotonic() + self.config.boot_timeout
        while running > number or (running < number and not self.old):
            if self.context.clock.monotonic() > deadline:
                break
            if running > number:
                self.overlap.shrink(slot)
            elif self.overlap.room() < self.overlap.each:
                left, one = self.overlap.room(), self.overlap.each
                self.context.report(f"{running} of {number} workers: {left:.0f} MiB are left, one more takes {one:.0f}")
                number = running
                break
            else:
                self.overlap.grow(number)
            self.context.clock.sleep(POLL_SECONDS)
            running = len(self.context.pids(slot))
        if running != first:
            self.context.report(prove(self.context, slot, number))
            start_with_all(self.context, slot, number)
        return number

    def give_back(self) -> None:
        """Give a slot that serves on the workers that it has given up."""
        if self.crowded and self.old:
            grow_to(self.context, None, self.old, self.config.live_record().plan.workers)


def grow_to(context: Context, old: str | None, new: str, workers: int) -> None:
    """Bring a slot to its full number of workers, as far as memory and the boot timeout allow.

    What fails here is told: with fewer workers the slot serves, and the switch has to be ended in any case.
    """
    clock = context.clock
    deadline = clock.monotonic() + context.config.boot_timeout
    try:
        overlap = Overlap(context, old, new)
        while not overlap.grow(workers) and clock.monotonic() < deadline:
            clock.sleep(POLL_SECONDS)
    except (SystemdError, OSError) as error:
        context.report(f"note: the {new} slot may run fewer than its {count(workers)}: {error}")
    start_with_all(context, new, workers)
