"""The machine: full or read-only disks, the clock, recycling, a switch that was cut off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .. import recycle
from ..journal import Transaction
from ..locks import holder
from ..preflight import ROOM_BYTES, ROOM_INODES, clock_trouble
from .finding import DIFFERS, HURTS_AT_RESTART, Finding, Snapshot
from .units import ending


def has_no_room(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that a file system that deploys, systemd, nginx or the app write to is full, out of inodes, or read-only."""
    config = snapshot.context.config
    places = {
        config.root: "releases and the records of switches lie there",
        config.etc: "settings lie there",
        config.run: "the slots' sockets and what systemd keeps of units lie there",
        Path("/var/log"): "logs lie there, of nginx and of all units",
        Path("/var/lib", config.app): "the app's own data lies there",
    }
    if config.proxy_log:
        places[Path(config.proxy_log).parent] = "nginx's logs lie there: a release that is watched cannot be judged"
    seen = set()
    for place, content in places.items():
        try:
            disk, device = snapshot.context.kernel.disk(place), place.stat().st_dev
        except OSError:
            continue
        if trouble := _trouble(disk):
            if device not in seen:
                yield Finding(HURTS_AT_RESTART, "no room", f"{place} {trouble}; {content}")
            seen.add(device)


def _trouble(disk: os.statvfs_result) -> str:
    if disk.f_flag & os.ST_RDONLY:
        return "is on a file system that is read-only (mount, dmesg)"
    free = disk.f_bavail * disk.f_frsize
    if free < ROOM_BYTES:
        return f"is full ({free >> 10} kB are free): make room"
    if disk.f_files and disk.f_favail < ROOM_INODES:
        return f"is out of inodes ({disk.f_favail} are free): make room"
    return ""


def has_a_wrong_clock(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the clock is behind the last switch: certificates, tokens and deploys go wrong."""
    context = snapshot.context
    if trouble := clock_trouble(context.config, context.clock.time()):
        yield Finding(DIFFERS, "wrong clock", trouble)


def does_not_recycle(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that workers over service_worker_memory_max_mib are to be replaced, and are not."""
    config = snapshot.context.config
    if not config.worker_memory_max_mib or snapshot.is_down:
        return
    timer, service = recycle.timer(config), recycle.unit(config)
    if reason := recycle.stopped(config):
        yield Finding(DIFFERS, "recycling stopped", f"recycling has stopped: {reason}")
    elif snapshot.unit(timer).get("ActiveState", "active") in ("failed", "inactive"):
        text = f"{timer} is down, so no worker is recycled: systemctl start {timer}"
        yield Finding(DIFFERS, "recycling stopped", text)
    elif snapshot.unit(service).get("ActiveState") == "failed":
        text = f"{service} failed ({ending(snapshot.unit(service))}): journalctl -u {service}"
        yield Finding(DIFFERS, "recycling fails", text)


def has_a_cut_off_switch(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that a switch was begun, and neither finished nor taken back."""
    config = snapshot.context.config
    transaction = None if holder(config) is not None else Transaction.read(config)
    if transaction is not None:
        text = f"a switch to release {transaction.release} was cut off: {config.app}-release recover"
        yield Finding(DIFFERS, "switch cut off", text)
