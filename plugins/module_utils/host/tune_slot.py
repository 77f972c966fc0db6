"""A third slot, beside blue and green: same release, same units, same environment as the live one, for measuring.

It has a socket of its own that nginx does not know of, its two unit files stand in /run, it changes nothing else, and
no switch knows it. It is stopped and removed however its user ends: by itself, by ExecStopPost of the unit that tune.py
runs in, by a limit of time in its own unit, by a reboot.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from .config import Config, HostError
from .files import write_atomically
from .gate import GateError, wait_until_proven
from .overlap import ASK_SECONDS, Overlap, fewest, with_workers
from .switch import RefusedError
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
        workers = fewest(engine)
        self.overlap.first(workers, engine)
        files = self.config.slot_files(self.live)
        cursor = self.systemd.cursor()
        try:
            UNITS.mkdir(parents=True, exist_ok=True)
            unit = private_unit(files["service"].read_bytes(), self.live, self.limit, workers)
            write_atomically(UNITS / self.config.service(SLOT), unit)
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


def private_unit(unit: bytes, live: str, limit: float, workers: int) -> bytes:
    """Return the live slot's service unit for the private slot: few workers, and an end of its own.

    Files and folders that it names stay the live slot's: it runs the same code with the same environment. `limit` is in
    seconds.
    """
    own = re.sub(
        rb"^(?:WorkingDirectory|EnvironmentFile)=.*$",
        lambda line: line[0].replace(b"%i", live.encode()),
        with_workers(unit, workers),
        flags=re.MULTILINE,
    )
    return own + f"\n[Service]\nRestart=no\nRuntimeMaxSec={limit:.0f}\n".encode()


def clean(config: Config, systemd: Systemd) -> None:
    """Stop the private slot and remove its files; nothing to do where there is none."""
    units = config.service(SLOT), config.socket_unit(SLOT)
    systemd.stop(*units)
    there = [UNITS / unit for unit in units if (UNITS / unit).exists()]
    for path in there:
        path.unlink(missing_ok=True)
    if there:
        systemd.reload()
