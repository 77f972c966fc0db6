"""The switch: one path by which a release comes to serve, whoever asked for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from .config import Config, HostError, link_atomically, read_object, write_atomically
from .gate import POLL_SECONDS, GateError, wait_until_proven
from .systemd import Systemd, SystemdError
from .workers import connections

Say = Callable[[str], None]


class RefusedError(Exception):
    """The new release never got traffic, and the old one serves on. `log` is what the new one said last."""

    def __init__(self, message: str, log: list[str]) -> None:
        super().__init__(message)
        self.log = log


def check_release(config: Config, release: str) -> dict[str, Any]:
    """Return the manifest of a complete release; HostError for one that is not there or not whole."""
    folder = config.release_dir(release)
    if not release.isalnum() or not folder.is_dir():
        known = sorted(path.parent.name for path in config.root.glob("releases/*/.complete"))
        raise HostError(f"release {release!r} is not on this host; there are: {', '.join(known) or 'none'}")
    if not (folder / ".complete").is_file():
        raise HostError(f"release {release} is only half unpacked; deploy it again")
    manifest = read_object(folder / "manifest.json")
    if not isinstance(manifest.get("path"), list):
        raise HostError(f"release {release} has no readable manifest.json; deploy it again")
    return manifest


def activate(config: Config, systemd: Systemd, release: str, say: Say) -> dict[str, Any]:
    """Make a release the live one without losing a request; return the new record.

    Start the idle slot, prove it on its private socket, move the link that nginx connects through,
    drain the old slot, stop it, write it down. Up to the link everything can be taken back, and is.
    Raises HostError before anything changed, RefusedError when the release did not prove itself.
    """
    manifest = check_release(config, release)
    old, new = config.live_slot(), config.idle_slot()
    started = time.time()
    say(f"starting release {release} in the {new} slot with {config.workers} workers")
    try:
        _prepare(config, systemd, new, release, manifest)
        systemd.start(config.socket_unit(new), config.service(new))
        say(wait_until_proven(config, systemd, new))
    except (GateError, SystemdError, OSError) as error:
        log = systemd.journal(config.service(new), started)
        systemd.stop(config.service(new), config.socket_unit(new))
        raise RefusedError(str(error), log) from error

    systemd.enable(config.service(new))
    link_atomically(config.live_link, config.socket(new))
    say(f"traffic goes to the {new} slot")
    before = read_object(config.root / "live.json")
    record = {
        "release": release,
        "slot": new,
        "workers": config.workers,
        "fingerprint": config.fingerprint,
        "at": int(time.time()),
        "previous": before.get("release") if before.get("release") != release else before.get("previous"),
    }
    write_atomically(config.root / "live.json", json.dumps(record, indent=1) + "\n")
    if old:
        _retire(config, systemd, old, say)
    say(f"done in {time.time() - started:.1f} s")
    return record


def _prepare(config: Config, systemd: Systemd, slot: str, release: str, manifest: dict[str, Any]) -> None:
    """Point the slot at a release. A slot left running by an interrupted switch has no traffic: stop it."""
    systemd.stop(config.service(slot), config.socket_unit(slot))
    folder = config.release_dir(release)
    slots = config.root / "slots"
    slots.mkdir(mode=0o755, exist_ok=True)
    link_atomically(slots / slot, folder)
    search_path = ":".join(str(folder / part) for part in manifest["path"])
    write_atomically(slots / f"{slot}.env", f"FLEET_RELEASE={release}\nPYTHONPATH={search_path}\n")


def _retire(config: Config, systemd: Systemd, slot: str, say: Say) -> None:
    """Stop a slot when nobody is connected any more, or when the drain time is over."""
    deadline = time.monotonic() + config.drain_timeout
    began = time.monotonic()
    while (open_now := connections(config.socket(slot))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    took = time.monotonic() - began
    if open_now:
        say(f"{open_now} connections still open in the {slot} slot after {took:.0f} s (service_drain_timeout): closing")
    else:
        say(f"the {slot} slot is drained after {took:.1f} s")
    systemd.disable(config.service(slot))
    systemd.stop(config.service(slot), config.socket_unit(slot))
