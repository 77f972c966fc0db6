"""What follows when traffic has moved: watch the new slot while the old one drains, stop the old one, or go back.

The same code finishes a switch that was cut off, at any step: by a kill, a lost controller, a power cut.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

from . import history
from .config import Config, HostError, other
from .files import link_atomically
from .gate import POLL_SECONDS, GateError, burst, wait_until_proven
from .hooks import HookError, run_hook, unit
from .overlap import Overlap
from .preflight import check_release
from .switch import ACTIVATE, ROLLBACK, RefusedError, Say, Transaction, keep_settings, set_workers, take_back
from .systemd import Systemd, SystemdError
from .watch import Watch
from .workers import connections

#: A release that is gone back to has served before, and who goes back is in a hurry.
BACK_SECONDS = 3.0


class WentBackError(RefusedError):
    """The release had traffic and was not well; the one before it serves again."""

    outcome = history.WENT_BACK


class StaysError(RefusedError):
    """The release had traffic and is not well, and there is none to go back to, so it stays."""

    outcome = history.STAYS


def settle(config: Config, systemd: Systemd, transaction: Transaction, say: Say) -> dict[str, Any]:
    """Finish a switch whose link has moved; return the live slot's record.

    The old slot stays up until nobody is connected to it (at most `drain_timeout` seconds) and the watch is over, so
    that going back is one rename. Where memory does not hold both, it is stopped as soon as it is drained.
    Raises WentBackError.
    """
    transaction.write(config, "watching")
    old, new = transaction.from_slot, transaction.to_slot
    record = config.record_of(new)
    workers = config.workers_of(new)
    overlap = Overlap(config, systemd, old, new)
    watch = Watch(config, systemd, new, time.time()) if old else None
    watch_seconds = config.watch_seconds if transaction.verb == ACTIVATE else min(config.watch_seconds, BACK_SECONDS)
    began = time.monotonic()
    grown = len(overlap.pids(new)) >= workers
    while True:
        waited = time.monotonic() - began
        watched = watch is None or (waited >= watch_seconds and watch.calm)
        if watch and (not watched or old) and (trouble := watch.trouble()):
            go_back(config, systemd, transaction, trouble, say)
        grown = grown or overlap.grow(workers)
        open_now = connections(config.socket(old)) if old else 0
        if old and (not open_now or waited >= config.drain_timeout) and (watched or not grown):
            _say_drained(old, open_now, waited, say)
            _retire(config, systemd, old, say, wait=not grown)
            old = overlap.old = None
        if not old and watched and (grown or waited >= config.drain_timeout + config.boot_timeout):
            break
        time.sleep(POLL_SECONDS)
    if not grown:
        say(f"note: only {len(overlap.pids(new))} of {workers} workers run: memory holds no more")
    set_workers(config, new, workers, say)
    _finish(config, systemd, transaction, say)
    return record


def _finish(config: Config, systemd: Systemd, transaction: Transaction, say: Say) -> None:
    """Mark, write down and tell that the switch is done."""
    if transaction.verb == ROLLBACK and transaction.from_release not in ("", transaction.release):
        fingerprint = config.record_of(other(transaction.to_slot)).get("fingerprint", "")
        reason = f"{transaction.by} went back from it to {transaction.release}"
        history.mark_bad(config, transaction.from_release, reason, str(fingerprint))
    history.unmark(config, transaction.release)
    try:
        manifest = check_release(config, transaction.release) if config.hook_after else {}
        run_hook(
            config, systemd, "service_hook_after", config.hook_after, transaction.to_slot, transaction.release, manifest
        )
    except (HookError, HostError) as error:
        say(f"note: the release is live, but {error}")
    transaction.end(config, history.SWITCHED)
    say(f"done in {max(0.0, time.time() - transaction.began):.1f} s")


def go_back(config: Config, systemd: Systemd, transaction: Transaction, trouble: str, say: Say) -> None:
    """Give the traffic back to the old slot, mark the release bad, raise WentBackError.

    Where the old slot cannot be brought back either, the new one stays: StaysError.
    """
    old, new = transaction.from_slot, transaction.to_slot
    log = systemd.journal(config.service(new), transaction.cursor)
    transaction.trouble = trouble
    transaction.write(config, "going back")
    say(f"going back: {trouble}")
    if old is None:
        _stay(config, systemd, transaction, f"{trouble}; there is no release to go back to, so it stays live", log, say)
    try:
        _bring_up(config, systemd, old)
    except (GateError, SystemdError, OSError) as error:
        before = f"release {transaction.from_release} does not start either ({error})"
        take_back(config, systemd, old, say)
        _stay(config, systemd, transaction, f"{trouble}; {before}, so the new one stays live", log, say)
    systemd.enable(config.service(old))
    link_atomically(config.live_link, config.socket(old))
    say(f"traffic goes to the {old} slot again")
    finish_going_back(config, systemd, transaction, say)
    raise WentBackError(trouble, log)


def _stay(
    config: Config, systemd: Systemd, transaction: Transaction, message: str, log: list[str], say: Say
) -> NoReturn:
    """Leave the new release live, with all its workers; StaysError."""
    new = transaction.to_slot
    workers = config.workers_of(new)
    _grow(config, Overlap(config, systemd, None, new), workers)
    set_workers(config, new, workers, say)
    transaction.end(config, history.STAYS, message)
    raise StaysError(message, log)


def _grow(config: Config, overlap: Overlap, workers: int) -> None:
    deadline = time.monotonic() + config.boot_timeout
    while not overlap.grow(workers) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def finish_going_back(config: Config, systemd: Systemd, transaction: Transaction, say: Say) -> None:
    """Mark the release bad and stop its slot, once those that it still serves are done."""
    old, new = str(transaction.from_slot), transaction.to_slot
    fingerprint = str(config.record_of(new).get("fingerprint", ""))
    history.mark_bad(config, transaction.release, transaction.trouble, fingerprint)
    _drain(config, new, say)
    take_back(config, systemd, new, say)
    workers = int(config.live_record().get("workers", 0))
    _grow(config, Overlap(config, systemd, new, old), workers)
    set_workers(config, old, workers, say)
    transaction.end(config, history.WENT_BACK, transaction.trouble)


def recover(config: Config, systemd: Systemd, say: Say) -> None:
    """Finish or take back a switch that was cut off; nothing to do where none was.

    The link decides: it moves only to a slot that has proved itself, so a switch is finished once it has moved, and
    taken back before. Raises WentBackError or RefusedError like the switch itself would.
    """
    transaction = Transaction.read(config)
    if transaction is None:
        return
    new, release = transaction.to_slot, transaction.release
    systemd.stop(unit(config))
    moved = config.live_slot() == new
    if transaction.step == "going back":
        say(f"going back from release {release} was cut off: finishing it")
        if moved:
            go_back(config, systemd, transaction, transaction.trouble, say)
        finish_going_back(config, systemd, transaction, say)
        return
    if not moved:
        say(f"the switch to release {release} was cut off before traffic moved: taking it back")
        take_back(config, systemd, new, say)
        transaction.end(config, "interrupted", "cut off before traffic moved, taken back")
        return
    say(f"the switch to release {release} was cut off after traffic had moved: finishing it")
    systemd.enable(config.service(new))
    try:
        # After a reboot it may still be starting.
        say(wait_until_proven(config, systemd, new, 0, systemd.state(config.service(new)).restarts))
    except GateError as error:
        go_back(config, systemd, transaction, str(error), say)
    settle(config, systemd, transaction, say)


def _bring_up(config: Config, systemd: Systemd, slot: str) -> None:
    """Have a slot that was live before answer again: it still runs, or is started and proved."""
    if not systemd.state(config.service(slot)).down and burst(config, slot, [], 1).good:
        return
    systemd.start(config.socket_unit(slot), config.service(slot))
    workers = int(config.record_of(slot).get("workers", 0))
    wait_until_proven(config, systemd, slot, workers, systemd.state(config.service(slot)).restarts)


def _drain(config: Config, slot: str, say: Say) -> None:
    """Wait until nobody is connected to a slot any more, at most `drain_timeout` seconds."""
    began = time.monotonic()
    while (open_now := connections(config.socket(slot))) and time.monotonic() - began < config.drain_timeout:
        time.sleep(POLL_SECONDS)
    _say_drained(slot, open_now, time.monotonic() - began, say)


def _say_drained(slot: str, open_now: int, waited: float, say: Say) -> None:
    if open_now:
        still = f"{open_now} connections still open in the {slot} slot"
        say(f"{still} after {waited:.0f} s (service_drain_timeout): closing")
    else:
        say(f"the {slot} slot is drained after {waited:.1f} s")


def _retire(config: Config, systemd: Systemd, slot: str, say: Say, wait: bool) -> None:
    """Stop the slot that was live before. It serves nobody, so only who needs its memory waits for its end."""
    keep_settings(config, slot)
    take_back(config, systemd, slot, say, wait)
