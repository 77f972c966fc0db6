"""The cutover: one path by which a release comes to serve, whoever asked for it.

Boot the idle slot, prove it on its private socket (gate.py), move the link that nginx connects through. Up to the link
everything can be taken back, and is; from there on finish.py watches, drains and grows, or rollback.py gives the
traffic back. Each step is in the journal (journal.py) before it begins.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ..workers.engines import engine
from ..workers.plan import count
from . import history
from .config import HostError, other
from .context import Context
from .files import MAKE_ROOM, link_atomically
from .gate import GateError, prove
from .hooks import HookError, run_hook
from .journal import Transaction
from .preflight import check_engine, check_not_bad, check_release, check_room, check_state, clock_trouble, room_trouble
from .reasons import explained
from .records import SLOTS
from .sizing import CrowdedError, Sizing
from .slots import SlotSettings, keep_edited, prepare_slot, settings_for
from .systemd import SystemdError

ACTIVATE, ROLLBACK, RESTORE, RESTART = "activate", "rollback", "restore", "restart"


class RefusedError(Exception):
    """The release is not live, and the one before it serves. `log` is what the new one logged last."""

    outcome = history.REFUSED

    def __init__(self, message: str, log: Sequence[str]) -> None:
        super().__init__(message)
        self.log = list(log)


@dataclass(frozen=True)
class Request:
    """What to switch to, and who asks. `force` tries a release once more that was marked bad.

    own: with the settings that it serves with, or last served with, not with those that the last deploy brought.
    """

    verb: str
    release: str
    by: str
    force: bool = False
    own: bool = False

    @property
    def going_back(self) -> bool:
        """Whether the release has served before: it must be possible to go back to it at any hour."""
        return self.verb != ACTIVATE


def cut_over(context: Context, request: Request) -> Transaction:
    """Move the traffic to a release that has proved itself; return the transaction, to be finished.

    Raises HostError before anything changed, RefusedError when the release did not prove itself.
    """
    config = context.config
    manifest = check_before(context, request)
    old, new = config.live_slot(), config.idle_slot()
    # One that an interrupted switch has left running has no traffic.
    context.systemd.stop(config.service(new), config.socket_unit(new))
    if old is None:
        # Nor has one whose link somebody has removed.
        take_back(context, other(new))
    own, former = request.going_back or request.own, request.verb == RESTORE
    settings = settings_for(context, request.release, manifest, new, own, former)
    context = replace(context, config=config.with_those_of(settings.record, settings.contents["hooks"]))
    config = context.config
    server = engine(settings.record.engine)
    check_engine(manifest, request.release, server)
    refusal = server.refusal(manifest.get("packages", {}))
    _refuse_or_note(context, request, refusal and f"the release has {refusal}", "Raise it in the app")
    sizing, workers = Sizing(context, settings, old, request.going_back), settings.record.plan.workers
    first = sizing.first()
    transaction = Transaction(
        request.verb, request.release, request.by, config.live_record().release, old, new, context.clock.time(),
        context.systemd.cursor(),
    )  # fmt: skip
    for slot in SLOTS:
        keep_edited(context, slot)
    transaction.write(config)
    why = "as memory does not hold both sets" if old else "to see what one takes"
    fewer = "" if first == workers else f" of {workers}, {why}; the rest follows"
    context.report(f"starting release {request.release} in the {new} slot with {count(first)}{fewer}")
    refuse = functools.partial(_refuse, context, transaction, sizing)
    try:
        sizing.make_room()
        boot(context, settings, first)
        context.report(prove(context, new, first, low_priority=old is not None))
        settings = sizing.settle()
        if config.hook_before:
            run_hook(context, "before", new, request.release, manifest)
            context.report("service_hook_before is done")
        move_traffic(context, settings)
    except HookError as error:  # its own output says why, not the release's log
        refuse(error, str(error), error.log)
    except CrowdedError as error:  # the log of a release that was not started says nothing of it
        refuse(error, str(error), ())
    except (GateError, SystemdError, OSError) as error:
        log = context.systemd.journal(config.service(new), transaction.cursor)
        refuse(error, explained(error, log), log.lines)
    context.report(f"traffic goes to the {new} slot")
    return transaction


def _refuse(
    context: Context, transaction: Transaction, sizing: Sizing, error: Exception, reason: str, log: Sequence[str]
) -> NoReturn:
    """Take a switch back whose link has not moved; RefusedError."""
    take_back(context, transaction.to_slot)
    sizing.give_back()
    transaction.end(context, history.REFUSED, reason)
    raise RefusedError(reason, log) from error


def check_before(context: Context, request: Request) -> dict[str, Any]:
    """Refuse with HostError what is not to be begun; return the release's manifest. Changes nothing."""
    manifest = check_release(context.config, request.release)
    check_state(context.config)
    # First, as it may cost the release: what is refused for another reason leaves it there.
    _check_room(context, request)
    # What is live serves with its own settings: what it was marked for were others.
    if not request.force and not request.own:
        check_not_bad(context.config, request.release, same_settings=not request.going_back)
    _refuse_or_note(context, request, clock_trouble(context.config, context.clock.time()), "Set the clock")
    return manifest


def _check_room(context: Context, request: Request) -> None:
    if not request.going_back:
        check_room(context.config)
    elif full := room_trouble(context.config):
        context.report(f"note: {full}: what going back writes takes what is kept for that")
        # For the link by which systemd enables a unit: that is not written by us.
        MAKE_ROOM.get()(context.config.units)


def _refuse_or_note(context: Context, request: Request, trouble: str, advice: str) -> None:
    """Refuse a deploy for what must not keep anybody from going back."""
    if trouble and not request.going_back and not request.force:
        raise HostError(f"{trouble}. Nothing was changed. {advice}, or use service_force (on the host: --force)")
    if trouble:
        context.report(f"note: {trouble}")


def boot(context: Context, settings: SlotSettings, workers: int) -> None:
    """Start a slot with so many workers; does not wait until they are up."""
    config, slot = context.config, settings.record.slot
    prepare_slot(config, settings, workers)
    start_slot(context, slot)


def start_slot(context: Context, slot: str) -> None:
    """Start a slot's units, enabled.

    Enabled before systemd reads the unit files: from then on it keeps what `systemctl status` shows of that. Should the
    host go down before the slot is proved, it comes up beside the live one, and the recovery at boot takes it back.
    """
    config = context.config
    context.systemd.enable(config.service(slot))
    context.systemd.start(config.socket_unit(slot), config.service(slot))


def move_traffic(context: Context, settings: SlotSettings) -> None:
    """Give the traffic to a slot that has proved itself: the moment from which it is live."""
    config, slot = context.config, settings.record.slot
    settings.record.write(config.slot_record(slot))
    point_link(context, slot)


def point_link(context: Context, slot: str) -> None:
    """Have nginx connect to a slot, which is enabled at the latest now: a reboot right after must find it."""
    context.systemd.enable(context.config.service(slot))
    link_atomically(context.config.live_link, context.config.socket(slot))


def take_back(context: Context, slot: str, wait: bool = True) -> None:
    """Stop a slot that has no traffic. What cannot be stopped now is stopped by the next switch."""
    config, systemd = context.config, context.systemd
    disable = functools.partial(systemd.disable, config.service(slot))
    stop = functools.partial(systemd.stop, config.service(slot), config.socket_unit(slot), wait=wait)
    for step in (disable, stop):
        try:
            step()
        except SystemdError as error:
            context.report(f"the {slot} slot could not be stopped: {error}")
