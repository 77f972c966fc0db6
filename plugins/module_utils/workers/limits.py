"""What there is for workers: the machine's CPUs and memory, the limits of control groups, what live workers take.

Reads and understands; what follows from it is plan.py's to say. Never fails: what is missing is no limit, what
makes no sense is left out and noted. Python 3.10's standard library, and nothing of this bundle: it is copied into the
app's image, too.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
#: What is assumed where the memory cannot be read, in MiB: a small machine's.
UNKNOWN_MEMORY = 512
#: From here on, cgroup v1 means that there is no limit (it shows the greatest number of whole pages).
_NO_LIMIT = 1 << 60
_PERIOD = "100000"
#: Of what a worker was measured to take, a fourth more counts, rounded up to steps.
ROOM, STEP_MIB = 1.25, 25


@dataclass(frozen=True)
class Groups:
    """The tightest limits of all control groups that a process is in, None where there is none.

    quota is in CPUs, memory_limit_mib in MiB; notes tell what was left out.
    """

    quota: float | None = None
    memory_limit_mib: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A mounted hierarchy of control groups: its controllers ({""}: version 2), the group at its root, its place."""

    controllers: frozenset[str]
    group: str
    point: str


#: Where they are when the kernel's table of mounts does not tell.
USUAL = (
    Mount(frozenset({""}), "/", "/sys/fs/cgroup"),
    Mount(frozenset({"cpu"}), "/", "/sys/fs/cgroup/cpu"),
    Mount(frozenset({"memory"}), "/", "/sys/fs/cgroup/memory"),
)


