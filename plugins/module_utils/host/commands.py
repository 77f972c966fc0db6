"""What each verb of the command does: it gets the context and how it was called, and returns an outcome."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import history, recycle, status, tune_lease
from .config import Config, HostError
from .context import Context
from .cutover import ACTIVATE, RESTORE, ROLLBACK, RefusedError, Request, cut_over
from .finish import finish
from .hooks import command
from .locks import locked
from .preflight import check_release, check_state
from .prune import check_prune, prune
from .recover import recover

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
    return Outcome(0, status.status(context))


def _verify(context: Context, _unused: Call) -> Outcome:
    seen = status.verify(context)
    return Outcome(EXIT_REFUSED if seen["differences"] else 0, seen)


def _history(context: Context, _unused: Call) -> Outcome:
    config = context.config
    recycled = history.entries(config, history.RECYCLED)
    return Outcome(0, {"history": history.entries(config), "recycled": recycled})


def _run(context: Context, call: Call) -> Outcome:
    config, release = context.config, call.options.release
    manifest = check_release(config, release)
    # From there, no shell, no sudo and no -vvv has it in a command line.
    words = ("sh", "-c", sys.stdin.read()) if call.options.shell else call.options.words
    code, output = context.systemd.run(command(config, release, manifest, config.wanted_files(), words))
    return Outcome(code, {"output": output, "code": code})


def _recycle(context: Context, call: Call) -> Outcome:
    """Recycle. A worker that is alone in its slot is replaced by a switch: nobody else would serve meanwhile."""
    done = recycle.recycle(context, call.by)
    if alone := done.get("alone"):
        call.run_in_unit([RESTORE, context.config.live_record().release, "--by", f"{call.by}, as {alone}"])
    return Outcome(0, done)


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
    recycle.give_way(context)
    with locked(context.config, "recover", call.by):
        recover(context)
        return Outcome(0, {"live": context.config.live_record().public()})


def _switch(context: Context, call: Call) -> Outcome:
    options, config = call.options, context.config
    check_state(config)
    recycle.give_way(context)
    tune_lease.give_way(context)
    with locked(config, f"{options.verb} {options.release}".strip(), call.by):
        _recover_first(context)
        # An empty id asks to go back to the best one, but never a deploy: there it is somebody's unset variable.
        release = options.release if options.verb == ACTIVATE else options.release or _best(config)
        if options.verb == ROLLBACK and release == config.live_record().release:
            raise HostError(f"release {release} is live already: there is nothing to go back from")
        request = Request(options.verb, release, call.by, getattr(options, "force", False))
        record = finish(context, cut_over(context, request))
        _prune_old(context)
    return Outcome(0, {"live": record.public(), "outcome": history.SWITCHED})


def _recover_first(context: Context) -> None:
    try:
        recover(context)
    except RefusedError as error:
        context.report(f"note: {error}")


def _best(config: Config) -> str:
    """Return the release to go back to; HostError where there is none."""
    candidates = history.rollback_candidates(config)
    if not candidates:
        raise HostError(f"there is nothing to go back to: {status.no_rollback(config)}")
    return candidates[0]


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
    "recover": _recover, ACTIVATE: _switch, ROLLBACK: _switch, RESTORE: _switch,
}  # fmt: skip
IN_UNIT = (ACTIVATE, ROLLBACK, RESTORE, "recover")
