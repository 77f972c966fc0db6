"""A third slot, beside blue and green: same release, same units, same environment as the live one, for measuring.

It has a socket of its own that nginx does not know of, its two unit files stand in /run, it changes nothing else, and
no switch knows it. It is stopped and removed however its user ends: by itself, by ExecStopPost of the unit that tune.py
runs in, by a limit of time in its own unit, by a reboot.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from .config import Config, HostError
from .files import environment_content, read_environment, write_atomically
from .gate import GateError, wait_until_proven
from .overlap import ASK_SECONDS, Overlap
from .switch import WORKERS, RefusedError
from .systemd import Systemd, SystemdError
from .workers import ask, memory_mib

SLOT = "tune"
UNITS = Path("/run/systemd/system")
#: Seconds for the first answer of a path.
PATH_SECONDS = 30.0


@dataclass
class Slot:
    """The private slot. Used as a context: afterwards, whatever happened, it is gone."""

    config: Config
    systemd: Systemd
    live: str
    limit: float
    overlap: Overlap = field(init=False)

    def __enter__(self) -> Slot:
        """Start it with few workers; HostError where memory does not hold them, RefusedError where it does not boot."""
        clean(self.config, self.systemd)
        self.overlap = Overlap(self.config, self.systemd, self.live, SLOT)
        engine = self.config.engine_of(self.live)
        workers = engine.least_workers
        self.overlap.first(workers, engine)
        files = self.config.slot_files(self.live)
        unit = files["service"].read_bytes()
        if WORKERS.encode() not in unit:
            raise HostError(
                f"{files['service']} was made by an earlier version and has its number of workers fixed: deploy once "
                "more. Nothing was measured"
            )
        cursor = self.systemd.cursor()
        try:
            UNITS.mkdir(parents=True, exist_ok=True)
            write_atomically(UNITS / self.config.service(SLOT), unit)
            folder = UNITS / f"{self.config.service(SLOT)}.d"
            folder.mkdir(exist_ok=True)
            write_atomically(folder / "private.conf", drop_in(self.config, self.live, self.limit).encode())
            variables = read_environment(self.config.slot_environment(self.live))
            own = environment_content({**variables, WORKERS: str(workers)})
            write_atomically(self.config.slot_environment(SLOT), own)
            write_atomically(UNITS / self.config.socket_unit(SLOT), files["socket"].read_bytes())
            self.systemd.start(self.config.socket_unit(SLOT), self.config.service(SLOT))
            wait_until_proven(self.config, self.systemd, SLOT, workers)
        except BaseException as error:
            log = self.systemd.journal(self.config.service(SLOT), cursor)
            clean(self.config, self.systemd)
            if isinstance(error, (GateError, SystemdError)):
                raise RefusedError(f"the private slot did not start: {error}", log) from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        clean(self.config, self.systemd)

    def resize(self, number: int) -> bool:
        """Bring it to a number of workers that have all answered; False where memory does not hold one more.

        One at a time: a signal that is sent twice before the server has looked arrives once.
        """
        asked, patience = -1, 0.0
        deadline = time.monotonic() + self.config.boot_timeout
        while (now := len(pids := self.overlap.pids(SLOT))) != number:
            if now != asked or time.monotonic() >= patience:
                self.overlap.each = max([self.overlap.each, *map(memory_mib, pids)])
                if now < number and self.overlap.room() < self.overlap.each:
                    return False
                asked, patience = now, time.monotonic() + ASK_SECONDS
                self.systemd.resize(self.config.service(SLOT), 1 if now < number else -1)
            if time.monotonic() > deadline:
                raise HostError(f"{number} workers were asked for, {now} run")
            time.sleep(0.05)
        try:
            wait_until_proven(self.config, self.systemd, SLOT, number)
        except GateError as error:
            raise HostError(f"with {number} workers, the private slot is not well: {error}") from error
        return True

    def check(self, path: str) -> None:
        """Refuse a path that is not answered well; HostError."""
        answers = ask(self.config.socket(SLOT), path, self.config.health_host, PATH_SECONDS, 1)
        if not answers.good:
            said = f"answers {answers.statuses[0]}" if answers.statuses[0] else f"gave no answer ({answers.error})"
            raise HostError(f"{path} {said}, good is 200 to 399: nothing was measured, the live slot was not asked")


def drop_in(config: Config, live: str, limit: float) -> str:
    """Return what the private slot has otherwise than the live slot's unit: an end of its own, `limit` in seconds.

    Files and folders stay the live slot's, which the unit names by %i: it runs the same code with the same environment.
    """
    return (
        "[Service]\nRestart=no\n"
        f"RuntimeMaxSec={limit:.0f}\n"
        f"WorkingDirectory={config.root}/slots/{live}/app\n"
        "EnvironmentFile=\n"
        f"EnvironmentFile={config.slot_files(live)['environment']}\n"
        f"EnvironmentFile={config.slot_environment(SLOT)}\n"
    )


def clean(config: Config, systemd: Systemd) -> None:
    """Stop the private slot and remove its files; nothing to do where there is none."""
    units = config.service(SLOT), config.socket_unit(SLOT)
    systemd.stop(*units)
    folder = UNITS / f"{config.service(SLOT)}.d"
    own = (folder / "private.conf", *(UNITS / unit for unit in units), config.slot_environment(SLOT))
    there = [path for path in own if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    if there:
        with contextlib.suppress(OSError):
            folder.rmdir()
        systemd.reload()
