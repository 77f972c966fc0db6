"""What a verb works with: settings, and everything outside of it that it asks or changes. Tests pass others in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..workers.engines import Engine
from . import proc, sockets
from .config import Config
from .proxy import Proxy
from .sockets import Answers
from .systemd import Systemd, UnitState
from .workers import worker_pids


@dataclass(frozen=True)
class Clock:
    """The time. Durations are taken from `monotonic`, which never jumps; `time` is what people read. Seconds."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    time: Callable[[], float] = time.time  # last: in this class, it hides the module


@dataclass(frozen=True)
class Kernel:
    """What the kernel says of processes and connections, and what it is asked to do to processes. Memory in MiB."""

    worker_pids: Callable[[int, Engine], list[int]] = worker_pids
    memory_mib: Callable[[int], float] = proc.memory_mib
    anonymous_mib: Callable[[int], float] = proc.anonymous_mib
    available_mib: Callable[[], float] = proc.available_mib
    oldest_first: Callable[[Iterable[int]], list[int]] = proc.oldest_first
    seconds_old: Callable[[int], float] = proc.seconds_old
    release_of: Callable[[int], str] = proc.release_of
    set_priority: Callable[[int, bool], None] = proc.set_priority
    kill: Callable[[int, int], None] = os.kill
    connections: Callable[[Path], int] = sockets.connections
    is_idle: Callable[[int, Path], bool] = sockets.is_idle
    state_of: Callable[[int], str] = proc.state
    threads: Callable[[int], int] = proc.threads
    beat_age: Callable[[int], float | None] = proc.beat_age
    pool: Callable[[int], proc.Pool | None] = proc.pool
    descriptors: Callable[[int], tuple[int, int]] = proc.descriptors
    listener: Callable[[int], tuple[int, str] | None] = proc.listener
    disk: Callable[[Path], os.statvfs_result] = os.statvfs


@dataclass
class Context:
    """One app on this host. `report` tells whoever waits what is done; `ask` is the prober of a slot's socket."""

    config: Config
    systemd: Systemd
    report: Callable[[str], None] = lambda _unused: None
    clock: Clock = field(default_factory=Clock)
    kernel: Kernel = field(default_factory=Kernel)
    ask: Callable[[Path, str, str, float, int, Iterable[int]], Answers] = sockets.ask
    proxy: Proxy = field(default_factory=Proxy)

    def state(self, slot: str) -> UnitState:
        """Return the state of a slot's service."""
        return self.systemd.state(self.config.service(slot))

    def pids(self, slot: str | None) -> list[int]:
        """Return a slot's workers."""
        return self.workers(slot, self.state(slot)) if slot else []

    def workers(self, slot: str, state: UnitState) -> list[int]:
        """Return the workers of a slot whose state was asked for just now."""
        return self.kernel.worker_pids(state.main_pid, self.config.engine_of(slot)) if state.main_pid else []

    def request(self, slot: str, path: str, seconds: float, count: int, pids: Iterable[int] = ()) -> Answers:
        """Send GET requests to a slot's own socket, all at once; `pids` are the workers of which one may answer."""
        return self.ask(self.config.socket(slot), path, self.config.of(slot).health_host, seconds, count, pids)

    def connections(self, slot: str) -> int:
        """Return how many clients are connected to a slot."""
        return self.kernel.connections(self.config.socket(slot))
