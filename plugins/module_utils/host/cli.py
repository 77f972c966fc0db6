"""The command `<app>-release`: its words, its exit codes, and the unit that a switch runs in."""

from __future__ import annotations

import argparse
import contextlib
import functools
import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import history, recycle, status, tune
from .answering import Serving, serving
from .commands import EXIT_NOTHING_DONE, EXIT_REFUSED, EXIT_UNFINISHED, IN_UNIT, VERBS, Call, Outcome
from .config import Config, HostError
from .context import Context
from .cutover import ACTIVATE, RESTART, RESTORE, ROLLBACK, RefusedError
from .locks import holder
from .mask import mask
from .preflight import run_trouble
from .systemd import Systemd, SystemdError, in_unit

#: What systemd needs in /run to write down a unit of a moment, with room to spare: going back needs no more than that.
UNIT_BYTES = 64 << 10
UNFINISHED = "the host finishes the switch or takes it back now, see history"
#: `--by` of the recovery in `ExecStopPost`; systemd then says in EXIT_CODE how the switch before it ended.
AFTER = "recovery"


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog=os.environ.get("FLEET_COMMAND"), description="One app's releases on this host.")
    top.add_argument("--config", type=Path, required=True, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status", help="what is live, what its workers are, what could be gone back to")
    verbs.add_parser("verify", help="prove that users are served, now and after a restart; says what differs")
    verbs.add_parser("history", help="what was switched when, by whom, with what result")
    verb = verbs.add_parser(ACTIVATE, help="make a release that is on this host the live one")
    verb.add_argument("release", help="its id; `live` replaces the workers of the live one")
    _add_wanted(verb)
    verbs.add_parser(RESTART, help="replace all workers of the live release, with the settings that it serves with")
    verb = verbs.add_parser(ROLLBACK, help="go back to the release before, with its settings; mark the live one bad")
    verb.add_argument("release", nargs="?", default="")
    verb = verbs.add_parser(RESTORE, help="go back likewise, but mark nothing: the release is not to blame")
    verb.add_argument("release", nargs="?", default="")
    verb = verbs.add_parser("adopt", help="go by the last deploy's settings for a release that is live, as deploys do")
    verb.add_argument("release")
    verb = verbs.add_parser("prune", help="remove old releases: those named, or all but the newest")
    verb.add_argument("releases", nargs="*")
    verb.add_argument("--keep", type=int, help="how many stay (service_keep_releases)")
    verb = verbs.add_parser("run", help="run a command as the app, with the code of a release: run ID -- WORDS")
    verb.add_argument("release", help="its id, or `live`")
    _add_wanted(verb)
    verb.add_argument("words", nargs="+")
    verb.add_argument("--shell", action="store_true", help="read a command for sh from the standard input instead")
    verb.add_argument("--show-secrets", action="store_true", help="leave values of service_env in what it prints")
    verb = verbs.add_parser(recycle.VERB, help="replace workers over service_worker_memory_max_mib, one at a time")
    verb.add_argument("--by", default="", help="who asks, for the record")
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


def _add_wanted(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--wanted", action="store_true",
        help="even for the live release, take the settings that the last deploy brought, not those that it serves with",
    )  # fmt: skip


def read_words(words: list[str]) -> argparse.Namespace:
    """Read the command line. What follows the first -- is a command's own: argparse takes a second one out of it."""
    own, others = words, []
    if "--" in words:
        at = words.index("--")
        own, others = words[:at], words[at + 1 :]
    if "run" in own and (others or "--shell" in own):
        options = parser().parse_args([*own, "--", "placeholder"])
        if options.verb == "run":
            options.words = [*options.words[:-1], *others]
            if options.shell and options.words:
                parser().error("--shell reads the command from the standard input: it takes no words")
            return options
    return parser().parse_args(words)


def main(argv: list[str] | None = None, connect: Callable[..., Context] = Context) -> int:
    """Run the command; return its exit code: 0 done, 1 refused or differs, 2 nothing was done, 3 unfinished.

    `connect` makes the context of settings, systemd and the function that reports.
    """
    words = sys.argv[1:] if argv is None else argv
    options = read_words(words)
    with contextlib.ExitStack() as stack:
        if options.verb == "recover" and options.by == AFTER and os.environ.get("EXIT_CODE") == "exited":
            # The switch has printed its own outcome: a second JSON document would make stdout unparseable.
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        steps: list[str] = []

        def report(step: str) -> None:
            steps.append(step)
            if not options.json:
                _print(f"{time.strftime('%H:%M:%S')} {step}")

        outcome = _perform(options, words, functools.partial(connect, report=report))
        shown = dict(outcome.shown)
        if options.verb in IN_UNIT and outcome.code:
            shown |= _what_serves(options, connect)
        if options.json:
            _print_json(shown, steps)
        else:
            _print_plainly(options, shown)
    return outcome.code


def _perform(options: argparse.Namespace, words: list[str], connect: Callable[..., Context]) -> Outcome:
    """Do what was asked for; an error becomes an outcome."""
    try:
        _require_root()
        config = Config.read(options.config)
        if options.verb in IN_UNIT and not options.in_unit:
            _run_in_unit(config, options, words)
        hide = str if getattr(options, "show_secrets", False) else functools.partial(mask, config)
        do = tune.command if options.verb == "tune" else VERBS[options.verb]
        call = Call(options, getattr(options, "by", "") or _caller(), functools.partial(_become, config, options))
        return do(connect(config, Systemd(hide)), call)
    except RefusedError as error:
        return Outcome(EXIT_REFUSED, {"error": str(error), "log": error.log, "outcome": error.outcome})
    except recycle.RecycleError as error:
        return Outcome(EXIT_REFUSED, {"error": str(error), "outcome": "not recycled"})
    except (HostError, SystemdError, OSError) as error:
        if _is_unfinished(options):
            return Outcome(EXIT_UNFINISHED, {"error": f"{error}; {UNFINISHED}", "outcome": "unfinished"})
        return Outcome(EXIT_NOTHING_DONE, {"error": str(error), "outcome": "nothing done"})


def _what_serves(options: argparse.Namespace, connect: Callable[..., Context]) -> dict[str, Any]:
    """Return what is live, and whether it answers now; nothing where that cannot be asked."""
    shown: dict[str, Any] = {}
    with contextlib.suppress(HostError, SystemdError, OSError):
        config = Config.read(options.config)
        shown["live"] = config.live_record().public()
        shown["serving"] = serving(connect(config, Systemd(str), report=lambda _unused: None)).as_dict()
    return shown


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("only root can see and change the slots: use sudo")


def _caller() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _is_unfinished(options: argparse.Namespace) -> bool:
    """Return whether a switch was begun and neither finished nor taken back."""
    with contextlib.suppress(HostError):
        config = Config.read(options.config)
        return options.verb in IN_UNIT and config.transaction.exists() and holder(config) is None
    return False


def _become(config: Config, options: argparse.Namespace, verb: list[str]) -> None:
    """Become a client of another verb in its unit, and print as was asked for."""
    words = ["--config", str(options.config), *verb, *(["--json"] if options.json else [])]
    _run_in_unit(config, parser().parse_args(words), words)


def _run_in_unit(config: Config, options: argparse.Namespace, words: list[str]) -> None:
    """Become a client of the same command in a transient unit.

    systemd ends it when its time is over (RuntimeMaxSec), and however it ends, what it left undone is finished or
    taken back at once (ExecStopPost); after a power cut, the unit `<app>-release-recover` does that at boot.
    """
    if trouble := run_trouble(config, room=UNIT_BYTES, inodes=0):
        raise HostError(f"{trouble}; systemd can start no unit there. Make room")
    by = [] if options.by else ["--by", _caller()]
    # It speaks for a switch that was killed, so in the way that was asked for. After one that has ended by itself and
    # left nothing behind, no Python is started for it.
    recovery = ["recover", "--in-unit", f"--by={AFTER}", *(["--json"] if options.json else [])]
    unit, about = f"{config.app}-release-{options.verb}-{os.getpid()}", f"Switch of {config.app}"
    finished = f'[ "$$EXIT_CODE" = exited ] && [ ! -e {config.transaction} ]'
    command = in_unit(
        unit, about, options.config, [*words, "--in-unit", *by], recovery, config.longest, unless=finished
    )
    os.execvp(command[0], command)


def _print(text: str) -> None:
    """Print; whoever listened may be gone, which must not stop a switch half-way.

    A pipe is then broken, a terminal gives EIO, a file's disk is full; or a terminal has no such character.
    """
    with contextlib.suppress(OSError, UnicodeError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _print_json(shown: dict[str, Any], steps: list[str]) -> None:
    notes = [step.removeprefix("note: ") for step in steps if step.startswith("note: ")]
    _print(json.dumps({**shown, "steps": steps, "notes": notes}))


def _print_plainly(options: argparse.Namespace, shown: dict[str, Any]) -> None:
    if "error" in shown:
        for line in shown.get("log", []):
            _print(f"  | {line}")
        done = "went back" if shown["outcome"] == history.WENT_BACK else "not done"
        _print(f"{done}: {shown['error']}")
        if now := shown.get("serving"):
            _print(Serving(**now).in_words())
        return
    if "output" in shown:
        _print(shown["output"].rstrip("\n"))
    if "removed" in shown:
        _print(f"removed: {', '.join(shown['removed']) or 'nothing'}")
    lines = status.as_text(shown)
    if "history" in shown:
        lines = status.history_lines(Config.read(options.config))
    for line in lines:
        _print(line)
