"""What the kernel says of processes and memory: the one reader of /proc on a host."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
#: A third of the weight of others, by the kernel's table: more would have a boot starve on a host that is full.
LOW_PRIORITY = 5
_CAP_SYS_NICE = 1 << 23
_TICKS = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat behind the name, which may hold anything: see proc(5), where they count from 3.
_STATE, _PARENT, _THREADS, _START = 0, 1, 17, 19
#: gunicorn's file for a worker's signs of life begins so; it is deleted, but for the descriptors.
_BEATS, _NOTE_BYTES = "wgunicorn-", 64
#: A state in /proc/net/tcp (net/tcp_states.h).
_LISTENS = "0A"


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name; none once the process is gone."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def command(pid: int) -> bytes:
    """Return a process's command line, its words separated by NUL; nothing once it is gone."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes()
    return b""


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    running = []
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (fields := stat_fields(int(folder.name))):
            state, parent = fields[:2]
            if int(parent) == pid and state != "Z":
                running.append(int(folder.name))
    return running


def ancestors(pid: int) -> list[int]:
    """Return a process and its ancestors below PID 1; where one of them ends, this is no longer the same."""
    line: list[int] = []
    while pid > 1 and (fields := stat_fields(pid)):
        line.append(pid)
        pid = int(fields[_PARENT])
    return line


def state(pid: int) -> str:
    """Return a process's state as proc(5) has it, T for one that was stopped; "" once it is gone."""
    fields = stat_fields(pid)
    return fields[_STATE] if fields else ""


def threads(pid: int) -> int:
    """Return how many threads a process has; 0 once it is gone."""
    fields = stat_fields(pid)
    return int(fields[_THREADS]) if fields else 0


def beat_age(pid: int) -> float | None:
    """Return how many seconds ago a worker of gunicorn's gave a sign of life; None for one that gives none.

    It sets its file's time to that of the clock that never jumps.
    """
    for target, entry in _descriptors(pid):
        if os.path.basename(target).startswith(_BEATS):
            with contextlib.suppress(OSError):
                return max(0.0, time.monotonic() - entry.stat().st_mtime)
    return None


@dataclass(frozen=True)
class Pool:
    """A worker's threads for `def` routes: how many are busy, of how many, how many requests wait, since when it is so.

    Seconds count while all are busy and somebody waits.
    """

    busy: int
    total: int
    waiting: int
    seconds: float


def pool(pid: int) -> Pool | None:
    """Return what a worker has written down of its thread pool; None for one that does not (worker/own_worker.py)."""
    for target, entry in _descriptors(pid):
        if os.path.basename(target).startswith(_BEATS):
            with contextlib.suppress(OSError, ValueError):
                busy, total, waiting, seconds = entry.read_bytes()[:_NOTE_BYTES].split()
                return Pool(int(busy), int(total), int(waiting), float(seconds))
    return None


def descriptors(pid: int) -> tuple[int, int]:
    """Return how many file descriptors a process has, and may have; the second is 0 where that is not known."""
    limit = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = (PROC / str(pid) / "limits").read_text()
        limit = int(text.partition("Max open files")[2].split()[0])
    return len(_descriptors(pid)), limit


def oldest_first(pids: Iterable[int]) -> list[int]:
    """Return processes in the order in which they were started; those that are gone are left out."""
    started = {pid: int(fields[_START]) for pid in pids if (fields := stat_fields(pid))}
    return sorted(started, key=lambda pid: (started[pid], pid))


def seconds_old(pid: int) -> float:
    """Return how long ago a process was started, by the clock that never jumps; 0 once it is gone."""
    fields = stat_fields(pid)
    # Since boot, as in /proc/PID/stat; /proc/uptime may be a container's own.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START]) / _TICKS if fields else 0.0


def memory_mib(pid: int) -> float:
    """Return what a process takes of the memory, its part of shared pages counted in (PSS), in MiB; 0 once it is gone.

    PSS, not RSS: what forks share would be counted once for each of them.
    """
    return _mib(PROC / str(pid) / "smaps_rollup", "Pss:") or 0.0


def anonymous_mib(pid: int) -> float:
    """Return what a process takes beside the files that it has mapped, in MiB, as if no fork shared it; 0 once gone."""
    return _mib(PROC / str(pid) / "smaps_rollup", "Anonymous:") or 0.0


def available_mib() -> float:
    """Return what the kernel says could be had without swapping; infinite where it does not say."""
    available = _mib(PROC / "meminfo", "MemAvailable:")
    return float("inf") if available is None else available


def _mib(path: Path, name: str) -> float | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return None


def release_of(pid: int) -> str:
    """Return the release that a process was started with, as its own environment says."""
    with contextlib.suppress(OSError):
        variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        values = [value for name, _unused, value in (v.partition(b"=") for v in variables) if name == b"FLEET_RELEASE"]
        return values[-1].decode() if values else ""
    return ""


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of the sockets that a process holds."""
    return {int(target[8:-1]) for target, _unused in _descriptors(pid) if target.startswith("socket:[")}


def _descriptors(pid: int) -> list[tuple[str, Path]]:
    """Return what a process has open, each with where that is found."""
    found = []
    with contextlib.suppress(OSError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.append((os.readlink(entry), entry))
    return found


def listener(port: int) -> tuple[int, str] | None:
    """Return who listens on a TCP port, as process id and name; 0 and "" where it hides, None where nobody does."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in (PROC / "net" / table).read_text().splitlines()[1:]]
            # Columns 1, 3 and 9: local address with the port in hexadecimal, state, inode.
            inodes |= {int(row[9]) for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port}
    if not inodes:
        return None
    for folder in PROC.iterdir():
        if folder.name.isdigit() and socket_inodes(int(folder.name)) & inodes:
            with contextlib.suppress(OSError):
                return int(folder.name), (folder / "comm").read_text().strip()
    return 0, ""


def set_priority(main_pid: int, low: bool) -> None:
    """Give a server and its workers less of the CPU than others get, or as much again.

    A release that boots takes all cores for some seconds; those who are served meanwhile are not to wait for it.
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        allowed = int((PROC / "self/status").read_text().partition("CapEff:")[2].split()[0], 16)
        # Only who can take it back may do it; and only to a group of processes that is the server's own.
        if allowed & _CAP_SYS_NICE and os.getpgid(main_pid) == main_pid:
            os.setpriority(os.PRIO_PGRP, main_pid, LOW_PRIORITY if low else 0)
