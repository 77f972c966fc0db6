"""What an engine is: the server that runs an app's workers, on a host and in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

#: What the app's own shutdown (lifespan) has, at least, when requests have had their time to end: gunicorn kills
#: workers that are later. The unit's TimeoutStopSec is a little more; server/fleet_preload.py has the same figure.
SHUTDOWN_SECONDS = 8


@dataclass(frozen=True)
class Process:
    """A process: its id and its command line, the words separated by NUL as in /proc/PID/cmdline."""

    pid: int
    command: bytes


@dataclass(frozen=True)
class Start:
    """How a server is started. Words may hold systemd's `${NAME}`, which it replaces by the slot's own data.

    python: the interpreter and its options. app: MODULE:ATTRIBUTE, with `()` where a call makes the app; attribute: the
    same without. workers: how many. timeout: seconds that an event loop may stand still. bind: HOST:PORT, "" for the
    socket that systemd passes. drain: seconds that requests may take to end. http: the package of http.py, where
    clients may reach the server without an nginx of ours. classes: folder of the worker classes (server/), on a host.
    version: of Python, as (3, 12). The rest are settings of the role service.
    """

    python: Sequence[str]
    app: str
    attribute: str
    workers: str
    timeout: str
    bind: str = ""
    drain: str = ""
    http: str = ""
    classes: str = ""
    shared_memory: str = ""
    version: tuple[int, int] = (3, 10)
    even_bursts: bool = False
    recycles: bool = False
    keepalive: bool = False


class Engine:
    """A server. Each is one file of this folder with one `ENGINE`; nothing else compares an engine's name."""

    name: ClassVar[str]
    #: systemd's Type=. `notify` only where the server itself says that it is up.
    unit_type: ClassVar[str] = "notify"
    #: The least number of workers from which it can add and remove one while it runs (SIGTTIN, SIGTTOU).
    least_workers: ClassVar[int] = 1
    #: What a release needs for it, as names on PyPI; first the one without which it cannot start.
    packages: ClassVar[tuple[str, ...]]
    #: Settings that it cannot do: they have to be off.
    lacks: ClassVar[frozenset[str]] = frozenset()

    def command(self, start: Start) -> list[list[str]]:
        """Return the command line, in groups of words that a reader wants to see on one line."""
        raise NotImplementedError

    def workers(self, main: Process, children: Sequence[Process]) -> list[int]:  # noqa: ARG002
        """Return the workers among the children of the main process."""
        return [child.pid for child in children]

    def may_end(self, workers: Sequence[int]) -> set[int]:
        """Return of which workers, the oldest first, one ends when the server is told to end one."""
        return set(workers[:1])

    def refusal(self, packages: Mapping[str, str]) -> str:  # noqa: ARG002
        """Say why the versions of a release, by package, are not to be run; "" where they may."""
        return ""


def major(version: str) -> int | None:
    """Return the first number of a version, None where there is none."""
    text = version.partition(".")[0]
    return int(text) if text.isdigit() else None
