"""Drain: a slot that gets no new connections is stopped once nobody is connected to it any more."""

from __future__ import annotations

from .context import Context
from .cutover import take_back
from .gate import POLL_SECONDS
from .slots import keep_settings


def drain(context: Context, slot: str) -> None:
    """Wait until nobody is connected to a slot any more, at most `drain_timeout` seconds."""
    clock = context.clock
    began = clock.monotonic()
    while (open_now := context.connections(slot)) and clock.monotonic() - began < context.config.drain_timeout:
        clock.sleep(POLL_SECONDS)
    report_drained(context, slot, open_now, clock.monotonic() - began)


def report_drained(context: Context, slot: str, open_now: int, waited: float) -> None:
    """Report how a drain ended: after so many seconds, with so many connections open."""
    if open_now:
        still = f"{open_now} connections still open in the {slot} slot"
        context.report(f"{still} after {waited:.0f} s (service_drain_timeout): closing")
    else:
        context.report(f"the {slot} slot is drained after {waited:.1f} s")


def retire(context: Context, slot: str, wait: bool) -> None:
    """Stop the slot that was live before. It serves nobody, so only who needs its memory waits for its end."""
    keep_settings(context.config, slot)
    take_back(context, slot, wait)
