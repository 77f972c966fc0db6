"""The command `<app>-release`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import getpass
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from . import history, recycle, status, tune
from .config import Config, HostError
from .hooks import command
from .keyed import public
from .lock import holder, locked
from .mask import mask
from .preflight import check_release, check_state
from .prune import check_prune, prune
from .settle import recover, settle
from .switch import ACTIVATE, RESTORE, ROLLBACK, Order, RefusedError, Say, switch
from .systemd import Systemd, SystemdError, in_unit

EXIT_REFUSED, EXIT_NOTHING_DONE, EXIT_UNFINISHED = 1, 2, 3
UNFINISHED = "the host finishes the switch or takes it back now, see history"
#: What changes something runs in a transient unit, which outlives the terminal or SSH session that asked for it.
IN_UNIT = (ACTIVATE, ROLLBACK, RESTORE, "recover")
#: Who asks for the recovery that follows each of these in its unit; systemd then says in EXIT_CODE how that ended.
AFTER = "recovery"


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog=os.environ.get("FLEET_COMMAND"), description="One app's releases on this host.")
    top.add_argument("--config", type=Path, required=True, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status", help="what is live, what its workers are, what could be gone back to")
    verbs.add_parser("verify", help="prove the live workers: planned = running = answering")
    verbs.add_parser("history", help="what was switched when, by whom, with what result")
    one = verbs.add_parser(ACTIVATE, help="make a release that is on this host the live one")
    one.add_argument("release")
    one = verbs.add_parser(ROLLBACK, help="go back to the release before, with its settings; mark the live one bad")
    one.add_argument("release", nargs="?", default="")
    one = verbs.add_parser(RESTORE, help="go back likewise, but mark nothing: the release is not to blame")
    one.add_argument("release", nargs="?", default="")
    one = verbs.add_parser("prune", help="remove old releases: those named, or all but the newest")
    one.add_argument("releases", nargs="*")
    one.add_argument("--keep", type=int, help="how many stay (service_keep_releases)")
    one = verbs.add_parser("run", help="run a command as the app, with the code of a release: run ID -- WORDS")
    one.add_argument("release")
    one.add_argument("words", nargs="+")
    one.add_argument("--shell", action="store_true", help="read a command for sh from the standard input instead")
    one.add_argument("--show-secrets", action="store_true", help="leave values of service_env in what it prints")
    one = verbs.add_parser(recycle.VERB, help="replace workers over service_worker_memory_max_mib, one at a time")
    one.add_argument("--by", default="", help="who asks, for the record")
    verbs.add_parser("recover", help="finish or take back a switch that was cut off; nothing to do otherwise")
    tune.add_arguments(verbs.add_parser("tune", help="measure other numbers of workers in a private slot"))
    for name in IN_UNIT:
        verbs.choices[name].add_argument("--in-unit", action="store_true", help=argparse.SUPPRESS)
        verbs.choices[name].add_argument("--by", default="", help="who asks, for the history")
    for name in (ACTIVATE, ROLLBACK):
        verbs.choices[name].add_argument(
            "--force", action="store_true", help="even a release that is marked bad, or with a wrong clock"
        )
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def read_words(words: list[str]) -> argparse.Namespace:
    """Read the command line. What follows the first -- is a command's own: argparse takes a second one out of it."""
    own, others = words, []
    if "--" in words:
        at = words.index("--")
        own, others = words[:at], words[at + 1 :]
    if "run" in own and (others or "--shell" in own):
        given = parser().parse_args([*own, "--", "placeholder"])
        if given.verb == "run":
            given.words = [*given.words[:-1], *others]
            if given.shell and given.words:
                parser().error("--shell reads the command from the standard input: it takes no words")
            return given
    return parser().parse_args(words)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 refused or differs, 2 nothing was done."""
    words = sys.argv[1:] if argv is None else argv
    given = read_words(words)
    if given.verb == "recover" and given.by == AFTER and os.environ.get("EXIT_CODE") == "exited":
        # The switch has said itself how it ended: a second word behind it would spoil its JSON.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            return _main(given, words)
    return _main(given, words)


def _main(given: argparse.Namespace, words: list[str]) -> int:
    steps: list[str] = []

    def say(step: str) -> None:
        steps.append(step)
        if not given.json:
            _print(f"{time.strftime('%H:%M:%S')} {step}")

    result: dict[str, Any]
    try:
        _require_root()
        config = Config.read(given.config)
        if given.verb in IN_UNIT and not given.in_unit:
            _run_in_unit(config, given, words)
        do = tune.command if given.verb == "tune" else _do
        result, code = do(config, given, say)
    except RefusedError as error:
        result, code = {"error": str(error), "log": error.log, "outcome": error.outcome}, EXIT_REFUSED
    except recycle.RecycleError as error:
        result, code = {"error": str(error), "outcome": "not recycled"}, EXIT_REFUSED
    except (HostError, SystemdError, OSError) as error:
        result, code = {"error": str(error), "outcome": "nothing done"}, EXIT_NOTHING_DONE
        if _is_unfinished(given):
            result, code = {"error": f"{error}; {UNFINISHED}", "outcome": "unfinished"}, EXIT_UNFINISHED
    if given.json:
        if given.verb in IN_UNIT and code:
            with contextlib.suppress(HostError):
                result["live"] = Config.read(given.config).live_record()
        if "live" in result:
            result["live"] = public(result["live"])
        notes = [step.removeprefix("note: ") for step in steps if step.startswith("note: ")]
        _print(json.dumps({**result, "steps": steps, "notes": notes}))
    else:
        _print_plainly(given, result)
    return code


def _is_unfinished(given: argparse.Namespace) -> bool:
    """Return whether a switch was begun and neither finished nor taken back."""
    with contextlib.suppress(HostError):
        config = Config.read(given.config)
        return given.verb in IN_UNIT and config.transaction.exists() and holder(config) is None
    return False


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("only root can see and change the slots: use sudo")


def _do(config: Config, given: argparse.Namespace, say: Say) -> tuple[dict[str, Any], int]:
    """Do what was asked for; return what to print and the exit code."""
    systemd = Systemd(str if getattr(given, "show_secrets", False) else functools.partial(mask, config))
    by = getattr(given, "by", "") or os.environ.get("SUDO_USER") or getpass.getuser()
    if given.verb in ("status", "verify", "history"):
        return _look(config, systemd, given.verb)
    if given.verb == "run":
        manifest = check_release(config, given.release)
        environment = config.wanted_files()["environment"]
        # From there, no shell, no sudo and no -vvv has it in a command line.
        words = ("sh", "-c", sys.stdin.read()) if given.shell else given.words
        code, output = systemd.run(command(config, given.release, manifest, environment, words))
        return {"output": output, "code": code}, code
    if given.verb == recycle.VERB:
        return _recycle(config, systemd, given, by, say), 0
    # What the caller got wrong is said before an interrupted switch is touched.
    if given.verb == "prune":
        check_prune(config, given.releases)
    if given.verb in IN_UNIT:
        check_state(config)
        recycle.make_way(config, systemd)
    with locked(config, " ".join([given.verb, getattr(given, "release", "")]).strip(), by):
        try:
            recover(config, systemd, say)
        except RefusedError as error:
            if given.verb == "recover":
                raise
            say(f"note: {error}")
        if given.verb == "prune":
            keep = config.keep_releases if given.keep is None else given.keep
            return {"removed": prune(config, given.releases, max(1, keep))}, 0
        if given.verb == "recover":
            return {"live": config.live_record()}, 0
        # An empty id asks to go back to the best one, but never a deploy: there it is somebody's unset variable.
        release = given.release if given.verb == ACTIVATE else given.release or _back(config)
        order = Order(given.verb, release, by, getattr(given, "force", False))
        if given.verb == ROLLBACK and order.release == config.live_record().get("release"):
            raise HostError(f"release {order.release} is live already: there is nothing to go back from")
        record = settle(config, systemd, switch(config, systemd, order, say), say)
        try:
            removed = prune(config, keep=config.keep_releases)
        except OSError as error:
            say(f"note: the release is live, but old ones could not be removed: {error}")
            removed = []
        if removed:
            say(f"removed old releases: {', '.join(removed)}")
    return {"live": record, "outcome": history.SWITCHED}, 0


def _look(config: Config, systemd: Systemd, verb: str) -> tuple[dict[str, Any], int]:
    """Return what a verb that changes nothing found, and the exit code."""
    if verb == "history":
        return {"history": history.entries(config), "recycled": history.entries(config, history.RECYCLED)}, 0
    found = getattr(status, verb)(config, systemd)
    return found, EXIT_REFUSED if verb == "verify" and found["differences"] else 0


def _recycle(config: Config, systemd: Systemd, given: argparse.Namespace, by: str, say: Say) -> dict[str, Any]:
    """Recycle. A worker that is alone in its slot is replaced by a switch: nobody else would serve meanwhile."""
    done = recycle.recycle(config, systemd, by, say)
    if alone := done.get("alone"):
        release = str(config.live_record()["release"])
        words = ["--config", str(given.config), RESTORE, release, "--by", f"{by}, as {alone}"]
        words += ["--json"] if given.json else []
        _run_in_unit(config, parser().parse_args(words), words)
    return done


def _back(config: Config) -> str:
    """Return the release to go back to; HostError where there is none."""
    found = history.rollback_candidates(config)
    if not found:
        raise HostError(f"there is nothing to go back to: {status.no_rollback(config)}")
    return found[0]


def _run_in_unit(config: Config, given: argparse.Namespace, words: list[str]) -> None:
    """Become a client of the same command in a transient unit.

    systemd ends it when its time is over (RuntimeMaxSec), and however it ends, what it left undone is finished or
    taken back at once (ExecStopPost); after a power cut, the unit `<app>-release-recover` does that at boot.
    """
    by = [] if given.by else ["--by", os.environ.get("SUDO_USER") or getpass.getuser()]
    # It speaks for a switch that was killed, so in the way that was asked for. After one that has ended by itself and
    # left nothing behind, no Python is started for it.
    recovery = ["recover", "--in-unit", f"--by={AFTER}", *(["--json"] if given.json else [])]
    unit, about = f"{config.app}-release-{given.verb}-{os.getpid()}", f"Switch of {config.app}"
    settled = f'[ "$$EXIT_CODE" = exited ] && [ ! -e {config.transaction} ]'
    command = in_unit(unit, about, given.config, [*words, "--in-unit", *by], recovery, config.expiry, unless=settled)
    os.execvp(command[0], command)


def _print(text: str) -> None:
    """Print; whoever listened may be gone, which must not stop a switch half-way.

    A pipe is then broken, a terminal gives EIO, a file's disk is full; or a terminal has no such character.
    """
    with contextlib.suppress(OSError, UnicodeError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _print_plainly(given: argparse.Namespace, result: dict[str, Any]) -> None:
    if "error" in result:
        for line in result.get("log", []):
            _print(f"  | {line}")
        done = "went back" if result["outcome"] == history.WENT_BACK else "not done"
        _print(f"{done}: {result['error']}")
        return
    if "output" in result:
        _print(result["output"].rstrip("\n"))
    if "removed" in result:
        _print(f"removed: {', '.join(result['removed']) or 'nothing'}")
    lines = status.as_text(result)
    if "history" in result:
        lines = status.history_lines(Config.read(given.config))
    for line in [*lines, *(f"differs: {text}" for text in result.get("differences", []))]:
        _print(line)
