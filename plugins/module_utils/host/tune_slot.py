"""A third slot, beside blue and green: same release, same units, same environment as the live one, for measuring.

It has a socket of its own that nginx does not know of, its two unit files stand in /run, it changes nothing else, and
no switch knows it. It is stopped and removed however its user ends: by itself, by ExecStopPost of the unit that tune.py
runs in, by a limit of time in its own unit, by a reboot.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from ..workers.plan import count
from .config import Config, HostError
from .context import Context
from .cutover import RefusedError
from .files import environment_content, read_environment, write_atomically
from .gate import GateError, prove
from .overlap import ASK_SECONDS, Overlap
from .reasons import explained
from .records import WORKERS
from .systemd import SystemdError

SLOT = "tune"
UNITS = Path("/run/systemd/system")
#: Seconds for the first answer of a path.
PATH_SECONDS = 30.0


@dataclass
class Slot:
    """The private slot. Used as a context: afterwards, whatever happened, it is gone."""

    context: Context
    live: str
    limit: float
    overlap: Overlap = field(init=False)

    def __enter__(self) -> Slot:
        """Start it with few workers; HostError where memory does not hold them, RefusedError where it does not boot."""
        config, systemd = self.context.config, self.context.systemd
        clean(self.context)
        self.overlap = Overlap(self.context, self.live, SLOT)
        engine = config.engine_of(self.live)
        workers = engine.least_workers
        self.overlap.first(workers, engine)
        files = config.slot_files(self.live)
        unit = files["service"].read_bytes()
        if WORKERS.encode() not in unit:
            raise HostError(
                f"{files['service']} was made by an earlier version and has its number of workers fixed: deploy once "
                "more. Nothing was measured"
            )
        cursor = systemd.cursor()
        try:
            UNITS.mkdir(parents=True, exist_ok=True)
            write_atomically(UNITS / config.service(SLOT), unit)
            folder = UNITS / f"{config.service(SLOT)}.d"
            folder.mkdir(exist_ok=True)
            write_atomically(folder / "private.conf", drop_in(config, self.live, self.limit).encode())
            environment = {**read_environment(config.slot_environment(self.live)), WORKERS: str(workers)}
            write_atomically(config.slot_environment(SLOT), environment_content(environment))
            write_atomically(UNITS / config.socket_unit(SLOT), files["socket"].read_bytes())
            systemd.start(config.socket_unit(SLOT), config.service(SLOT))
            prove(self.context, SLOT, workers)
        except BaseException as error:
            log = systemd.journal(config.service(SLOT), cursor)
            clean(self.context)
            if isinstance(error, (GateError, SystemdError)):
                raise RefusedError(f"the private slot did not start: {explained(error, log)}", log.lines) from error
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        """Remove it."""
        clean(self.context)

    def resize(self, number: int) -> bool:
        """Bring it to a number of workers that have all answered; False where memory does not hold one more.

        One at a time: a signal that is sent twice before the server has looked arrives once.
        """
        clock, asked, patience = self.context.clock, -1, 0.0
        deadline = clock.monotonic() + self.context.config.boot_timeout
        while (now := len(pids := self.context.pids(SLOT))) != number:
            if now != asked or clock.monotonic() >= patience:
                self.overlap.each = max([self.overlap.each, *map(self.context.kernel.memory_mib, pids)])
                if now < number and self.overlap.room() < self.overlap.each:
                    return False
                asked, patience = now, clock.monotonic() + ASK_SECONDS
                self.context.systemd.resize(self.context.config.service(SLOT), 1 if now < number else -1)
            if clock.monotonic() > deadline:
                raise HostError(f"{number} workers were asked for, {now} run")
            clock.sleep(0.05)
        try:
            prove(self.context, SLOT, number)
        except GateError as error:
            raise HostError(f"with {count(number)}, the private slot is unhealthy: {error}") from error
        return True

    def check(self, path: str) -> None:
        """Refuse a path that is not answered well; HostError."""
        answers = self.context.request(SLOT, path, PATH_SECONDS, 1)
        if not answers.good:
            reply = f"answers {answers.statuses[0]}" if answers.statuses[0] else f"gave no answer ({answers.error})"
            raise HostError(f"{path} {reply}, good is 200 to 399: nothing was measured, the live slot was not asked")


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


def clean(context: Context) -> None:
    """Stop the private slot and remove its files; nothing to do where there is none."""
    config, systemd = context.config, context.systemd
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
