"""What each verb of the command does: it gets the context and how it was called, and returns an outcome."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import history, recycle, reserve, status
from .answering import unreachable
from .config import Config, HostError
from .context import Context
from .cutover import ACTIVATE, RESTART, RESTORE, ROLLBACK, RefusedError, Request, cut_over
from .finish import finish
from .hooks import command
from .locks import locked
from .precedence import switch_first
from .preflight import ROOM_BYTES, ROOM_INODES, NoRoomError, check_release, check_state, room_trouble
from .prune import check_prune, drop, prune
from .recover import recover
from .slots import adopt

#: In the place of a release's id: the one that gets traffic.
LIVE = "live"
EXIT_REFUSED, EXIT_NOTHING_DONE, EXIT_UNFINISHED = 1, 2, 3


@dataclass(frozen=True)
class Outcome:
    """What came of a verb: the exit code, and what is printed as one JSON object."""

    code: int = 0
    shown: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """Which verb was asked for, with which options, by whom."""

    options: argparse.Namespace
    by: str
    #: Becomes a client of another verb in a unit of its own: see cli.py.
    run_in_unit: Callable[[list[str]], None]


def _status(context: Context, _unused: Call) -> Outcome:
    return _judged(status.status(context))


def _verify(context: Context, _unused: Call) -> Outcome:
    return _judged(status.verify(context))


def _judged(shown: dict[str, Any]) -> Outcome:
    """Return an outcome that fails where users are hurt, would be after a restart, or something is not as was set."""
    return Outcome(EXIT_REFUSED if shown["differences"] else 0, shown)


def _history(context: Context, _unused: Call) -> Outcome:
    config = context.config
    recycled = history.entries(config, history.RECYCLED)
    return Outcome(0, {"history": history.entries(config), "recycled": recycled})


def _run(context: Context, call: Call) -> Outcome:
    config, release = context.config, _named(context, call.options.release)
    manifest = check_release(config, release)
    slot = config.live_slot()
    # What a deploy that was refused has left is not what the live release runs with.
    as_live = slot and release == config.live_record().release and not call.options.wanted
    files = config.slot_files(str(slot)) if as_live else config.wanted_files()
    config = config.of(str(slot)) if as_live else config
    # From there, no shell, no sudo and no -vvv has it in a command line.
    words = ("sh", "-c", sys.stdin.read()) if call.options.shell else call.options.words
    code, output = context.systemd.run(command(config, release, manifest, files, words))
    return Outcome(code, {"output": output, "code": code})


def _recycle(context: Context, call: Call) -> Outcome:
    """Recycle. A worker that is alone in its slot is replaced by a switch: nobody else would serve meanwhile."""
    done = recycle.recycle(context, call.by)
    if alone := done.get("alone"):
        call.run_in_unit([RESTORE, context.config.live_record().release, "--by", f"{call.by}, as {alone}"])
    return Outcome(0, done)


def _adopt(context: Context, call: Call) -> Outcome:
    adopt(context.config, call.options.release)
    return Outcome()


def _prune(context: Context, call: Call) -> Outcome:
    options, config = call.options, context.config
    # What the caller got wrong is said before an interrupted switch is touched.
    check_prune(config, options.releases)
    with locked(config, "prune", call.by):
        _recover_first(context)
        keep = config.keep_releases if options.keep is None else options.keep
        return Outcome(0, {"removed": prune(config, options.releases, max(1, keep))})


def _recover(context: Context, call: Call) -> Outcome:
    check_state(context.config)
    switch_first(context)
    with locked(context.config, "recover", call.by), reserve.usable(context.config):
        recover(context)
        return Outcome(0, {"live": context.config.live_record().public()})


def _switch(context: Context, call: Call) -> Outcome:
    options, config = call.options, context.config
    check_state(config)
    switch_first(context)
    with locked(config, f"{options.verb} {getattr(options, 'release', '')}".strip(), call.by):
        _recover_first(context)
        # An empty id asks to go back to the best one, but never a deploy: there it is somebody's unset variable.
        asked = LIVE if options.verb == RESTART else options.release
        release = _named(context, asked) if options.verb in (ACTIVATE, RESTART) else asked or _best(config)
        is_live = release == config.live_record().release
        if options.verb == ROLLBACK and is_live:
            raise HostError(f"release {release} is live already: there is nothing to go back from")
        own = is_live and not getattr(options, "wanted", False)
        request = Request(options.verb, release, call.by, getattr(options, "force", False), own)
        with reserve.usable(config):
            try:
                record = finish(context, cut_over(context, request))
            except (NoRoomError, RefusedError):
                if getattr(options, "wanted", False):
                    _drop_refused(context, release)
                raise
        _prune_old(context)
        reserve.fill(config, ROOM_BYTES, ROOM_INODES)
    return Outcome(0, {"live": record.public(), "outcome": history.SWITCHED})


def _named(context: Context, release: str) -> str:
    """Return a release's id; `live` stands for the one that gets traffic. HostError where none does."""
    if release != LIVE:
        return release
    if live := context.config.live_record().release:
        return live
    if texts := unreachable(context):
        raise HostError(f"no release is live on this host: {'; '.join(texts)}")
    raise HostError("no release is live on this host yet: deploy, or name one (status lists them)")


def _recover_first(context: Context) -> None:
    try:
        with reserve.usable(context.config):
            recover(context)
    except RefusedError as error:
        context.report(f"note: {error}")


def _best(config: Config) -> str:
    """Return the release to go back to; HostError where there is none."""
    candidates = history.rollback_candidates(config)
    if not candidates:
        raise HostError(f"there is nothing to go back to: {status.no_rollback(config)}")
    return candidates[0]


def _drop_refused(context: Context, release: str) -> None:
    """Remove the release of a refused deploy where the disk has no room for it beside what serves."""
    if room_trouble(context.config) and drop(context.config, release):
        context.report(f"note: release {release} was removed from the host: the disk has no room for it")


def _prune_old(context: Context) -> None:
    try:
        removed = prune(context.config, keep=context.config.keep_releases)
    except OSError as error:
        context.report(f"note: the release is live, but old ones could not be removed: {error}")
        return
    if removed:
        context.report(f"removed old releases: {', '.join(removed)}")


#: Each verb's function. Those in IN_UNIT change what serves: they run in a transient unit, which outlives the terminal
#: or SSH session that asked for it.
VERBS: dict[str, Callable[[Context, Call], Outcome]] = {
    "status": _status, "verify": _verify, "history": _history, "run": _run, "prune": _prune, recycle.VERB: _recycle,
    "adopt": _adopt, "recover": _recover, ACTIVATE: _switch, ROLLBACK: _switch, RESTORE: _switch, RESTART: _switch,
}  # fmt: skip
IN_UNIT = (ACTIVATE, ROLLBACK, RESTORE, RESTART, "recover")
