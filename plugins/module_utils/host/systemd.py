"""The few things that are asked of systemd. Tests put a fake in its place."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .endings import BY_RESULT, how_it_ended
from .log_excerpt import Entry, Excerpt, excerpt, expanded, plain

#: Lines of a log that are kept beside those that are shown: the heading of a long traceback may be far above, and a
#: secret may go over the line break before the first.
JOURNAL_LINES = 4000
#: What `show` asks of units.
PROPERTIES = (
    "Id", "LoadState", "ActiveState", "Result", "MainPID", "ExecMainCode", "ExecMainStatus", "NRestarts",
    "NeedDaemonReload",
)  # fmt: skip
_JOURNAL = ("journalctl", "--quiet", "--no-pager", "--output=cat")
#: SD_MESSAGE_UNIT_RESTART_SCHEDULED of systemd's sd-messages.h.
_RESTART_SCHEDULED = "5eb03494b6584870a536b337290809b3"


class SystemdError(Exception):
    """A systemctl call that failed, with what it said."""


@dataclass(frozen=True)
class UnitState:
    """What systemd knows of a unit. main_pid is 0 where nothing runs; queued: it is about to start or stop.

    exit_code, exit_status: how its main process ended last, as in systemd's ExecMainCode and ExecMainStatus.
    """

    active: str
    result: str
    main_pid: int
    restarts: int
    queued: bool = False
    exit_code: int = 0
    exit_status: int = 0

    @classmethod
    def of(cls, properties: Mapping[str, str]) -> UnitState:
        """Return what `systemctl show` says of a unit, by the names of its properties."""
        return cls(
            active=properties.get("ActiveState", "unknown"),
            result=properties.get("Result", "unknown"),
            main_pid=int(properties.get("MainPID") or 0),
            restarts=int(properties.get("NRestarts") or 0),
            queued=bool(int(properties.get("Job") or 0)),
            exit_code=int(properties.get("ExecMainCode") or 0),
            exit_status=int(properties.get("ExecMainStatus") or 0),
        )

    @property
    def down(self) -> bool:
        """Whether nothing runs and nothing is about to."""
        return self.active in ("failed", "inactive") and not self.queued


@dataclass(frozen=True)
class Command:
    """A command of the app's: run as its user, in a release's folder, with its environment. `limit` is in seconds."""

    words: tuple[str, ...]
    app: str
    user: str
    folder: Path
    environment_file: Path
    limit: float
    sandbox: tuple[tuple[str, str], ...] = ()
    unit: str = ""


class Systemd:
    """systemctl, journalctl and systemd-run.

    What the app has printed comes in by two of them, less its secrets: `mask`. The gate asks that, too.
    """

    def __init__(self, mask: Callable[[str], str]) -> None:
        self.mask = mask

    def start(self, *units: str) -> None:
        """Start units as their files now stand; does not wait until they are up."""
        self.reload()
        self._systemctl("reset-failed", *units, check=False)
        self._systemctl("start", "--no-block", *units)

    def reload(self) -> None:
        """Have systemd read the unit files again; nothing is restarted."""
        self._systemctl("daemon-reload")

    def stop(self, *units: str, wait: bool = True) -> None:
        """Stop units; with `wait`, return when they are down. Nothing of them counts as failed then."""
        states = {unit: self.state(unit).active for unit in units}
        for unit, state in states.items():
            if state != "inactive":
                self._systemctl("stop", *([] if wait else ["--no-block"]), unit)
        if over := [unit for unit, state in states.items() if wait or state == "failed"]:
            self._systemctl("reset-failed", *over, check=False)

    def enable(self, unit: str) -> None:
        """Have the unit started at boot.

        By its link alone (`--root`): asked to do it, systemd would take all units of the host for changed until the
        next reload, which a switch does anyway, once, after this.
        """
        self._systemctl("--root=/", "enable", "--quiet", unit)

    def disable(self, unit: str) -> None:
        """Do not start the unit at boot."""
        self._systemctl("--root=/", "disable", "--quiet", unit)

    def resize(self, unit: str, workers: int) -> None:
        """Have a server run one worker more (workers > 0) or one less: TTIN or TTOU to its main process."""
        main_pid = self.state(unit).main_pid
        if main_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(main_pid, signal.SIGTTIN if workers > 0 else signal.SIGTTOU)

    def state(self, unit: str) -> UnitState:
        """Return the unit's state; a unit that does not exist is inactive."""
        properties = "ActiveState,Result,MainPID,NRestarts,Job,ExecMainCode,ExecMainStatus"
        lines = self._systemctl("show", f"--property={properties}", unit).stdout.splitlines()
        return UnitState.of(dict(line.split("=", 1) for line in lines if "=" in line))

    def show(self, *units: str) -> dict[str, dict[str, str]]:
        """Return the PROPERTIES of units, in one call; systemd says something even of one that is not there."""
        output = self._systemctl("show", f"--property={','.join(PROPERTIES)}", *units, check=False).stdout
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.split("\n\n")
        ]
        return {block["Id"]: block for block in blocks if "Id" in block}

    def enabled_state(self, unit: str) -> str:
        """Return `enabled`, `disabled` or the like, as it stands on the disk; "" where there is no such unit.

        Not the property UnitFileState: of a unit that is loaded, systemd keeps what it was.
        """
        return self._systemctl("is-enabled", unit, check=False).stdout.strip()

    def restarts(self, unit: str, seconds: float) -> int:
        """Return how often a unit was started again by systemd within the last seconds, as its journal says."""
        done = _call(*_JOURNAL, f"--since=-{seconds:.0f}s", f"MESSAGE_ID={_RESTART_SCHEDULED}", f"UNIT={unit}")
        return len(done.stdout.splitlines())

    def recent(self, unit: str, seconds: float) -> list[list[Entry]]:
        """Return what each start of a unit logged within the last seconds, the last start last, without secrets.

        Its last lines if that is much. What systemd says of a start is with what that start logged.
        """
        starts: dict[str, list[Entry]] = {}
        start = ""
        for record in _records(unit, f"--since=-{seconds:.0f}s", f"--lines={JOURNAL_LINES}"):
            pid = _number(record.get("_PID"))
            # Of a message of systemd's own, the one with the underscore is systemd's start.
            start = str(record.get("INVOCATION_ID" if pid == 1 else "_SYSTEMD_INVOCATION_ID") or start)
            starts.setdefault(start, []).extend(Entry(pid, text) for text in _texts(record.get("MESSAGE")))
        return [self._masked(entries) for entries in starts.values()]

    def cursor(self) -> str:
        """Return the journal's present end. A place, not a time: the clock may jump."""
        done = _call("journalctl", "--quiet", "--lines=0", "--show-cursor")
        return done.stdout.partition("-- cursor: ")[2].strip()

    def journal(self, unit: str, after: str) -> Excerpt:
        """Return what the unit logged last after a cursor, without secrets.

        Not with --lines: together with --after-cursor, that gives the first lines after it.
        """
        _call("journalctl", "--sync")
        records = _records(unit, *([f"--after-cursor={after}"] if after else []))
        entries = [
            Entry(_number(record.get("_PID")), text) for record in records for text in _texts(record.get("MESSAGE"))
        ]
        by_systemd = [record for record in records if _number(record.get("_PID")) == 1]
        ends = [record for record in by_systemd if record.get("EXIT_CODE")]
        ended = how_it_ended(str(ends[-1]["EXIT_CODE"]), _number(ends[-1].get("EXIT_STATUS"))) if ends else ""
        results = [str(record["UNIT_RESULT"]) for record in by_systemd if record.get("UNIT_RESULT")]
        result = BY_RESULT.get(results[-1], "") if results else ""
        return replace(excerpt(self._masked(entries), result or ended), by_result=bool(result))

    def _masked(self, entries: Sequence[Entry]) -> list[Entry]:
        """Take the secrets out of what each process wrote: one that goes over a line break takes the break with it."""
        places: dict[int, list[int]] = {}
        for place, entry in enumerate(entries):
            places.setdefault(entry.pid, []).append(place)
        made: dict[int, Entry] = {}
        for pid, own in places.items():
            lines = self.mask("\n".join(entries[place].text for place in own)).split("\n")
            made.update(zip(own[-len(lines) :], (Entry(pid, line) for line in lines), strict=False))
        return [made[place] for place in sorted(made)]

    def run(self, command: Command) -> tuple[int, str]:
        """Run a command of the app's in a unit of its own; return its exit code and what it printed, less secrets."""
        properties = (
            ("User", command.user), ("Group", command.user), ("WorkingDirectory", command.folder),
            ("EnvironmentFile", command.environment_file), ("RuntimeMaxSec", f"{command.limit:g}"), *command.sandbox,
        )  # fmt: skip
        done = _call(
            *transient(f"A command of {command.app}", properties, command.unit),
            # systemd puts its own values in place of ${NAME}; the command is to get what was written.
            "--", *(word.replace("$", "$$") for word in command.words),
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, self.mask(done.stdout)

    @staticmethod
    def _systemctl(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = _call("systemctl", *words)
        if check and done.returncode != 0:
            raise SystemdError(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done


def transient(about: str, properties: Iterable[tuple[str, object]], unit: str = "", wait: bool = True) -> list[str]:
    """Return the words before a command that run it in a unit of its own; with `wait`, until it ends, with its output.

    Nothing is left of the unit, however the command ends.
    """
    return [
        "systemd-run", "--quiet", *(["--wait", "--pipe"] if wait else []), "--collect", f"--description={about}",
        *([f"--unit={unit}"] if unit else []), *(f"--property={name}={value}" for name, value in properties),
    ]  # fmt: skip


def in_unit(
    unit: str, about: str, settings: Path, words: Sequence[str], after: Sequence[str], seconds: float,
    output: Path | None = None, unless: str = "",
) -> list[str]:  # fmt: skip
    """Return the command that runs this same program with `words` in a transient unit, and waits for it.

    systemd ends it after so many seconds, and however it ends, runs this program with the words `after`, but where the
    shell's condition `unless` holds. With `output`, a file for what it prints, it is not waited for.
    """
    program = [sys.executable, "-I", "-B", str(Path(__file__).parents[2]), "--config", str(settings)]
    then = " ".join([*program, *after])
    properties = {
        "RuntimeMaxSec": f"{seconds:g}",
        "TimeoutStopSec": f"{seconds:g}",
        # "-": what the caller is told is how the program ended, not how the look after it did.
        "ExecStopPost": f"-/bin/sh -c '{unless} || exec {then}'" if unless else f"-{then}",
        # Not "truncate": what ExecStopPost runs would open it anew.
        **({"StandardOutput": f"append:{output}"} if output else {}),
    }
    return [*transient(about, properties.items(), unit, wait=output is None), *program[:4], *words]


def _records(unit: str, *where: str) -> list[dict[str, Any]]:
    """Return the last records of a unit's journal, with the fields that are looked at here."""
    fields = "MESSAGE,_PID,EXIT_CODE,EXIT_STATUS,UNIT_RESULT,INVOCATION_ID,_SYSTEMD_INVOCATION_ID"
    command = [
        "journalctl", "--quiet", "--no-pager", "--all", "--output=json", f"--unit={unit}",
        f"--output-fields={fields}", *where,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as reader:
        return [_record(line) for line in deque(reader.stdout or (), JOURNAL_LINES)]


def _record(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int:
    return int(value) if isinstance(value, str) and value.isdigit() else 0


def _texts(message: object) -> list[str]:
    """Return the lines of a message as journalctl gives it: a text, or its bytes as numbers where it is none."""
    if isinstance(message, list) and all(isinstance(item, int) for item in message):
        message = bytes(message).decode("utf-8", "replace")
    texts = message if isinstance(message, list) else [message]
    lines = [plain(line) for text in texts if isinstance(text, str) for line in text.split("\n")]
    return [part for line in lines for part in expanded(line)]


def _call(*words: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it printed. An app may print any bytes: they must not end the switch."""
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
