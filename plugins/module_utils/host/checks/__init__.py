"""Checks: for each state in which a host may be, one function that says whether it is, why, and what helps.

Nothing here changes anything. A check that cannot ask (a tool is missing, a file is not there) says nothing: what it
prints is a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..context import Context
from ..gate import Proof
from ..records import SlotRecord
from . import files, machine, proxy, release, units, workers
from .finding import Finding, Snapshot, by_severity

#: In the order of a request's way: the edge, the units, the workers, the code, what they run from, the machine.
CHECKS: tuple[Callable[[Snapshot], Iterator[Finding]], ...] = (
    proxy.is_down, proxy.is_not_enabled, proxy.is_refused_by_its_test, proxy.does_not_pass_on,
    units.is_down, units.restarts, units.is_stopped, units.is_disabled, units.idle_is_enabled, units.needs_reload,
    workers.do_not_match, workers.have_full_pools,
    workers.die, workers.lack_descriptors, workers.have_grown, workers.run_another_release,
    release.is_not_whole, release.has_another_python,
    files.slot_was_edited, files.settings_are_not_live, files.were_edited,
    machine.has_no_room, machine.has_a_wrong_clock, machine.does_not_recycle, machine.has_a_cut_off_switch,
)  # fmt: skip


def check(context: Context, slot: str, record: SlotRecord, proof: Proof) -> list[Finding]:
    """Return what is not as it should be on a host whose live slot is this one, the worst first."""
    context = replace(context, config=context.config.of(slot))
    shown = context.systemd.show(*units.names(context.config))
    snapshot = Snapshot(context, slot, record, proof, shown)
    return by_severity([finding for one in CHECKS for finding in one(snapshot)])


def check_without_live(context: Context) -> list[Finding]:
    """Return what is to be said of a host on which no slot gets traffic."""
    return list(release.has_no_live_link(context))
