"""The live slot's units: down and why, restarting, stopped by a signal, not enabled, not read by systemd."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from .. import endings, recycle
from ..config import Config, other
from ..context import Context
from ..log_excerpt import Entry, last_exception
from ..records import SLOTS
from ..systemd import UnitState
from .finding import DIFFERS, HURTS_AT_RESTART, HURTS_NOW, NOTE, Finding, Snapshot

#: How far back a log is read, in seconds.
HOUR = 3600
#: What happened so many seconds ago hurts users at most in memory; within them, so many starts of a server are a loop.
RECENT, MANY_RESTARTS = 600, 3
#: Where nothing of it has happened for so many seconds, it is over.
CALM = 120
#: systemd's own word of how a main process ended.
_MAIN_ENDED = re.compile(r"Main process exited, code=(exited|killed|dumped), status=(\d+)")
NGINX = "nginx.service"


def names(config: Config) -> list[str]:
    """Return the units that the checks ask systemd about, in one call."""
    slots = [unit for slot in SLOTS for unit in (config.service(slot), config.socket_unit(slot))]
    recovery = f"{config.app}-release-recover.service"
    return [*slots, NGINX, recycle.unit(config), recycle.timer(config), recovery]


def is_down(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that no server runs in the live slot, or nothing listens for it."""
    config, slot = snapshot.context.config, snapshot.slot
    unit, socket = config.service(slot), config.socket_unit(slot)
    if snapshot.is_down:
        stopped = snapshot.service.get("Result") == "success" and snapshot.service.get("LoadState") != "not-found"
        helps = f"systemctl start {unit}" if stopped else f"deploy, or {config.app}-release activate {{}}"
        given_up = {"start-limit-hit", "service-start-limit-hit"} & {
            snapshot.service.get("Result"), snapshot.unit(socket).get("Result")
        }  # fmt: skip
        text = f"{unit} is down: {ending(snapshot.service)}{_why(snapshot)}"
        text += "; systemd has given up: it starts it no more by itself" if given_up else ""
        yield Finding(HURTS_NOW, "slot down", f"{text}: {helps.format(snapshot.record.release)}")
    elif snapshot.unit(socket).get("ActiveState", "active") in ("failed", "inactive"):
        text = f"{socket} is down, so nginx reaches no worker: {config.app}-release activate {snapshot.record.release}"
        yield Finding(HURTS_NOW, "socket down", text)


def restarts(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the server was started again and again, though it may run at this moment."""
    context, unit = snapshot.context, snapshot.context.config.service(snapshot.slot)
    if snapshot.is_down or not int(snapshot.service.get("NRestarts") or 0):
        return
    seconds = since_switch(snapshot)
    count = context.systemd.restarts(unit, seconds)
    if count:
        often = context.systemd.restarts(unit, min(seconds, RECENT)) >= MANY_RESTARTS
        often = often and context.systemd.restarts(unit, min(seconds, CALM)) > 0
        text = f"{unit} fell over and was started again {endings.times(count)} within {span(seconds)}"
        text += _last_end(context.systemd.recent(unit, seconds))
        yield Finding(HURTS_NOW if often else NOTE, "restarts", text)


def _last_end(starts: Sequence[Sequence[Entry]]) -> str:
    """Return how the last start that has ended did so, to be put behind a sentence.

    An exception that it had logged is no reason where a signal ended it.
    """
    for start in reversed(starts):
        ends = [match for entry in start if entry.pid == 1 and (match := _MAIN_ENDED.search(entry.text))]
        if ends:
            how = endings.how_it_ended(ends[-1][1], int(ends[-1][2]))
            last = last_exception(start) if ends[-1][1] == "exited" else ""
            return f"; the last time it {how}{last and f', its last exception: {last}'}"
    last = next(filter(None, map(last_exception, reversed(starts[:-1] or starts))), "")
    return f"; its last exception: {last}" if last else ""


def since_switch(snapshot: Snapshot) -> float:
    """Return how far back the log of the live slot is looked at: to the switch to it, at most an hour, in seconds."""
    return min(float(HOUR), max(1.0, snapshot.context.clock.time() - snapshot.record.at))


def span(seconds: float) -> str:
    """Return in words how far back a log was looked at."""
    return "the last hour" if seconds == HOUR else f"the {seconds / 60:.1f} minutes since the switch"


def is_stopped(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the main process got SIGSTOP: workers serve on, but none that dies is replaced."""
    main_pid = int(snapshot.service.get("MainPID") or 0)
    if main_pid and snapshot.context.kernel.state_of(main_pid) == "T":
        unit = snapshot.context.config.service(snapshot.slot)
        text = f"the main process {main_pid} of {unit} is stopped (SIGSTOP): no worker that dies is replaced"
        yield Finding(DIFFERS, "main process stopped", f"{text}: kill -CONT {main_pid}")


def is_disabled(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that nothing starts the live slot at boot."""
    unit = snapshot.context.config.service(snapshot.slot)
    enabled = snapshot.context.systemd.enabled_state(unit)
    if enabled and enabled != "enabled":
        text = f"{unit} is {enabled}: after a reboot nothing serves: systemctl enable {unit}"
        yield Finding(HURTS_AT_RESTART, "slot disabled", text)


def idle_is_enabled(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the other slot would start at boot, too, for nobody."""
    config = snapshot.context.config
    unit = config.service(other(snapshot.slot))
    if config.transaction.exists():
        return  # a switch has it so
    if snapshot.context.systemd.enabled_state(unit) == "enabled":
        text = f"{unit} has no traffic, but is enabled: after a reboot it takes memory for nobody"
        yield Finding(NOTE, "idle slot enabled", f"{text}: systemctl disable {unit}")


def needs_reload(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that unit files were changed, and systemd goes by the former ones."""
    stale = sorted(name for name, shown in snapshot.units.items() if shown.get("NeedDaemonReload") == "yes")
    if stale:
        text = f"systemd has not read unit files that were changed ({', '.join(stale)}): systemctl daemon-reload"
        yield Finding(NOTE, "needs daemon-reload", text)


def ending(properties: Mapping[str, str]) -> str:
    """Say how a unit ended, by systemd's own account."""
    if properties.get("LoadState") == "not-found":
        return "there is no such unit"
    return f"it {endings.why_down(UnitState.of(properties))}"


def _why(snapshot: Snapshot) -> str:
    """Return what the live slot's log has of the reason that it is down, to be put behind a sentence; "" for nothing.

    The exception is of its last start: an earlier one may have ended for another reason.
    """
    context, unit, seconds = snapshot.context, snapshot.context.config.service(snapshot.slot), since_switch(snapshot)
    count = context.systemd.restarts(unit, seconds)
    # What a signal has ended, or systemd, has not ended by an exception.
    by_itself = snapshot.service.get("Result") not in ("signal", "core-dump", *endings.BY_RESULT)
    last = last_exception_of_last_start(context, unit, seconds) if by_itself else ""
    return (f"; started again {endings.times(count)} within {span(seconds)}" if count else "") + (
        f"; its last exception: {last}" if last else ""
    )


def last_exception_of_last_start(context: Context, unit: str, seconds: float) -> str:
    """Return the last exception that a unit has logged since it was started last; "" where it logged none."""
    return next(map(last_exception, reversed(context.systemd.recent(unit, seconds))), "")
