"""Recovery: finish or take back a switch that was cut off, by a kill, a lost controller, a power cut."""

from __future__ import annotations

from dataclasses import replace

from .context import Context
from .cutover import take_back
from .finish import finish
from .gate import GateError, prove
from .hooks import unit
from .journal import GOING_BACK, INTERRUPTED, Transaction
from .rollback import finish_rollback, roll_back
from .sizing import grow_to
from .systemd import SystemdError


def recover(context: Context) -> None:
    """Finish or take back a switch that was cut off; nothing to do where none was.

    The link decides: it moves only to a slot that has proved itself, so a switch is finished once it has moved, and
    taken back before. Raises WentBackError or RefusedError like the switch itself would.
    """
    config, systemd = context.config, context.systemd
    transaction = Transaction.read(config)
    if transaction is None:
        return
    new, release = transaction.to_slot, transaction.release
    context = replace(context, config=config.of(new))
    systemd.stop(unit(config))
    moved = config.live_slot() == new
    if transaction.step == GOING_BACK:
        context.report(f"going back from release {release} was cut off: finishing it")
        if moved:
            roll_back(context, transaction, transaction.trouble)
        finish_rollback(context, transaction)
        return
    if not moved:
        context.report(f"the switch to release {release} was cut off before traffic moved: taking it back")
        take_back(context, new)
        _give_back(context, transaction)
        transaction.end(context, INTERRUPTED, "cut off before traffic moved, taken back")
        return
    context.report(f"the switch to release {release} was cut off after traffic had moved: finishing it")
    systemd.enable(config.service(new))
    try:
        # After a reboot it may still be starting.
        context.report(prove(context, new, 0, context.state(new).restarts))
    except GateError as error:
        roll_back(context, transaction, str(error))
    finish(context, transaction)


def _give_back(context: Context, transaction: Transaction) -> None:
    """Give the slot that serves on what it may have given up for the new one.

    Not to one that started later, as after a power cut: it starts with all of its workers by itself.
    """
    slot, kernel = context.config.live_slot(), context.kernel
    try:
        main_pid = context.state(slot).main_pid if slot else 0
    except SystemdError as error:
        context.report(f"note: the {slot} slot may run fewer workers than it had: {error}")
        return
    if slot and main_pid and kernel.seconds_old(main_pid) > context.clock.time() - transaction.began:
        grow_to(context, None, slot, context.config.live_record().plan.workers)
