"""Old releases: which are kept, and how one is removed so that half of it never looks whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from . import history
from .config import Config, HostError
from .locks import releases_locked
from .records import SLOTS

#: From being unpacked to being switched to: migrations and the canary come between.
FRESH_SECONDS = 3600.0


def whole(config: Config) -> list[str]:
    """Return the whole releases on the host, the newest first."""
    times = {}
    for marker in config.root.glob("releases/*/.complete"):
        # One that is being unpacked has another name yet, and may be renamed at any moment.
        with contextlib.suppress(OSError):
            if history.is_whole(config, marker.parent.name):
                times[marker.parent.name] = marker.stat().st_mtime
    return sorted(times, key=lambda name: times[name], reverse=True)


def in_use(config: Config) -> dict[str, str]:
    """Return the releases that must stay, each with the reason."""
    reasons = {}
    for slot in SLOTS:
        with contextlib.suppress(OSError):
            reasons[os.path.basename(os.readlink(config.root / "slots" / slot))] = f"the {slot} slot has it"
    for release in history.rollback_candidates(config)[:1]:
        reasons[release] = "it is the one to go back to"
    if live := config.live_record().release:
        reasons[live] = "it is live"
    return reasons


def check_prune(config: Config, releases: Sequence[str]) -> None:
    """Refuse to remove what is in use or not there; HostError."""
    there, used = set(whole(config)), in_use(config)
    for release in releases:
        if release in used:
            raise HostError(f"release {release} cannot be removed: {used[release]}. Nothing was removed")
        if release not in there:
            raise HostError(f"release {release!r} is not on this host; there are: {', '.join(sorted(there)) or 'none'}")


def prune(config: Config, releases: Sequence[str] = (), keep: int = 0) -> list[str]:
    """Remove the named releases, or all but `keep` of them; return what was removed.

    Kept are, in this order: what is in use, what can be gone back to, the newest. Bad ones go first. One that was
    unpacked just now stays in any case: another deploy is about to switch to it.
    """
    check_prune(config, releases)
    if not releases:
        good = [name for name in whole(config) if name not in history.bad(config)]
        order = dict.fromkeys([*in_use(config), *history.rollback_candidates(config), *good, *whole(config)])
        here = [name for name in order if history.is_whole(config, name)]
        releases = [name for name in here[max(keep, len(in_use(config))) :] if not _is_fresh(config, name)]
    with releases_locked(config.root):
        for release in releases:
            _remove(config, release)
        for folder in _leftovers(config):
            shutil.rmtree(folder, ignore_errors=True)
    history.unmark(config, *releases)
    return list(releases)


def drop(config: Config, release: str) -> bool:
    """Remove a release that never served; return whether it is gone. The idle slot may still name it."""
    live = config.live_slot()
    if release in {*history.served(config), config.live_record().release} or not history.is_whole(config, release):
        return False
    with releases_locked(config.root):
        for slot in SLOTS:
            link = config.root / "slots" / slot
            if slot != live and link.is_symlink() and os.path.basename(os.readlink(link)) == release:
                link.unlink()
        _remove(config, release)
    return True


def _remove(config: Config, release: str) -> None:
    folder = config.release_dir(release)
    # The marker goes first: what is left of it when this is cut off is no release.
    (folder / ".complete").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(config.kept_files(release)["service"].parent, ignore_errors=True)


def _leftovers(config: Config) -> list[Path]:
    """Return folders that are no release: what a cut-off removal left. The caller holds the lock of unpacking."""
    used = in_use(config)
    folders = [path for path in config.root.glob("releases/[!.]*") if path.is_dir() and not path.is_symlink()]
    return [path for path in folders if path.name not in used and not (path / ".complete").exists()]


def _is_fresh(config: Config, release: str) -> bool:
    try:
        return abs(time.time() - (config.release_dir(release) / ".complete").stat().st_mtime) < FRESH_SECONDS
    except OSError:
        return False