def parse_memberships(text: str) -> dict[str, str]:
    """Return the group of each controller from /proc/PID/cgroup; that of version 2 has the name ""."""
    memberships = {}
    for line in text.splitlines():
        _unused, _unused, rest = line.partition(":")
        names, _unused, path = rest.partition(":")
        if path.startswith("/"):
            memberships.update(dict.fromkeys(names.split(","), path))
    return memberships


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounted hierarchies from /proc/PID/mountinfo."""
    mounts = []
    for line in text.splitlines():
        # ID parent device ROOT POINT options [optional…] - TYPE source SUPER-OPTIONS
        match = re.match(r"\S+ \S+ \S+ (/\S*) (/\S*) .*?- (cgroup2?) \S+ (\S+)", line)
        if match:
            group, point = (
                re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), part) for part in match.group(1, 2)
            )
            controllers = {""} if match[3] == "cgroup2" else set(match[4].split(","))
            mounts.append(Mount(frozenset(controllers), group, point))
    return mounts


def group_folders(controller: str, memberships: Mapping[str, str], mounts: list[Mount], below: str = "") -> list[str]:
    """Return the folders of a process's group and of all above it that can be seen, the outermost first.

    A hierarchy may be mounted from a group of it on (a container's own), and a namespace may hide what is above.
    """
    path = memberships.get(controller, "/")
    if below:
        # PID 1 is in a group of its own, beside the one that its services are in.
        path = f"{path.removesuffix('/').removesuffix('/init.scope')}/{below}"
    mine = [mount for mount in mounts if controller in mount.controllers]
    visible = [mount for mount in mine if f"{path}/".startswith(f"{mount.group.rstrip('/')}/") and ".." not in path]
    if not visible:
        return [mount.point for mount in mine]
    folders = []
    for mount in visible:
        parts = [part for part in path[len(mount.group.rstrip("/")) :].split("/") if part]
        folders += ["/".join([mount.point.rstrip("/"), *parts[:depth]]) for depth in range(len(parts) + 1)]
    return folders


def parse_cpu_max(text: str) -> float | None:
    """Return the CPUs that `cpu.max` allows, None for no limit. Raises ValueError for nonsense."""
    words = text.split()
    if len(words) not in {1, 2}:
        raise ValueError(text)
    return None if words[0] == "max" else _ratio(words[0], [*words, _PERIOD][1])


def parse_cfs_quota(text: str) -> float | None:
    """Return the CPUs that `cpu.cfs_quota_us` and, behind a blank, `cpu.cfs_period_us` allow; None for -1, no limit."""
    quota, period = text.split()
    return None if quota == "-1" else _ratio(quota, period)


def parse_memory(text: str) -> int | None:
    """Return the MiB of `memory.max` or `memory.limit_in_bytes`, None for no limit. Raises ValueError for nonsense."""
    word = text.strip()
    if word in {"max", "-1"}:
        return None
    number = _above_zero(word)
    return None if number >= _NO_LIMIT else max(1, number >> 20)


def _ratio(quota: str, period: str) -> float:
    return _above_zero(quota) / _above_zero(period)


def _above_zero(text: str) -> int:
    word = text.strip()
    if not (word.isascii() and word.isdigit() and int(word[:30])):
        raise ValueError(text)
    return int(word[:30])


def read_groups(root: Path = ROOT, pid: str = "self", below: str = "") -> Groups:
    """Read the limits that hold for a process, or in the group `below` of its parent; the tightest of all counts."""
    memberships = parse_memberships(text_of(root / "proc" / pid / "cgroup") or "")
    mounts = parse_mounts(text_of(root / "proc/self/mountinfo") or "") or list(USUAL)
    notes: list[str] = []

    def limits(controller: str, name: str, parse: Callable[[str], float | None], beside: str = "") -> Iterator[float]:
        for folder in group_folders(controller, memberships, mounts, below):
            file = root / folder.lstrip("/") / name
            if (text := text_of(file)) is None:
                continue
            if beside:
                text = f"{text.strip()} {(text_of(file.with_name(beside)) or _PERIOD).strip()}"
            try:
                limit = parse(text)
            except ValueError:
                notes.append(f"{file} says {text.strip()[:40]!r}, which is no limit: ignored")
            else:
                yield from [] if limit is None else [limit]

    quotas = [
        *limits("", "cpu.max", parse_cpu_max),
        *limits("cpu", "cpu.cfs_quota_us", parse_cfs_quota, beside="cpu.cfs_period_us"),
    ]
    memory = [
        *limits("", "memory.max", parse_memory),
        *limits("", "memory.high", parse_memory),  # above it, a group is slowed down until it hardly runs
        *limits("memory", "memory.limit_in_bytes", parse_memory),
    ]
    return Groups(min(quotas, default=None), int(min(memory)) if memory else None, tuple(notes))


def read_machine(root: Path = ROOT) -> dict[str, int | None]:
    """Return `vcpus`, `affinity` and `memory_mib` as `plan_workers` names them."""
    cpus = re.findall(r"^processor\s*:", text_of(root / "proc/cpuinfo") or "", re.MULTILINE)
    meminfo = text_of(root / "proc/meminfo") or ""
    return {
        "vcpus": len(cpus) or os.cpu_count() or 1,
        "affinity": parse_affinity(text_of(root / "proc/self/status") or ""),
        "memory_mib": max(1, memory_of(meminfo)) if "MemTotal:" in meminfo else _physical_mib(),
    }


def memory_of(meminfo: str) -> int:
    """Return MiB of memory, as `setup` counts `memtotal_mb`, from the text of /proc/meminfo; 0 where it is not told."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) >> 10 if match else 0


def parse_affinity(status: str) -> int | None:
    """Return how many CPUs /proc/PID/status says a process may run on, None where it does not say."""
    match = re.search(r"^Cpus_allowed_list:\s+([\d,-]+)$", status, re.MULTILINE)
    if not match:
        return None
    ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in match[1].split(",")]
    count = sum(int(part[2] or part[1]) - int(part[1]) + 1 for part in ranges if part)
    return count if count > 0 else None


def _physical_mib() -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a Mac has no /proc
        return max(1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20)
    return UNKNOWN_MEMORY


def planned_mib(measured: float) -> int:
    """Return what a plan counts for a worker that was measured to take so much, in MiB."""
    return math.ceil(measured * ROOM / STEP_MIB) * STEP_MIB


def text_of(path: Path) -> str | None:
    """Return a file's text, None where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
