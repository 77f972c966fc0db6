"""How a unit's process ended, in words: from systemd's properties, or from what it noted in the journal."""

from __future__ import annotations

import signal
from typing import Protocol

#: Exit codes that systemd itself gives, where it could not start the program (systemd.exec(5)).
_BEFORE_START = {
    200: "its folder (WorkingDirectory) could not be entered", 203: "the program could not be executed",
    216: "its group could not be set", 217: "its user could not be set", 226: "its sandbox could not be made",
}  # fmt: skip


#: Results of a unit that are the reason themselves, whatever its programs have logged.
BY_RESULT = {
    "oom-kill": "was ended by the kernel, as the memory was used up",
    "timeout": "was ended by systemd, as it was not up, or not down, in time",
}  # fmt: skip


#: The kernel's CLD_… (sigaction(2)), which systemd's ExecMainCode is, by the words of its journal.
_CODES = {1: "exited", 2: "killed", 3: "dumped"}


class Ended(Protocol):
    """What systemd says of a unit that does not run."""

    @property
    def result(self) -> str:
        """Its Result."""

    @property
    def restarts(self) -> int:
        """Its NRestarts."""

    @property
    def exit_code(self) -> int:
        """Its ExecMainCode."""

    @property
    def exit_status(self) -> int:
        """Its ExecMainStatus."""


def how_it_fell(unit: Ended, restarts: int, down: bool) -> str:
    """Say how a unit fell over. Once systemd has started it again, what it shows is of the new start.

    restarts: how often it had been started again before.
    """
    return ending(unit) if down else f"ended and was started again {times(unit.restarts - restarts)}"


def times(count: int) -> str:
    """Say how often something has happened."""
    return "once" if count == 1 else f"{count} times"


def ending(unit: Ended) -> str:
    """Say how a unit came to be down."""
    process = how_it_ended(_CODES[unit.exit_code], unit.exit_status) if unit.exit_code in _CODES else ""
    if unit.result == "start-limit-hit":
        return f"reached its start limit after {max(1, unit.restarts)} starts{process and f'; the last one {process}'}"
    if unit.result in BY_RESULT:
        return BY_RESULT[unit.result]
    if unit.result in ("exit-code", "signal", "core-dump", "success") and process:
        return process
    if unit.result in ("exit-code", "signal", "core-dump"):  # of a program before its own, as it has none that ended
        return f"could not be started (result: {unit.result})"
    return f"was ended by systemd (result: {unit.result})" if unit.result != "success" else "does not run"


def why_down(unit: Ended) -> str:
    """Say how a unit of ours came to be down, of which nobody waits that it starts.

    Units of ours are started again however they end: one that is down after a success was stopped.
    """
    return "was stopped" if unit.result == "success" and unit.exit_code in _CODES else ending(unit)


def how_it_ended(code: str, status: int) -> str:
    """Say how a process ended: `code` is exited, killed or dumped; `status` an exit code, or else a signal."""
    if code == "exited":
        because = f" ({_BEFORE_START[status]})" if status in _BEFORE_START else ""
        return f"exited with status {status}{because}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    return f"was killed by {name}{', with a core dump' if code == 'dumped' else ''}"
