"""What follows when traffic has moved: watch the new slot, drain and stop the old one, grow to the full number.

The same code finishes a switch that was cut off, at any step: by a kill, a lost controller, a power cut.
"""

from __future__ import annotations

from dataclasses import replace

from . import history
from .config import HostError, other
from .context import Context
from .cutover import ACTIVATE, ROLLBACK
from .drain import report_drained, retire
from .gate import POLL_SECONDS
from .hooks import HookError, run_hook
from .journal import WATCHING, Transaction
from .overlap import Overlap
from .preflight import check_release
from .records import SlotRecord
from .rollback import roll_back
from .slots import start_with_all
from .watch import UNCOUNTED, Watch

#: A release that is gone back to has served before, and who goes back is in a hurry.
BACK_SECONDS = 3.0


def finish(context: Context, transaction: Transaction) -> SlotRecord:
    """Finish a switch whose link has moved; return the live slot's record.

    The old slot stays up until nobody is connected to it (at most `drain_timeout` seconds) and the watch is over, so
    that going back is one rename. Where memory does not hold both, it is stopped as soon as it is drained.
    Raises WentBackError.
    """
    context = replace(context, config=context.config.of(transaction.to_slot))
    transaction.write(context.config, WATCHING)
    handover = _Handover(context, transaction)
    while not handover.step():
        context.clock.sleep(POLL_SECONDS)
    new, workers = transaction.to_slot, handover.workers
    if not handover.grown:
        running = len(context.pids(new))
        context.report(f"note: only {running} of {workers} workers run: memory holds no more")
    start_with_all(context, new, workers)
    record = context.config.record_of(new)
    _mark(context, transaction)
    _run_hook_after(context, transaction)
    transaction.end(context, history.SWITCHED)
    context.report(f"done in {transaction.seconds(context):.1f} s")
    return record


class _Handover:
    """Both slots, from the moment that traffic has moved until the old one is stopped and the new one has all workers.

    `old` is None once it is stopped, and where there was none.
    """

    def __init__(self, context: Context, transaction: Transaction) -> None:
        self.context, self.config, self.transaction = context, context.config, transaction
        self.old, new = transaction.from_slot, transaction.to_slot
        self.workers = self.config.workers_of(new)
        self.overlap = Overlap(context, self.old, new)
        self.watch = Watch(context, new, context.clock.time()) if self.old else None
        hurry = transaction.verb != ACTIVATE
        self.watch_seconds = min(self.config.watch_seconds, BACK_SECONDS) if hurry else self.config.watch_seconds
        self.began = context.clock.monotonic()
        self.grown = len(context.pids(new)) >= self.workers

    def step(self) -> bool:
        """Look at both slots once, and do what is due; return whether nothing is left to do. Raises WentBackError."""
        waited = self.context.clock.monotonic() - self.began
        watched = self.watch is None or (waited >= self.watch_seconds and self.watch.is_stable)
        if self.watch and (self.old or not watched) and (trouble := self.watch.trouble()):
            if not trouble.startswith(UNCOUNTED) or self.transaction.verb == ACTIVATE:
                roll_back(self.context, self.transaction, trouble)
            self.watch.count_no_more(trouble)
        self.grown = self.grown or self.overlap.grow(self.workers)
        # Where the new slot cannot grow beside it, the old one does not stay for the watch.
        if self.old and (watched or not self.grown):
            self._drain(self.old, waited)
        late = waited >= self.config.drain_timeout + self.config.boot_timeout
        return not self.old and watched and (self.grown or late)

    def _drain(self, old: str, waited: float) -> None:
        """Stop the old slot, where nobody is connected to it any more or the time for that is over."""
        open_now = self.context.connections(old)
        if not open_now or waited >= self.config.drain_timeout:
            report_drained(self.context, old, open_now, waited)
            retire(self.context, old, wait=not self.grown)
            self.old = self.overlap.old = None


def _mark(context: Context, transaction: Transaction) -> None:
    """Mark the release bad that somebody went back from, and the live one good.

    One that serves on as it was, as after a restart, may have been marked for other settings: that stays.
    """
    config = context.config
    slots = filter(None, (transaction.from_slot, transaction.to_slot))
    served = [(record.release, record.fingerprint) for record in map(config.record_of, slots)]
    if transaction.verb == ROLLBACK and transaction.from_release not in ("", transaction.release):
        fingerprint = config.record_of(other(transaction.to_slot)).fingerprint
        reason = f"{transaction.by} went back from it to {transaction.release}"
        history.mark_bad(config, transaction.from_release, reason, fingerprint)
    if len(set(served)) == len(served):
        history.unmark(config, transaction.release)


def _run_hook_after(context: Context, transaction: Transaction) -> None:
    """Run the hook for what follows a switch; it cannot undo that."""
    try:
        manifest = check_release(context.config, transaction.release) if context.config.hook_after else {}
        run_hook(context, "after", transaction.to_slot, transaction.release, manifest)
    except (HookError, HostError) as error:
        context.report(f"note: the release is live, but {error}")
