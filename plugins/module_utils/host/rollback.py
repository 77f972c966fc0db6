"""Going back while the old slot still is there: the traffic returns to it, and the new release is marked bad."""

from __future__ import annotations

from typing import NoReturn

from . import history
from .context import Context
from .cutover import RefusedError, point_link, start_slot, take_back
from .drain import drain
from .gate import GateError, burst, prove
from .journal import GOING_BACK, Transaction
from .reasons import with_last_exception
from .sizing import grow_to
from .systemd import SystemdError
from .watch import UNCOUNTED


class WentBackError(RefusedError):
    """The release was unhealthy under traffic; the one before it serves again."""

    outcome = history.WENT_BACK


class StaysError(RefusedError):
    """The release is unhealthy under traffic, and there is none to go back to, so it is kept live."""

    outcome = history.STAYS


def roll_back(context: Context, transaction: Transaction, trouble: str) -> NoReturn:
    """Give the traffic back to the old slot, mark the release bad, raise WentBackError.

    Where the old slot cannot be brought back either, the new one stays: StaysError.
    """
    config, old = context.config, transaction.from_slot
    transaction.trouble = trouble
    transaction.write(config, GOING_BACK)
    context.report(f"going back: {trouble}")
    if old is None:
        _stay(context, transaction, f"{trouble}; there is no release to go back to, so it stays live")
    try:
        _bring_up(context, old)
    except (GateError, SystemdError, OSError) as error:
        before = f"release {transaction.from_release} does not start either ({error})"
        take_back(context, old)
        _stay(context, transaction, f"{trouble}; {before}, so the new one stays live")
    point_link(context, old)
    context.report(f"traffic goes to the {old} slot again")
    # Not before the traffic is back: reading a long log takes a moment.
    log = context.systemd.journal(config.service(transaction.to_slot), transaction.cursor)
    transaction.trouble = with_last_exception(trouble, log)
    transaction.write(config, GOING_BACK)
    finish_rollback(context, transaction)
    raise WentBackError(transaction.trouble, log.lines)


def finish_rollback(context: Context, transaction: Transaction) -> None:
    """Mark the release bad and stop its slot, once those that it still serves are done."""
    config, old, new = context.config, str(transaction.from_slot), transaction.to_slot
    was, tried = config.record_of(old), config.record_of(new)
    # Neither is a release to blame of which nothing was counted, nor one that serves on as it was, as after a restart.
    same = (was.release, was.fingerprint) == (tried.release, tried.fingerprint)
    if not same and not transaction.trouble.startswith(UNCOUNTED):
        history.mark_bad(config, transaction.release, transaction.trouble, tried.fingerprint)
    drain(context, new)
    take_back(context, new)
    grow_to(context, new, old, config.live_record().plan.workers)
    transaction.end(context, history.WENT_BACK, transaction.trouble)


def _stay(context: Context, transaction: Transaction, trouble: str) -> NoReturn:
    """Leave the new release live, with all its workers; StaysError."""
    log = context.systemd.journal(context.config.service(transaction.to_slot), transaction.cursor)
    message = with_last_exception(trouble, log)
    grow_to(context, None, transaction.to_slot, context.config.workers_of(transaction.to_slot))
    transaction.end(context, history.STAYS, message)
    raise StaysError(message, log.lines)


def _bring_up(context: Context, slot: str) -> None:
    """Have a slot that was live before answer again: it still runs, or is started and proved."""
    if not context.state(slot).down and burst(context, slot, [], 1).good:
        return
    start_slot(context, slot)
    prove(context, slot, context.config.record_of(slot).plan.workers, context.state(slot).restarts)
