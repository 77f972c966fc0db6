"""What is looked at before a switch changes anything."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ..workers.engines import Engine
from . import history
from .config import Config, HostError
from .files import read_object
from .records import SLOTS, bad_reason

#: What a switch writes is some kB; with less than this on the disk it is not begun.
ROOM_BYTES, ROOM_INODES = 2 << 20, 50
#: A clock is set by some seconds now and then; further back means that it is wrong now, or was.
CLOCK_SECONDS = 300


def check_release(config: Config, release: str) -> dict[str, Any]:
    """Return the manifest of a complete release; HostError for one that is not there or not whole."""
    folder = config.release_dir(release)
    if not release.isalnum() or not folder.is_dir():
        names = (path.parent.name for path in config.root.glob("releases/*/.complete"))
        known = sorted(name for name in names if history.is_whole(config, name))
        raise HostError(f"release {release!r} is not on this host; there are: {', '.join(known) or 'none'}")
    if not (folder / ".complete").is_file():
        raise HostError(f"release {release} is only half unpacked; deploy it again")
    manifest = read_object(folder / "manifest.json")
    if not isinstance(manifest.get("path"), list) or not isinstance(manifest.get("module"), str):
        raise HostError(f"release {release} has no readable manifest.json; deploy it again")
    return manifest


def check_engine(manifest: dict[str, Any], release: str, engine: Engine) -> None:
    """Refuse a release that was built for another engine and lacks what this one needs."""
    packages, needed = manifest.get("packages", {}), engine.packages[0]
    if packages and needed not in packages:
        raise HostError(
            f"release {release} was built for the engine {manifest.get('engine')} and lacks {needed}, which "
            f"{engine.name} (service_engine) needs. Nothing was changed. Deploy it again"
        )


def check_not_bad(config: Config, release: str, same_settings: bool) -> None:
    """Refuse a release that went wrong on this host; one that is to get other settings now may try again."""
    mark = history.bad(config).get(release)
    if mark is None or (same_settings and mark.get("fingerprint") != config.fingerprint):
        return
    raise HostError(bad_reason(release, mark))


def check_state(config: Config) -> None:
    """Refuse what APP-release did not create: somebody else's work is not to be overwritten, nor trusted."""
    allowed = {str(config.socket(slot)) for slot in SLOTS}
    foreign = f"which {config.app}-release did not create; nothing was changed"
    if _is_there(config.live_link) and _target(config.live_link) not in allowed:
        # ln would put the link into a folder.
        first = "remove it and " if config.live_link.is_dir() and not config.live_link.is_symlink() else ""
        raise HostError(
            f"{config.live_link} is {_kind(config.live_link)}, {foreign}. Find out what did, then {first}"
            f"point it at the slot that serves, {SLOTS[0]} or {SLOTS[1]}: "
            f"ln -sfn {config.socket(SLOTS[0])} {config.live_link}"
        )
    for slot in SLOTS:
        link = config.root / "slots" / slot
        if _is_there(link) and _target(link).rpartition("/")[0] != str(config.root / "releases"):
            raise HostError(f"{link} is {_kind(link)}, {foreign}. Remove it")


class NoRoomError(HostError):
    """The disk has no room for what a switch writes down."""


def room_trouble(config: Config) -> str:
    """Say that the disk has no room for what a switch writes down, "" where it has."""
    places = (config.root, config.etc, config.units)
    return next(filter(None, (_full(place, ROOM_BYTES, ROOM_INODES) for place in places)), "")


def run_trouble(config: Config, room: int, inodes: int) -> str:
    """Say that /run is full, "" where it is not. Neither removing a release nor the reserve makes room there."""
    # Sockets and systemd's own notes are there, and what does not fit fails without a reason.
    return _full(config.run if config.run.exists() else config.run.parent, room, inodes)


def check_room(config: Config) -> None:
    """Refuse a deploy that has no room for what it writes down."""
    # Who called may remove the release for that (commands.py).
    if trouble := room_trouble(config):
        raise NoRoomError(f"{trouble}; what serves was not changed. Make room")
    if trouble := run_trouble(config, ROOM_BYTES, ROOM_INODES):
        raise HostError(f"{trouble}; nothing was changed. Make room")


def _full(place: Path, room: int, inodes: int) -> str:
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if free < room or (disk.f_files and disk.f_favail < inodes):
        return f"the disk is full: {place} has {free >> 10} kB and {disk.f_favail} inodes free"
    return ""


def clock_trouble(config: Config, now: float) -> str:
    """Say what is wrong with the host's clock, "" where nothing shows."""
    # The last one, not the greatest: one switch with a wrong clock is not to be held against all later ones.
    last = next((entry["at"] for entry in reversed(history.entries(config)) if isinstance(entry.get("at"), int)), 0)
    if now >= last - CLOCK_SECONDS:
        return ""
    here, then = (time.strftime("%F %T %Z", time.localtime(at)) for at in (now, last))
    return f"the clock says {here}, but the last switch was at {then}: one of the two is wrong (timedatectl)"


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _target(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else ""


def _kind(path: Path) -> str:
    if path.is_symlink():
        return f"a link to {os.readlink(path)}"
    return "a folder" if path.is_dir() else "no link"
