"""The few things that are asked of systemd. Tests put a fake in its place."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


class SystemdError(Exception):
    """A systemctl call that failed, with what it said."""


@dataclass(frozen=True)
class UnitState:
    """What systemd knows of a unit. main_pid is 0 where nothing runs; queued: it is about to start or stop."""

    active: str
    result: str
    main_pid: int
    restarts: int
    queued: bool = False


class Systemd:
    """systemctl and journalctl."""

    def start(self, *units: str) -> None:
        """Start units as their files now stand; does not wait until they are up."""
        self._systemctl("daemon-reload")
        self._systemctl("reset-failed", *units, check=False)
        self._systemctl("start", "--no-block", *units)

    def stop(self, *units: str) -> None:
        """Stop units and wait until they are down."""
        for unit in units:
            self._stop(unit)
        self._systemctl("reset-failed", *units, check=False)

    def _stop(self, unit: str) -> None:
        if self.state(unit).active != "inactive":
            self._systemctl("stop", unit)

    def enable(self, unit: str) -> None:
        """Have the unit started at boot. That needs no reload now: the links are read at boot."""
        self._systemctl("enable", "--quiet", "--no-reload", unit)

    def disable(self, unit: str) -> None:
        """Do not start the unit at boot."""
        self._systemctl("disable", "--quiet", "--no-reload", unit)

    def state(self, unit: str) -> UnitState:
        """Return the unit's state; a unit that does not exist is inactive."""
        properties = "ActiveState,Result,MainPID,NRestarts,Job"
        lines = self._systemctl("show", f"--property={properties}", unit).stdout.splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        return UnitState(
            active=found.get("ActiveState", "unknown"),
            result=found.get("Result", "unknown"),
            main_pid=int(found.get("MainPID") or 0),
            restarts=int(found.get("NRestarts") or 0),
            queued=bool(int(found.get("Job") or 0)),
        )

    def journal(self, unit: str, since: float, lines: int = 60) -> list[str]:
        """Return the last lines that the unit logged since a time (seconds of the epoch)."""
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={unit}"]
        done = subprocess.run(
            [*command, f"--since=@{int(since)}", f"--lines={lines}"], capture_output=True, text=True, check=False
        )
        return done.stdout.splitlines()

    @staticmethod
    def _systemctl(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise SystemdError(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done
